import { expect } from 'chai'
import type { Client } from '../../shared/contract/client.ts'
import type { Route, ScopePermission } from '../../shared/contract/route.ts'
import { ROUTES, type RouteName, type Routes } from '../../shared/contract/routes.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { signerOf } from '../house/signer.ts'
import { uploadFiles } from '../house/upload.ts'

/** Every route by which an account changes something in a scope: one that is not here does not compile. */
type ChangingRoute = { [N in RouteName]: Routes[N] extends { permission: ScopePermission } ? N : never }[RouteName]
/** `field`: what names the scope that is refused. */
type Change = readonly [path: string, body: object | undefined, field: string | undefined]
const CHANGES: Readonly<
  Record<ChangingRoute, (given: { rule: number; import: number; key: object; n: number }) => readonly Change[]>
> = {
  addDids: ({ n }) => [
    ['/v1/dids', { dids: [{ did: `s:new${n}`, type: 'DATASET' }] }, 'dids.0.did'],
    ['/v1/dids', { dids: [`own:a${n}`, `s:b${n}`].map(did => ({ did, type: 'CONTAINER' })) }, 'dids.1.did'],
  ],
  setOpen: () => [['/v1/dids/s/run1', { open: true }, 'scope']],
  attach: () => [['/v1/dids/s/all/contents', { dids: ['s:run1'] }, 'scope']],
  detach: () => [['/v1/dids/s/all/contents/remove', { dids: ['s:run1'] }, 'scope']],
  registerReplicas: ({ n }) => [
    ['/v1/replicas', { rse: 'SITE-A', files: [{ did: `s:r${n}`, bytes: 1 }] }, 'files.0.did'],
    ['/v1/replicas', { rse: 'SITE-A', dataset: 's:run2', files: [{ did: `own:r${n}`, bytes: 1 }] }, 'dataset'],
  ],
  planUpload: ({ key, n }) => [
    [
      '/v1/uploads',
      { rse: 'SITE-A', dataset: 's:run3', files: [{ did: `s:run3/f${n}`, bytes: 1, adler32: '1' }], key },
      'files.0.did',
    ],
  ],
  confirmUpload: () => [['/v1/uploads/confirmations', { rse: 'SITE-A', files: ['s:run1/f0'] }, 'files.0']],
  addImport: ({ n }) => [
    ['/v1/imports', { rse: 'SITE-A', path: `/data/exp/old${n}`, dataset: `s:old${n}` }, 'dataset'],
  ],
  cancelImport: it => [[`/v1/imports/${it.import}/cancel`, undefined, undefined]],
  resumeImport: it => [[`/v1/imports/${it.import}/resume`, undefined, undefined]],
  declareReplicas: () => [
    ['/v1/replicas/declarations', { rse: 'SITE-A', as: 'GOOD', files: [{ did: 's:run1/f0' }] }, 'files.0'],
  ],
  keepReplicas: () => [['/v1/replicas', { rse: 'SITE-A', did: 's:run1', kept: true }, 'did']],
  addRules: ({ n }) => [
    ['/v1/rules', { dids: ['s:run1'], copies: 1, expression: 'SITE-B', comment: `${n}` }, 'dids.0'],
  ],
  previewRules: () => [['/v1/rules/preview', { dids: ['s:run1'], copies: 1, expression: 'SITE-B' }, 'dids.0']],
  updateRule: ({ rule }) => [[`/v1/rules/${rule}`, { comment: 'x' }, undefined]],
  replaceRule: ({ rule }) => [[`/v1/rules/${rule}/replacement`, { expression: 'SITE-B' }, undefined]],
  removeRule: ({ rule }) => [[`/v1/rules/${rule}`, undefined, undefined]],
  repairRule: ({ rule }) => [[`/v1/rules/${rule}/repair`, undefined, undefined]],
  setPermissions: () => [['/v1/scopes/s/permissions/alice', { permissions: ['manage'] }, 'scope']],
  removePermissions: () => [['/v1/scopes/s/permissions/carol', undefined, 'scope']],
  openScope: () => [['/v1/scopes/s/permissions', undefined, 'scope']],
}
const NEEDED = Object.entries(ROUTES as Readonly<Record<string, Route>>).flatMap(([name, { permission }]) =>
  permission === undefined ? [] : [[name as ChangingRoute, permission] as const],
)
const ALL = ['write', 'rule', 'manage'] as const

