import { expect } from 'chai'
import type { Client } from '../../shared/contract/client.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { signerOf } from '../house/signer.ts'
import { uploadFiles } from '../house/upload.ts'

const PREFIX = '/data/exp'

/** The scope `s` is closed to bob; `open` and `own` are nobody's. */
describe('paths that somebody names', () => {
  let house: House
  let raw: RawCalls
  let bob: Secret
  let bobs: Client
  let carols: Client
  let key: Awaited<ReturnType<typeof newRecipient>>['publicJwk']
  let n = 0

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    const sign = await signerOf(house)
    key = (await newRecipient()).publicJwk
    for (const name of ['bob', 'carol']) {
      await house.client.addAccount({ body: { name } })
      await house.client.addIdentity({ body: { issuer: house.sandbox.issuer, subject: name, account: name } })
    }
    bob = await sign({ sub: 'bob' })
    const carol = await sign({ sub: 'carol' })
    bobs = house.clientFor(async () => bob)
    carols = house.clientFor(async () => carol)
    await uploadFiles(house, 'SITE-A', 's:run1', [{ did: 's:run1/f0', content: Buffer.from('x') }])
    await house.client.setPermissions({ params: { scope: 's', account: 'carol' }, body: { permissions: ['manage'] } })
    await register(carols, 's:old', '/legacy/s/old')
    await uploadFiles(house, 'SITE-A', 'open:run1', [{ did: 'open:run1/f0', content: Buffer.from('x') }])
    await house.client.addImport({ body: { rse: 'SITE-A', path: `${PREFIX}/legacy/tree`, dataset: 's:tree' } })
  })
  after(() => house.stop())

  async function register(client: Client, did: string, path: string): Promise<void> {
    await client.registerReplicas({ body: { rse: 'SITE-A', files: [{ did, bytes: 1, path: `${PREFIX}${path}` }] } })
  }
  const upload = (did: string) => ({
    rse: 'SITE-A',
    dataset: 'own:up',
    files: [{ did, bytes: 1, adler32: '00010001' }],
    key,
  })
  const grants = async (purpose: 'upload' | 'list') =>
    (await house.client.listGrants({ query: {} })).items.filter(grant => grant.purpose === purpose).length

  for (const [path, where] of [
    ['/s/run1/zz', 'where the layout has a dataset of it'],
    ['/s/new/zz', 'where the layout would put one'],
    ['/s/zz', 'in its own directory'],
    ['/legacy/s/zz', 'where files of it were said to lie'],
    ['/legacy/s/below/zz', 'below that'],
    ['/legacy/zz', 'above that'],
    ['/legacy/tree/a/b/zz', 'where it is being imported'],
  ] as const) {
    it(`are not in a closed scope's directory: ${path}, ${where}`, async () => {
      n += 1
      const body = { rse: 'SITE-A', files: [{ did: `own:z${n}`, bytes: 1, path: `${PREFIX}${path}` }] }
      const { detail } = await raw.refusal([403, 'SCOPE_FORBIDDEN', 'files.0.path'], 'POST', '/v1/replicas', {
        token: bob,
        body,
      })
      expect(detail).to.contain('the scope s').and.to.contain('bob may not write')
    })
  }

  for (const [path, what] of [
    ['/s', 'its directory'],
    ['/s/run1', 'one of its datasets'],
    ['/legacy', 'what contains its files'],
    ['/legacy/s', 'where its files were said to lie'],
    ['', 'what contains its directory'],
  ] as const) {
    it(`are not imported by who may not write in a closed scope: ${path}/, ${what}`, async () => {
      const body = { rse: 'SITE-A', path: `${PREFIX}${path}`, dataset: `own:import${n}` }
      const before = await grants('list')
      const { detail } = await raw.refusal([403, 'SCOPE_FORBIDDEN', 'path'], 'POST', '/v1/imports', {
        token: bob,
        body,
      })
      expect(detail).to.contain('the scope s').and.to.contain('bob may not write')
      expect(await grants('list'), 'no token is asked for').to.equal(before)
    })
  }

  it('are refused nobody who may write there, nor an admin', async () => {
    await register(carols, 's:mine', '/s/run1/mine')
    await register(house.client, 'own:admins', '/s/run1/admins')
    await house.client.addImport({ body: { rse: 'SITE-A', path: `${PREFIX}/s/run1`, dataset: 's:again' } })
    await bobs.addImport({ body: { rse: 'SITE-A', path: `${PREFIX}/bobs`, dataset: 'own:bobs' } })
  })

  for (const [path, where] of [
    ['/zz', 'at the prefix'],
    ['/open/zz', 'in the directory of an open scope'],
  ] as const) {
    it(`are refused where a token would open all of others', to an admin too: ${path}, ${where}`, async () => {
      const body = { rse: 'SITE-A', files: [{ did: 'own:wide', bytes: 1, path: `${PREFIX}${path}` }] }
      const { detail } = await raw.refusal([409, 'PATH_TOO_WIDE', 'files.0.path'], 'POST', '/v1/replicas', { body })
      expect(detail).to.contain('two below the prefix')
    })
  }

  it('may be one below the prefix, where no scope is called so', () => register(bobs, 'own:near', '/run1/near'))

  it('get no token for an upload that has nothing to send', async () => {
    await register(bobs, 'own:there', '/attic/deep/there')
    const before = await grants('upload')
    const plan = await bobs.planUpload({ body: upload('own:there') })
    expect(plan.files.map(({ done }) => done)).to.deep.equal([true])
    expect([plan.token, plan.context, plan.expiresAt]).to.deep.equal([undefined, undefined, undefined])
    expect(await grants('upload')).to.equal(before)
  })

  it('get no token for what was registered before a scope was called so, or was closed', async () => {
    await register(bobs, 'own:early', '/later/early')
    await register(bobs, 'own:deeper', '/later/run1/deeper')
    for (const did of ['own:early', 'own:deeper']) {
      await bobs.declareReplicas({ body: { rse: 'SITE-A', as: 'BAD', files: [{ did }], reason: 'a test' } })
    }
    await house.client.addDids({ body: { dids: [{ did: 'later:run1', type: 'DATASET' }] } })
    const params = { scope: 'later', account: 'carol' }
    await house.client.setPermissions({ params, body: { permissions: ['manage'] } })
    const asked = (did: string) => ({ token: bob, body: upload(did) })
    const before = await grants('upload')
    await raw.refusal([409, 'PATH_TOO_WIDE', 'files'], 'POST', '/v1/uploads', asked('own:early'))
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'files'], 'POST', '/v1/uploads', asked('own:deeper'))
    expect(await grants('upload')).to.equal(before)
  })

  it('get no token that reaches what a closed scope was registered to have there since', async () => {
    await bobs.addImport({ body: { rse: 'SITE-A', path: `${PREFIX}/shared/tree`, dataset: 'own:shared' } })
    await register(bobs, 'own:mixed', '/shared/tree/mixed')
    await bobs.declareReplicas({ body: { rse: 'SITE-A', as: 'BAD', files: [{ did: 'own:mixed' }], reason: 'a test' } })
    await register(carols, 's:mixed', '/shared/tree/theirs/mixed')
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'files'], 'POST', '/v1/uploads', {
      token: bob,
      body: upload('own:mixed'),
    })
  })

  it('get a token for the dataset’s own directory when something is to be sent', async () => {
    const plan = await bobs.planUpload({ body: upload('own:up/new') })
    expect(plan.token).to.be.a('string')
    const { items } = await house.client.listGrants({ query: {} })
    const scopes = items.filter(({ purpose }) => purpose === 'upload').flatMap(grant => grant.scopes)
    expect(scopes).to.include('storage.create:/exp/own/up')
  })
})
