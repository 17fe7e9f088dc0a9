import { expect } from 'chai'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

describe('an import that contradicts the catalogue', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  it('fails, and says which file and why', async () => {
    await uploadFiles(house, 'SITE-A', 'exp:run1', [{ did: 'exp:f1', content: Buffer.from('hello') }])
    const { id } = await house.client.addImport({
      body: { rse: 'SITE-A', path: '/data/exp/exp/run1', dataset: 'exp:again' },
    })
    const ended = await until(
      () => house.client.getImport({ params: { id } }),
      job => job.state === 'DONE' || job.state === 'FAILED',
    )
    expect(ended).to.include({ state: 'FAILED', files: 0 })
    expect(ended.error).to.contain('PATH_TAKEN').and.to.contain('exp:again/f1')
  })
})