describe('permissions in scopes', () => {
  let house: House
  let raw: RawCalls
  let sign: Awaited<ReturnType<typeof signerOf>>
  let bob: Secret
  let bobs: Client
  let key: object
  let n = 0
  let alicesImport = 0

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    sign = await signerOf(house)
    key = (await newRecipient()).publicJwk
    for (const name of ['bob', 'carol']) {
      await house.client.addAccount({ body: { name } })
      await house.client.addIdentity({ body: { issuer: house.sandbox.issuer, subject: name, account: name } })
    }
    bob = await sign({ sub: 'bob' })
    bobs = house.clientFor(async () => bob)
    await uploadFiles(house, 'SITE-A', 's:run1', [{ did: 's:run1/f0', content: Buffer.from('x') }])
    await house.client.addDids({ body: { dids: [{ did: 's:all', type: 'CONTAINER' }] } })
    await bobs.addDids({ body: { dids: [{ did: 'own:run1', type: 'DATASET' }] } })
    const given = { rse: 'SITE-A', path: '/data/exp/old', dataset: 's:old' }
    alicesImport = (await house.client.addImport({ body: given })).id
  })
  after(() => house.stop())
  afterEach(() => house.client.openScope({ params: { scope: 's' } }))

  const allow = (account: string, ...permissions: readonly ScopePermission[]) =>
    house.client.setPermissions({ params: { scope: 's', account }, body: { permissions: [...permissions] } })
  const changesOf = async (name: ChangingRoute): Promise<readonly Change[]> => {
    n += 1
    return CHANGES[name]({ rule: await alicesRule(), import: alicesImport, key, n })
  }
  /** Made anew when it was removed. */
  async function alicesRule(): Promise<number> {
    const known = await house.client.listRules({ query: { did: 's:run1', account: 'alice' } })
    const asked = { dids: ['s:run1'], copies: 1, expression: 'SITE-C' }
    const { items } = known.items.length > 0 ? known : await house.client.addRules({ body: asked })
    return items[0]?.id ?? 0
  }

  for (const [name, needed] of NEEDED) {
    const { method } = ROUTES[name]
    it(`${name} is refused without the permission ${needed}, whatever else the account may, and names the scope`, async () => {
      for (const others of [[], ALL.filter(one => one !== needed && one !== 'manage')]) {
        await allow('carol', 'manage')
        if (others.length > 0) await allow('bob', ...others)
        for (const [path, body, field] of await changesOf(name)) {
          // Whose rule it is has always been told so.
          const code = field === undefined ? 'FORBIDDEN' : 'SCOPE_FORBIDDEN'
          const expected = field === undefined ? ([403, code] as const) : ([403, code, field] as const)
          const { detail } = await raw.refusal(expected, method, path, { token: bob, body })
          expect(detail).to.contain('the scope s')
          expect(detail).to.match(/bob may not (write|make rules|manage)/)
        }
      }
    })

    it(`${name} is no admin’s to be refused, nor his who may`, async () => {
      await allow('carol', 'manage')
      for (const token of [undefined, bob]) {
        if (token !== undefined) await allow('bob', needed)
        for (const [path, body] of await changesOf(name)) {
          const { status, text } = await raw.call(method, path, { body, ...(token === undefined ? {} : { token }) })
          expect(text).not.to.contain('FORBIDDEN')
          expect([200, 201, 202, 404, 409], text).to.include(status)
        }
        await allow('carol', 'manage')
      }
    })
  }

  it('a scope without them is open to all accounts of its VO, as far as it is not managed', async () => {
    await bobs.addDids({ body: { dids: [{ did: 's:bobs', type: 'DATASET' }] } })
    const { items } = await bobs.addRules({ body: { dids: ['s:bobs'], copies: 1, expression: 'SITE-B' } })
    await bobs.removeRule({ params: { id: items[0]?.id ?? 0 } })
    expect(await bobs.listPermissions({ params: { scope: 's' } })).to.deep.equal({ items: [] })
    const body = { permissions: ['manage'] }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'scope'], 'PUT', '/v1/scopes/s/permissions/bob', { token: bob, body })
  })

  it('nobody lets the last copy go of what others have made, in an open scope too, unless he manages it', async () => {
    const files = [{ did: 's:run1/f0' }]
    const last = { rse: 'SITE-A', as: 'BAD', last: true, files }
    const forbidden = [403, 'SCOPE_FORBIDDEN', 'files.0'] as const
    await raw.refusal(forbidden, 'POST', '/v1/replicas/declarations', { token: bob, body: last })
    const release = { rse: 'SITE-A', did: 's:run1', kept: false }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'did'], 'PATCH', '/v1/replicas', { token: bob, body: release })
    await allow('bob', 'write')
    await raw.refusal(forbidden, 'POST', '/v1/replicas/declarations', { token: bob, body: last })
    await bobs.registerReplicas({ body: { rse: 'SITE-A', files: [{ did: 's:bobs1', bytes: 1 }] } })
    expect(await bobs.keepReplicas({ body: { rse: 'SITE-A', did: 's:bobs1', kept: false } })).to.include({ changed: 1 })
    const own = { rse: 'SITE-A', as: 'BAD' as const, last: true, files: [{ did: 's:bobs1' }] }
    expect((await bobs.declareReplicas({ body: own })).results[0]?.outcome).to.equal('DECLARED')
    await allow('bob', 'manage')
    expect(await bobs.keepReplicas({ body: release })).to.include({ changed: 1 })
    await bobs.keepReplicas({ body: { ...release, kept: true } })
  })

  it('whoever made a scope has no more right to it than others: an admin says who manages it', async () => {
    const body = { permissions: ['manage'] }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'scope'], 'PUT', '/v1/scopes/own/permissions/bob', { token: bob, body })
  })

  it('reading needs none', async () => {
    await allow('carol', 'manage')
    expect((await bobs.listDids({ query: { scope: 's' } })).items.length).to.be.greaterThan(0)
    expect((await bobs.planDownload({ body: { did: 's:run1', key: key as never } })).files.length).to.equal(1)
  })

  it('what is another scope’s is not got by attaching it to a dataset of one’s own', async () => {
    await allow('carol', 'manage')
    const attach = { token: bob, body: { dids: ['s:run1/f0'] } }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'dids.0'], 'POST', '/v1/dids/own/run1/contents', attach)
    await allow('bob', 'write')
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'dids.0'], 'POST', '/v1/dids/own/run1/contents', attach)
    const files = { rse: 'SITE-A', dataset: 'own:run1', files: [{ did: 's:elsewhere', bytes: 1 }] }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'files.0.did'], 'POST', '/v1/replicas', { token: bob, body: files })
    await allow('bob', 'rule')
    await bobs.attach({ params: { scope: 'own', name: 'run1' }, body: { dids: ['s:run1/f0'] } })
  })

  it('one’s own rules stay one’s own', async () => {
    const { items } = await bobs.addRules({ body: { dids: ['s:run1'], copies: 1, expression: 'SITE-B|SITE-C' } })
    await allow('carol', 'manage')
    await bobs.removeRule({ params: { id: items[0]?.id ?? 0 } })
  })

  it('the last of them is not taken by mistake, which would open the scope', async () => {
    await allow('carol', 'manage')
    await allow('bob', 'write')
    const path = (account: string) => `/v1/scopes/s/permissions/${account}`
    expect((await raw.call('DELETE', path('bob'))).status).to.equal(200)
    expect((await raw.call('DELETE', path('bob'))).status, 'again').to.equal(200)
    await raw.refusal([409, 'SCOPE_WOULD_OPEN', 'account'], 'DELETE', path('carol'))
    const carols = house.clientFor(async () => sign({ sub: 'carol' }))
    await carols.setPermissions({ params: { scope: 's', account: 'bob' }, body: { permissions: ['rule', 'write'] } })
    expect((await bobs.listPermissions({ params: { scope: 's' } })).items).to.deep.equal([
      { account: 'bob', permissions: ['write', 'rule'] },
      { account: 'carol', permissions: ['manage'] },
    ])
    await raw.refusal([404, 'ACCOUNT_UNKNOWN', 'account'], 'PUT', path('nobody'), { body: { permissions: ['write'] } })
    await raw.refusal([400, 'INVALID', 'permissions'], 'PUT', path('bob'), { body: { permissions: [] } })
    await raw.refusal([404, 'SCOPE_UNKNOWN', 'scope'], 'GET', '/v1/scopes/nowhere/permissions')
  })

  it('an admin closes a scope before anybody has made it; others learn nothing of it', async () => {
    const command = (line: string, as?: 'server') => runCommand(house, line, as)
    expect((await command('scope allow fresh carol --write --rule')).out).to.contain(
      'carol may write and rule in fresh',
    )
    const dids = { dids: [{ did: 'fresh:run1', type: 'DATASET' }] }
    await raw.refusal([403, 'SCOPE_FORBIDDEN', 'dids.0.did'], 'POST', '/v1/dids', { token: bob, body: dids })
    expect((await command('scope list fresh')).out).to.match(/ACCOUNT +PERMISSIONS\ncarol +write rule/)
    expect((await command('scope deny fresh carol')).err).to.contain('SCOPE_WOULD_OPEN')
    expect((await command('scope open fresh')).out).to.contain('open to all accounts of its VO')
    await bobs.addDids({ body: { dids: [{ did: 'fresh:run1', type: 'DATASET' }] } })
    expect((await command('scope allow fresh carol')).status).to.equal(2)
    const unknown = { token: bob, body: { permissions: ['write'] } }
    await raw.refusal([404, 'SCOPE_UNKNOWN', 'scope'], 'PUT', '/v1/scopes/newer/permissions/bob', unknown)
  })
})
