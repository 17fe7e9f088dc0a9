import { expect } from 'chai'
import { askCopy, placeDataset, someFiles, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'

describe('a storage that issues macaroons', () => {
  let house: House
  before(async () => {
    house = await startHouse({ storages: { 'SITE-A': { behaviour: { macaroons: true } } } })
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  it('is known as such to the workers: the other side of a rule`s copies is shown one', async () => {
    const [site] = house.sandbox.storages
    if (site === undefined) throw new Error('no storage')
    const rse = await house.client.addProtocol({
      params: { rse: 'SITE-A' },
      body: { url: site.url, macaroons: true },
    })
    expect(rse.protocols).to.have.length(1)
    expect(rse.protocols[0]).to.include({ url: site.url, macaroons: true })
    const files = someFiles(10)
    await placeDataset(house, 'SITE-A', 'run1', files)
    await untilRule(house, await askCopy(house, 'run1', 'SITE-B'), 'OK')
    expect(await wrongFiles(house, 'SITE-B', 'run1', files)).to.deep.equal([])
    const shown = house.storages.get('SITE-A')?.shown
    expect([shown?.get('POST token'), shown?.get('GET macaroon'), shown?.get('GET token')]).to.deep.equal([
      1,
      10,
      undefined,
    ])
  })
})
