import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { type House, startHouse } from '../house/house.ts'
import { uploadFiles } from '../house/upload.ts'

describe('an upload that broke off', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
  })
  after(() => house.stop())

  const content = Buffer.from('the whole file')

  async function planReplacement(dids: readonly string[]) {
    const recipient = await newRecipient()
    const files = dids.map(did => ({ did, bytes: content.length, adler32: adler32Hex(adler32(content)) }))
    const body = { rse: 'SITE-A', dataset: 'exp:run1', files, replace: true, key: recipient.publicJwk }
    const plan = await house.client.planUpload({ body })
    return { plan, token: await recipient.open(plan.token ?? '', plan.context ?? '') }
  }

  it('can be removed with a token for that file alone, and repeated', async () => {
    await uploadFiles(house, 'SITE-A', 'exp:run1', [{ did: 'exp:good', content }])
    const directory = join(house.sandbox.storages[0]?.directory ?? '', 'data/exp/exp/run1')
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, 'broken'), 'the wh')
    const { plan, token } = await planReplacement(['exp:good', 'exp:broken'])
    expect(plan.files.map(({ did, done }) => [did, done])).to.deep.equal([
      ['exp:good', true],
      ['exp:broken', false],
    ])
    const remove = async (url: string): Promise<number> =>
      (await house.http.request({ method: 'DELETE', url, headers: { Authorization: `Bearer ${token.reveal()}` } }))
        .status
    expect(await remove(plan.files[0]?.url ?? ''), 'the good file').to.equal(403)
    expect(await remove(plan.files[1]?.url ?? ''), 'the broken file').to.be.within(200, 204)
    await uploadFiles(house, 'SITE-A', 'exp:run1', [{ did: 'exp:broken', content }])
    const { items } = await house.client.listReplicas({ query: { did: 'exp:run1' } })
    expect(items.map(({ did, state }) => [did, state])).to.deep.equal([
      ['exp:good', 'AVAILABLE'],
      ['exp:broken', 'AVAILABLE'],
    ])
  })

  it('is not confirmed by who did not plan it, and the others are none the less', async () => {
    await uploadFiles(house, 'SITE-A', 'exp:run2', [{ did: 'exp:run2/good', content }])
    const files = [{ did: 'exp:run2/lost', bytes: content.length, adler32: adler32Hex(adler32(content)) }]
    await house.client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:run2', files } })
    const body = { rse: 'SITE-B', files: ['exp:run2/lost', 'exp:run2/good'] }
    const { available, refused } = await house.client.confirmUpload({ body })
    expect([available, refused.map(({ did, code }) => [did, code])]).to.deep.equal([
      0,
      [
        ['exp:run2/lost', 'UPLOAD_NOT_PLANNED'],
        ['exp:run2/good', 'UPLOAD_NOT_PLANNED'],
      ],
    ])
    const { items } = await house.client.listReplicas({ query: { did: 'exp:run2', rse: 'SITE-B' } })
    expect(items).to.deep.equal([])
    expect(await house.client.confirmUpload({ body: { ...body, rse: 'SITE-A' } })).to.deep.equal({
      available: 0,
      refused: [],
    })
    const unknown = house.client.confirmUpload({ body: { ...body, files: ['exp:run2/nobody'] } })
    expect(await unknown.catch(error => [error.code, error.field])).to.deep.equal(['DID_UNKNOWN', 'files.0'])
  })

  it('can not be removed where nothing may be deleted', async () => {
    const rse = (availabilityDelete: boolean) =>
      house.client.updateRse({ params: { rse: 'SITE-A' }, body: { availabilityDelete } })
    await rse(false)
    const error = await planReplacement(['exp:closed']).catch((refused: unknown) => refused)
    expect(error).to.include({ code: 'RSE_NOT_DELETABLE', status: 409, field: 'replace' })
    await rse(true)
    expect((await planReplacement(['exp:closed'])).plan.files).to.have.length(1)
  })

  it('takes few files at a time: the token names each', async () => {
    const dids = Array.from({ length: 9 }, (_, i) => `exp:f${i}`)
    const error = await planReplacement(dids).catch((refused: unknown) => refused)
    expect(error).to.include({ code: 'UPLOAD_TOO_MANY', status: 409 })
  })
})
