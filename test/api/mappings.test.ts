import { expect } from 'chai'
import type { JWTPayload } from 'jose'
import { deleteMapping } from '../../server/accounts/mapping-store.ts'
import { runCommand } from '../house/command.ts'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { signerOf } from '../house/signer.ts'
import { until } from '../house/until.ts'

const ROLE = 'urn:mace:egi.eu:group:exp:role=vo-admin#aai.egi.eu'

describe('mappings of tokens to accounts', () => {
  let house: House
  let raw: RawCalls
  let issuer: string
  let sign: Awaited<ReturnType<typeof signerOf>>

  before(async () => {
    house = await startHouse({ vos: ['exp', 'other'] })
    raw = await RawCalls.create(house)
    issuer = house.sandbox.issuer
    sign = await signerOf(house)
    for (const name of ['production', 'export', 'user-alice'])
      await house.client.addAccount({ body: { name, vo: 'exp' } })
  })
  afterEach(async () => {
    for (const { id } of (await house.client.listMappings()).items) await house.client.removeMapping({ params: { id } })
  })
  after(() => house.stop())

  const whoIs = async (claims: JWTPayload) => {
    const token = await sign(claims)
    return house.clientFor(async () => token).whoami()
  }
  const account = async (claims: JWTPayload) => (await whoIs(claims)).account
  type Body = Parameters<House['client']['addMapping']>[0]['body']
  const map = (claim: Body['claim'], pattern: string, to: { account: string } | { pool: string }, position?: number) =>
    house.client.addMapping({
      body: { issuer, claim, pattern, vo: 'exp', ...to, ...(position === undefined ? {} : { position }) },
    })

  it('go by client, group, entitlement and scope, the first that matches, after identities of their own', async () => {
    const said = {
      client_id: 'webapp',
      'wlcg.groups': ['/exp', '/exp/users/alice'],
      eduperson_entitlement: [ROLE],
      scope: 'openid waybill.export',
    }
    expect(await account({ sub: 'al', ...said })).to.equal(undefined)
    await map('scope', 'waybill.export', { account: 'export' })
    expect(await account({ sub: 'al', ...said })).to.equal('export')
    await map('group', '/exp/users/*', { account: 'user-{1}' }, 1)
    expect(await account({ sub: 'al', ...said })).to.equal('user-alice')
    await map('entitlement', 'urn:mace:egi.eu:group:exp:role=*#aai.egi.eu', { account: 'production' }, 1)
    expect(await account({ sub: 'al', ...said })).to.equal('production')
    await map('client_id', 'webapp', { account: 'alice' }, 1)
    expect(await whoIs({ sub: 'al', ...said })).to.include({ account: 'alice', vo: 'exp', admin: false, worker: false })
    await house.client.addIdentity({ body: { issuer, subject: 'al', account: 'export', vo: 'exp' } })
    expect(await account({ sub: 'al', ...said })).to.equal('export')
    const { items } = await house.client.listMappings()
    expect(items.map(({ position, claim }) => [position, claim])).to.deep.equal([
      [1, 'client_id'],
      [2, 'entitlement'],
      [3, 'group'],
      [4, 'scope'],
    ])
  })

  it('that match first count, also when there is no such account; what is removed maps nobody any more', async () => {
    const { id } = await map('group', '/exp/users/*', { account: 'user-{1}' })
    await map('sub', '**', { account: 'export' })
    for (const [user, expected] of [
      ['alice', 'user-alice'],
      ['bob', undefined],
      ['Alice', undefined],
    ] as const)
      expect(await account({ sub: 'x', groups: [`/exp/users/${user}`] }), user).to.equal(expected)
    await house.client.removeMapping({ params: { id } })
    expect(await account({ sub: 'x', groups: ['/exp/users/bob'] })).to.equal('export')
    await raw.refusal([404, 'MAPPING_UNKNOWN', 'id'], 'DELETE', `/v1/mappings/${id}`)
  })

  it('make no admin and no worker, and give a worker’s client no account', async () => {
    const { manager, worker } = house.sandbox.clients
    await map('sub', '**', { account: 'production' })
    expect(await whoIs({ sub: 'x', groups: ['admins'], scope: 'admin' })).to.include({ admin: false, worker: false })
    expect(await whoIs({ sub: worker.id, client_id: worker.id })).to.deep.equal({
      issuer,
      subject: worker.id,
      admin: false,
      worker: true,
    })
    expect(await account({ sub: manager.id }), 'its own identity').to.equal('alice')
    // Through the worker's client came a person.
    expect(await whoIs({ sub: 'x', client_id: worker.id })).to.include({ worker: false, account: 'production' })
  })

  it('hand an account of a pool out once, and keep it while a mapping leads there', async () => {
    await house.client.setAccountPool({ params: { pool: 'exp' }, body: { size: 2, vo: 'exp' } })
    const { id } = await map('group', '/exp/**', { pool: 'exp' })
    const ann = { sub: 'ann', groups: ['/exp/analysis'] }
    const ben = { sub: 'ben', groups: ['/exp/analysis'] }
    expect(new Set(await Promise.all(Array.from({ length: 8 }, () => account(ann))))).to.deep.equal(new Set(['exp001']))
    expect([await account(ben), await account(ann)]).to.deep.equal(['exp002', 'exp001'])
    expect(await account({ ...ann, groups: ['/exp'] }), 'who is in the group no more').to.equal(undefined)
    const token = await sign({ sub: 'cy', groups: ['/exp/analysis'] })
    const { detail } = await raw.refusal([403, 'ACCOUNT_POOL_EXHAUSTED'], 'GET', '/v1/rules', { token })
    expect(detail).to.contain('the pool exp of exp has handed out all its accounts, and cy of')

    await house.client.releaseAccount({ params: { account: 'exp001' }, body: { vo: 'exp' } })
    expect(await account({ sub: 'cy', groups: ['/exp/analysis'] })).to.equal('exp003')
    await raw.refusal([403, 'ACCOUNT_POOL_EXHAUSTED'], 'GET', '/v1/whoami', { token: await sign(ann) })
    await house.client.setAccountPool({ params: { pool: 'exp' }, body: { size: 3, vo: 'exp' } })
    expect(await account(ann)).to.equal('exp001')
    const page = await house.client.listPoolAccounts({ params: { pool: 'exp' }, query: { vo: 'exp', limit: 2 } })
    expect(page.items.map(({ account: name, subject, held }) => [name, subject, held])).to.deep.equal([
      ['exp001', 'ann', true],
      ['exp002', 'ben', true],
    ])
    expect(page.next).to.be.a('string')
    await house.client.removeMapping({ params: { id } })
    expect(await account(ann)).to.equal(undefined)
    const names = []
    for (let cursor: string | undefined = ''; cursor !== undefined; ) {
      const some = await house.client.listAccounts({ query: { limit: 3, ...(cursor === '' ? {} : { cursor }) } })
      names.push(...some.items.map(({ name }) => name))
      cursor = some.next
    }
    expect(names).to.deep.equal(['alice', 'exp001', 'exp002', 'exp003', 'export', 'production', 'user-alice'])
    const theirs = { issuer, claim: 'sub', pattern: 'eve', account: 'exp001', vo: 'exp' }
    await raw.refusal([409, 'ACCOUNT_OF_POOL', 'account'], 'POST', '/v1/mappings', { body: theirs })
    // What a capture spells leads there as little.
    await map('group', '/exp/users/*', { account: '{1}' })
    expect(await account({ sub: 'eve', groups: ['/exp/users/exp001'] })).to.equal(undefined)
    await raw.refusal([404, 'ACCOUNT_UNKNOWN', 'account'], 'POST', '/v1/accounts/production/release', {
      body: { vo: 'exp' },
    })
  })

  it('of a full pool leave the admin in, who alone can mend it', async () => {
    await house.client.setAccountPool({ params: { pool: 'none' }, body: { size: 0, vo: 'exp' } })
    await map('sub', '**', { pool: 'none' })
    const { manager } = house.sandbox.clients
    await house.client.removeIdentity({ query: { issuer, subject: manager.id } })
    try {
      expect(await whoIs({ sub: manager.id })).to.deep.equal({
        issuer,
        subject: manager.id,
        admin: true,
        worker: false,
      })
      await raw.refusal([403, 'ACCOUNT_POOL_EXHAUSTED'], 'GET', '/v1/whoami', { token: await sign({ sub: 'x' }) })
    } finally {
      await house.client.addIdentity({ body: { issuer, subject: manager.id, account: 'alice', vo: 'exp' } })
    }
  })

  it('are refused where they could lead nowhere, with the reason', async () => {
    const good = { issuer, claim: 'group', pattern: '/exp/*', account: 'production', vo: 'exp' }
    const cases: [[number, string, string], object][] = [
      [[400, 'ISSUER_NOT_TAKEN', 'issuer'], { issuer: 'https://elsewhere.example.org' }],
      [[404, 'ACCOUNT_UNKNOWN', 'account'], { account: 'nobody' }],
      [[404, 'ACCOUNT_UNKNOWN', 'account'], { vo: 'other' }],
      [[404, 'ACCOUNT_POOL_UNKNOWN', 'pool'], { account: undefined, pool: 'nowhere' }],
      [[400, 'INVALID', 'account'], { pool: 'exp' }],
      [[400, 'INVALID', 'account'], { account: undefined }],
      [[400, 'INVALID', 'account'], { account: 'Alice' }],
      [[400, 'INVALID', 'account'], { account: 'a-{0}' }],
      [[400, 'INVALID', 'pattern'], { account: 'a-{2}' }],
      [[400, 'INVALID', 'pattern'], { pattern: '/exp/**/x' }],
      [[400, 'INVALID', 'pattern'], { pattern: '' }],
      [[400, 'INVALID', 'claim'], { claim: 'email' }],
      [[400, 'VO_MISSING', 'vo'], { vo: undefined }],
    ]
    for (const [expected, change] of cases) {
      await raw.refusal(expected, 'POST', '/v1/mappings', { body: { ...good, ...change } })
    }
    const longest = 'x'.repeat(21)
    await raw.refusal([400, 'INVALID', 'pool'], 'PUT', '/v1/account-pools/cms1', { body: { vo: 'exp' } })
    await raw.refusal([400, 'INVALID', 'pool'], 'PUT', `/v1/account-pools/${longest}`, { body: { vo: 'exp' } })
    expect((await house.client.listMappings()).items).to.deep.equal([])
  })

  it('are an admin’s alone, to read as well', async () => {
    await house.client.addIdentity({ body: { issuer, subject: 'bob', account: 'production', vo: 'exp' } })
    const token = await sign({ sub: 'bob' })
    const calls = [
      ['GET', '/v1/mappings'],
      ['POST', '/v1/mappings'],
      ['DELETE', '/v1/mappings/1'],
      ['POST', '/v1/mappings/trials'],
      ['GET', '/v1/account-pools'],
      ['PUT', '/v1/account-pools/exp'],
      ['GET', '/v1/account-pools/exp/accounts'],
      ['POST', '/v1/accounts/exp001/release'],
    ] as const
    for (const [method, path] of calls) await raw.refusal([403, 'FORBIDDEN'], method, path, { token })
  })

  it('are known to another server of the installation within seconds', async () => {
    const { id } = await map('sub', 'eve', { account: 'production' })
    expect(await account({ sub: 'eve' })).to.equal('production')
    const other = house.database.open()
    try {
      await other.write(executor => deleteMapping(executor, id))
    } finally {
      await other.close()
    }
    await until(
      () => account({ sub: 'eve' }),
      found => found === undefined,
    )
  })

  it('are kept and tried by commands', async () => {
    const command = async (line: string) => {
      const { status, out, err } = await runCommand(house, line)
      expect(status, err).to.equal(0)
      return out
    }
    await command('account pool set cmd --size 5 --vo exp')
    await command(`account map add --issuer ${issuer} --group /exp/production --account production --vo exp`)
    await command(`account map add --issuer ${issuer} --client-id robot-* --account user-{1} --vo exp --at 1`)
    await command(`account map add --issuer ${issuer} --entitlement urn:mace:egi.eu:group:exp:** --pool cmd --vo exp`)
    expect(await command('account map list')).to.match(/1 .*client_id +robot-\* +user-\{1\} .*\n2 .*\n3 .*cmd +exp/)
    const attempt = async (flags: string) => command(`account map try --issuer ${issuer} ${flags}`)
    expect(await attempt('--sub nobody')).to.contain('no mapping matches: there is no account')
    expect(await attempt(`--sub ${house.sandbox.clients.worker.id}`)).to.contain('is a configured worker')
    expect(await attempt('--group /exp --group /exp/production')).to.match(
      /account +production\n.*and says production/s,
    )
    expect(await attempt('--client-id robot-7')).to.contain('but there is no account user-7 in exp')
    expect(await attempt('--client-id robot-A')).to.contain('but what it captures makes no name of an account')
    expect(await attempt('--client-id robot-alice --sub x')).to.contain('and says user-alice')
    expect(await attempt(`--sub dora --entitlement ${ROLE}`)).to.contain('an account of the pool cmd is handed out')
    expect(await account({ sub: 'dora', entitlements: [ROLE] })).to.equal('cmd001')
    expect(await attempt(`--sub dora --entitlement ${ROLE}`)).to.contain('they have an account of the pool cmd')
    expect(await attempt(`--sub ${house.sandbox.clients.manager.id} --group /exp/production`)).to.contain('itself')
    expect(await command('account pool accounts cmd --vo exp')).to.match(/cmd001 +held .*dora/)
    await command('account pool release cmd001 --vo exp')
    expect(await command('account pool list')).to.match(/cmd +exp +5 +0 +1/)
    const [first] = (await house.client.listMappings()).items
    await command(`account map remove ${first?.id}`)
    expect(await attempt('--client-id robot-alice')).to.contain('no mapping matches')
    const misuse = await runCommand(house, `account map add --issuer ${issuer} --group /a --sub b --account production`)
    expect([misuse.status, misuse.err]).to.satisfy(
      ([status, err]: [number, string]) => status === 2 && err.includes('give one of'),
    )
  })
})
