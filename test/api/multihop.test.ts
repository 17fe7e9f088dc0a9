import { existsSync } from 'node:fs'
import { expect } from 'chai'
import { askCopy, onDisk, placeDataset, someFiles, transfersOf, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

const FILES = 20
const files = someFiles(FILES)

describe('a rule at a storage that the files cannot reach at once', () => {
  let house: House

  before(async () => {
    house = await startHouse({ server: { deletion: { graceSeconds: 0 } } })
    await house.addStorages()
    await house.client.removeDistance({ params: { source: 'SITE-A', destination: 'SITE-B' } })
    await house.client.updateRse({ params: { rse: 'SITE-C' }, body: { multihop: true } })
    await placeDataset(house, 'SITE-A', 'run1', files)
  })
  after(() => house.stop())

  const between = async () =>
    (await house.client.listReplicas({ query: { did: 'exp:run1', rse: 'SITE-C', limit: 1_000 } })).items

  it('says over which they go, and for what a hop is', async () => {
    const rule = await askCopy(house, 'run1', 'SITE-B')
    const own = await until(
      () => transfersOf(house, rule),
      found => found.length === FILES && found.every(({ reason }) => reason === 'MULTIHOP (via SITE-C)'),
    )
    const { items } = await house.client.listTransfers({ query: { destination: 'SITE-C', limit: 1_000 } })
    expect(items.map(({ hopOf }) => hopOf).sort()).to.deep.equal(own.map(({ id }) => id).sort())
    const [first] = own
    const why = await house.client.getTransferWhy({ params: { id: first?.id ?? 0 } })
    expect(why).to.include({ code: 'MULTIHOP' })
  })

  it('brings them there over the storage between, which keeps none of them', async () => {
    await house.startWorker()
    const [rule] = (await house.client.listRules({ query: {} })).items
    const id = rule?.id ?? 0
    await untilRule(house, id, 'OK')
    expect(await wrongFiles(house, 'SITE-B', 'run1', files)).to.deep.equal([])
    const transfers = await transfersOf(house, id)
    expect(new Set(transfers.map(({ source }) => source))).to.deep.equal(new Set(['SITE-C']))
    await until(between, items => items.length === 0)
    expect(files.filter(({ name }) => existsSync(onDisk(house, 'SITE-C', 'run1', name)))).to.deep.equal([])
    expect(house.storages.get('SITE-C')?.requests.get('DELETE')).to.equal(FILES)
    expect(await wrongFiles(house, 'SITE-A', 'run1', files)).to.deep.equal([])
  })

  it('each side of each hop has a token of its own, for the dataset alone', async () => {
    const { items } = await house.client.listGrants({ query: {} })
    const scopes = items.map(({ rse, purpose, scopes }) => `${rse} ${purpose} ${scopes.join(' ')}`).sort()
    expect(scopes).to.deep.equal([
      'SITE-A read storage.read:/exp/exp/run1',
      'SITE-B write storage.create:/exp/exp/run1 storage.read:/exp/exp/run1',
      'SITE-C delete storage.modify:/exp/exp/run1 storage.read:/exp/exp/run1',
      'SITE-C read storage.read:/exp/exp/run1',
      'SITE-C write storage.create:/exp/exp/run1 storage.read:/exp/exp/run1',
    ])
  })
})
