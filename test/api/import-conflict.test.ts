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

  it('leaves out what contradicts it, and says which file and why', async () => {
    await uploadFiles(house, 'SITE-A', 'exp:run1', [{ did: 'exp:f1', content: Buffer.from('hello') }])
    const { id } = await house.client.addImport({
      body: { rse: 'SITE-A', path: '/data/exp/exp/run1', dataset: 'exp:again' },
    })
    const ended = await until(
      () => house.client.getImport({ params: { id } }),
      job => job.state === 'DONE' || job.state === 'FAILED',
    )
    expect(ended).to.include({ state: 'DONE', files: 0, leftOut: 1 })
    const { items } = await house.client.listImportProblems({ params: { id } })
    const message = 'the path belongs to another file: exp:f1'
    expect(items).to.deep.equal([{ path: 'f1', code: 'PATH_TAKEN', message }])
    const { items: attached } = await house.client.listContents({ params: { scope: 'exp', name: 'again' } })
    expect(attached).to.deep.equal([])
  })
})
