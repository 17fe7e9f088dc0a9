import { existsSync } from 'node:fs'
import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, onDisk, placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

describe('what no rule asks for any more', () => {
  let house: House

  before(async () => {
    house = await startHouse({ server: { deletion: { graceSeconds: 0 } } })
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  const replicas = async (dataset: string, rse: string) =>
    (await house.client.listReplicas({ query: { did: `exp:${dataset}`, rse } })).items

  it('is deleted by a worker, with a token for that; one that is gone already counts', async () => {
    const files = someFiles(30)
    await placeDataset(house, 'SITE-A', 'run1', files)
    const rule = await askCopy(house, 'run1', 'SITE-B')
    await untilRule(house, rule, 'OK')
    await house.client.removeRule({ params: { id: rule } })
    await until(
      () => replicas('run1', 'SITE-B'),
      items => items.length === 0,
    )
    expect(files.filter(({ name }) => existsSync(onDisk(house, 'SITE-B', 'run1', name)))).to.deep.equal([])
    expect(await replicas('run1', 'SITE-A'), 'nobody asked for them there').to.have.length(30)
    expect(house.storages.get('SITE-B')?.requests.get('DELETE')).to.equal(30)
    const { items } = await house.client.listGrants({ query: {} })
    const own = items.filter(({ purpose }) => purpose === 'delete')
    expect(own.map(({ rse, scopes }) => [rse, scopes])).to.deep.equal([
      ['SITE-B', ['storage.modify:/exp/exp/run1', 'storage.read:/exp/exp/run1']],
    ])
  })

  it('is copied again when it is asked for again', async () => {
    await placeDataset(house, 'SITE-A', 'run2', someFiles(5))
    for (let times = 0; times < 2; times += 1) {
      const rule = await askCopy(house, 'run2', 'SITE-B')
      await untilRule(house, rule, 'OK')
      await house.client.removeRule({ params: { id: rule } })
      await until(
        () => replicas('run2', 'SITE-B'),
        items => items.length === 0,
      )
    }
  })

  it('stays where nothing may be deleted', async () => {
    await placeDataset(house, 'SITE-A', 'run3', someFiles(2))
    const rule = await askCopy(house, 'run3', 'SITE-B')
    await untilRule(house, rule, 'OK')
    const open = (availabilityDelete: boolean) =>
      house.client.updateRse({ params: { rse: 'SITE-B' }, body: { availabilityDelete } })
    await open(false)
    await house.client.removeRule({ params: { id: rule } })
    await systemClock.sleep(6_000)
    expect((await replicas('run3', 'SITE-B')).map(({ state }) => state)).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    await open(true)
    await until(
      () => replicas('run3', 'SITE-B'),
      items => items.length === 0,
      20_000,
    )
  })
})
