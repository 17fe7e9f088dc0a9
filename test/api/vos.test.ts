import { expect } from 'chai'
import type { Client } from '../../shared/contract/client.ts'
import type { Role, Route } from '../../shared/contract/route.ts'
import { ROUTES, type RouteName, type Routes } from '../../shared/contract/routes.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

/** What a VO has, by which others could ask for it. The VO's name is in all its names, whatever their case. */
interface Belongings {
  readonly vo: string
  readonly account: string
  /** The first storage; the second is the destination of the rule. */
  readonly rse: string
  readonly second: string
  readonly rule: number
  readonly transfer: number
  readonly import: number
}

/** The like of it that nobody has: how such a question is answered. */
const NOTHING: Belongings = { ...namesOf('nowhere'), rule: 900_001, transfer: 900_002, import: 900_003 }

function namesOf(vo: string) {
  const site = vo.toUpperCase()
  return { vo, account: `${vo}-people`, rse: `${site}-A`, second: `${site}-B` }
}

type OfRole<R extends Role, Method extends Route['method']> = {
  [N in RouteName]: Routes[N] extends { role: R; method: Method } ? N : never
}[RouteName]
type ReadRoute = OfRole<Exclude<Role, 'public' | 'admin'>, 'GET'>
/** Without the one that names nothing but what it makes. */
type WriteRoute = Exclude<OfRole<'manager' | 'member', Exclude<Route['method'], 'GET'>>, 'addDids'>

interface Reads {
  /** Paths that name nothing: everybody gets what they see. */
  readonly open?: readonly string[]
  /** Paths that ask for a VO's belongings; `own` is what the caller has. */
  readonly naming?: (it: Belongings, own: Belongings) => readonly string[]
  /** Where these have nothing to name. */
  readonly nameless?: true
}

/** Every read route: one that is not here does not compile, and fails below. */
const READS: Readonly<Record<ReadRoute, Reads>> = {
  whoami: { open: ['/v1/whoami'] },
  status: { open: ['/v1/status'] },
  listVos: { open: ['/v1/vos'] },
  listAccounts: { open: ['/v1/accounts'] },
  listLimits: { open: ['/v1/limits'], naming: ({ account, vo }) => [`/v1/limits?account=${account}&vo=${vo}`] },
  getUsage: { naming: ({ account, vo }) => [`/v1/accounts/${account}/usage?vo=${vo}`] },
  listRses: {
    open: ['/v1/rses', '/v1/rses?expression=*'],
    naming: ({ vo, rse }) => [`/v1/rses?expression=${rse}`, `/v1/rses?expression=owner=${vo}`],
  },
  getRse: { naming: ({ rse }) => [`/v1/rses/${rse}`] },
  listDistances: { open: ['/v1/distances'] },
  listDecisions: { naming: ({ rse, second }) => [`/v1/distances/${rse}/${second}/decisions`] },
  listActivities: { open: ['/v1/activities'] },
  listPermissions: { naming: ({ vo }) => [`/v1/scopes/${vo}/permissions`] },
  listDids: { naming: ({ vo }) => [`/v1/dids?scope=${vo}`, `/v1/dids?scope=${vo}&prefix=run&type=DATASET`] },
  getDid: { naming: ({ vo }) => ['run1', 'all', 'run1%2Ff0'].map(name => `/v1/dids/${vo}/${name}`) },
  listContents: { naming: ({ vo }) => ['run1', 'all'].map(name => `/v1/dids/${vo}/${name}/contents`) },
  listReplicas: {
    naming: ({ vo, rse }, own) => [`/v1/replicas?did=${vo}:run1`, `/v1/replicas?did=${own.vo}:run1&rse=${rse}`],
  },
  listFaults: { open: ['/v1/replicas/faults'], naming: ({ rse }) => [`/v1/replicas/faults?rse=${rse}`] },
  listRules: {
    open: ['/v1/rules'],
    naming: ({ vo, account }) => [`/v1/rules?did=${vo}:run1`, `/v1/rules?account=${account}`],
  },
  getRule: { naming: ({ rule }) => [`/v1/rules/${rule}`] },
  listRuleEvents: { naming: ({ rule }) => [`/v1/rules/${rule}/events`] },
  listDidEvents: { naming: ({ vo }) => [`/v1/rule-events?did=${vo}:run1`] },
  listRulePlaces: { naming: ({ rule }) => [`/v1/rules/${rule}/places`] },
  getRuleWhy: { naming: ({ rule }) => [`/v1/rules/${rule}/why`] },
  listRuleTransfers: { naming: ({ rule }) => [`/v1/rules/${rule}/transfers`] },
  listTransfers: {
    open: ['/v1/transfers'],
    naming: ({ rse, second }) => [`/v1/transfers?source=${rse}`, `/v1/transfers?destination=${second}`],
  },
  getTransfer: { naming: ({ transfer }) => [`/v1/transfers/${transfer}`] },
  getTransferWhy: { naming: ({ transfer }) => [`/v1/transfers/${transfer}/why`] },
  listGrants: { open: ['/v1/grants'], naming: ({ rse }) => [`/v1/grants?rse=${rse}`] },
  listWorkers: { open: ['/v1/workers'] },
  listImports: { open: ['/v1/imports'], naming: ({ rse }) => [`/v1/imports?rse=${rse}`] },
  getImport: { naming: it => [`/v1/imports/${it.import}`] },
  listImportProblems: { naming: it => [`/v1/imports/${it.import}/problems`], nameless: true },
}

type Write = readonly [path: string, body?: object]

/** Every route by which an account could reach for what is another VO's. */
const writesOf = (
  key: object,
): Readonly<Record<WriteRoute, (it: Belongings, own: Belongings) => readonly Write[]>> => ({
  registerReplicas: ({ rse }, { vo }) => [['/v1/replicas', { rse, files: [{ did: `${vo}:f`, bytes: 1 }] }]],
  declareReplicas: ({ rse }, { vo }) => [
    ['/v1/replicas/declarations', { rse, as: 'BAD', files: [{ did: `${vo}:run1/f0` }] }],
  ],
  keepReplicas: ({ vo, rse }, own) => [
    ['/v1/replicas', { rse, did: `${own.vo}:run1`, kept: false }],
    ['/v1/replicas', { rse: own.rse, did: `${vo}:run1`, kept: false }],
  ],
  setOpen: ({ vo }) => [[`/v1/dids/${vo}/run1`, { open: false }]],
  attach: ({ vo }, own) => [
    [`/v1/dids/${vo}/all/contents`, { dids: [`${own.vo}:run1`] }],
    [`/v1/dids/${own.vo}/all/contents`, { dids: [`${vo}:run1`] }],
  ],
  detach: ({ vo }, own) => [
    [`/v1/dids/${vo}/all/contents/remove`, { dids: [`${own.vo}:run1`] }],
    [`/v1/dids/${own.vo}/all/contents/remove`, { dids: [`${vo}:run1`] }],
  ],
  addRules: ({ vo, rse }, own) => [
    ['/v1/rules', { dids: [`${vo}:run1`], copies: 1, expression: own.rse }],
    ['/v1/rules', { dids: [`${own.vo}:run1`], copies: 1, expression: rse }],
  ],
  previewRules: ({ vo, rse }, own) => [
    ['/v1/rules/preview', { dids: [`${vo}:run1`], copies: 1, expression: own.rse }],
    ['/v1/rules/preview', { dids: [`${own.vo}:run1`], copies: 1, expression: rse }],
  ],
  removeRule: ({ rule }) => [[`/v1/rules/${rule}`]],
  updateRule: ({ rule }) => [[`/v1/rules/${rule}`, { priority: 4 }]],
  replaceRule: ({ rule }, own) => [[`/v1/rules/${rule}/replacement`, { expression: own.rse }]],
  repairRule: ({ rule }) => [[`/v1/rules/${rule}/repair`]],
  planUpload: ({ rse }, { vo }) => [
    ['/v1/uploads', { rse, dataset: `${vo}:run1`, files: [{ did: `${vo}:f`, bytes: 1, adler32: '1' }], key }],
  ],
  confirmUpload: ({ vo, rse }, own) => [
    ['/v1/uploads/confirmations', { rse, files: [`${own.vo}:run1/f0`] }],
    ['/v1/uploads/confirmations', { rse: own.rse, files: [`${vo}:run1/f0`] }],
  ],
  planDownload: ({ vo, rse }, own) => [
    ['/v1/downloads', { did: `${vo}:run1`, key }],
    ['/v1/downloads', { did: `${own.vo}:run1`, rse, key }],
  ],
  setPermissions: ({ vo, account }) => [[`/v1/scopes/${vo}/permissions/${account}`, { permissions: ['write'] }]],
  removePermissions: ({ vo, account }) => [[`/v1/scopes/${vo}/permissions/${account}`]],
  openScope: ({ vo }) => [[`/v1/scopes/${vo}/permissions`]],
  cancelImport: it => [[`/v1/imports/${it.import}/cancel`]],
  resumeImport: it => [[`/v1/imports/${it.import}/resume`]],
  addImport: ({ rse }, { vo }) => [['/v1/imports', { rse, path: `/data/${vo}/old`, dataset: `${vo}:old` }]],
})

function routesWhere(wanted: (row: Route) => boolean): RouteName[] {
  const rows: [string, Route][] = Object.entries(ROUTES)
  return rows.filter(([, row]) => wanted(row)).map(([name]) => name as RouteName)
}

describe('VOs that share an installation', () => {
  let house: House
  let raw: RawCalls
  let north: Belongings
  let south: Belongings
  /** The admin has an account in `north`; the pool serves `north` and has none. */
  let admin: Secret
  let southern: Secret
  let pool: Secret
  let key: object

  before(async () => {
    house = await startHouse({
      vos: ['north', 'south'],
      exchange: 'never',
      server: ({ issuer, clients: { worker, manager, server } }) => ({
        workers: [
          { issuer, client: worker.id, vos: ['north'] },
          { issuer, client: manager.id, rses: ['NORTH-A', 'SOUTH-A', 'SOUTH-B'] },
          { issuer, client: server.id, rses: ['SOUTH-A'] },
        ],
      }),
    })
    raw = await RawCalls.create(house)
    admin = await house.token('manager', AUDIENCE, ['wlcg'])
    southern = await house.token('server', AUDIENCE, ['wlcg'])
    pool = await house.token('worker', AUDIENCE, ['wlcg'])
    key = (await newRecipient()).publicJwk
    const { manager, server } = house.sandbox.clients
    north = await settle('north', manager.id, house.client)
    for (const vo of ['north', 'south'])
      await house.client.setActivity({ params: { activity: 'Production' }, body: { weight: 2, vo } })
    south = await settle(
      'south',
      server.id,
      house.clientFor(async () => southern),
    )
    for (const vo of ['north', 'south'])
      await house.client.setLimit({ body: { vo, expression: `${vo.toUpperCase()}-A`, bytes: 1_000_000 } })
    await house.client.setDistance({
      params: { source: north.rse, destination: south.rse },
      body: { optimize: false },
    })
    await house.startWorker('north-worker')
    await until(
      () => house.client.getRule({ params: { id: north.rule } }),
      rule => rule.state === 'OK',
    )
    // For each VO one to upload, to read, to write and to list: from here on nothing changes.
    await until(
      () => house.client.listGrants(),
      ({ items }) => items.length === 8 && items.every(({ minted }) => minted > 0),
    )
  })
  after(() => house.stop())

  /** Gives a VO an account, two storages, a dataset in a container, a rule that needs a transfer, and an import. */
  async function settle(vo: string, subject: string, client: Client): Promise<Belongings> {
    const names = namesOf(vo)
    const { account, rse, second } = names
    await house.client.addAccount({ body: { name: account, vo } })
    await house.client.addIdentity({ body: { issuer: house.sandbox.issuer, subject, account, vo, move: true } })
    for (const [i, name] of [rse, second].entries()) {
      const { url = '', basePath = '', audience } = house.sandbox.storages[i] ?? {}
      const place = { prefix: `${basePath}/${vo}`, basePath, protocols: [{ url }], attributes: { owner: vo } }
      await house.client.addRse({ body: { name, vo, ...place, ...(audience === undefined ? {} : { audience }) } })
    }
    await house.client.setDistance({ params: { source: rse, destination: second }, body: { optimize: false } })
    const file = { did: `${vo}:run1/f0`, content: Buffer.from(vo) }
    await uploadFiles({ client, http: house.http }, rse, `${vo}:run1`, [file])
    // All that there is of it: so it stays.
    const broken = [{ did: `${vo}:broken` }]
    await client.registerReplicas({ body: { rse, files: broken.map(file => ({ ...file, bytes: 1 })) } })
    await client.declareReplicas({ body: { rse, as: 'BAD', files: broken } })
    await client.addDids({ body: { dids: [{ did: `${vo}:all`, type: 'CONTAINER' }] } })
    await client.attach({ params: { scope: vo, name: 'all' }, body: { dids: [`${vo}:run1`] } })
    await house.client.setPermissions({ params: { scope: vo, account }, body: { permissions: ['manage'] } })
    const { items } = await client.addRules({ body: { dids: [`${vo}:run1`], copies: 1, expression: second } })
    const rule = items[0]?.id ?? 0
    const transfers = await until(
      () => client.listRuleTransfers({ params: { id: rule } }),
      page => page.items.some(({ source }) => source !== undefined),
    )
    const old = { rse, path: `/data/${vo}/old`, dataset: `${vo}:old` }
    const { id } = await client.addImport({ body: old })
    return { ...names, rule, transfer: transfers.items[0]?.id ?? 0, import: id }
  }

  const callers = () => [
    { who: 'the admin', token: admin, sees: [north, south], own: north },
    { who: 'the account of south', token: southern, sees: [south], own: south },
    { who: 'the pool of north', token: pool, sees: [north], own: north },
  ]

  /** What was answered, but for the names and numbers that were asked for and the number in the log. */
  async function answerTo(token: Secret, it: Belongings, method: string, [path, body]: Write): Promise<string> {
    const { status, text } = await raw.call(method, path, { token, body })
    const { id: _, ...rest } = JSON.parse(text) as Record<string, unknown>
    return `${status} ${JSON.stringify(rest)}`
      .replaceAll(new RegExp(it.vo, 'gi'), 'VO')
      .replace(/(no \w+) \d+/, '$1 ID')
  }

  for (const name of routesWhere(({ method, role }) => method === 'GET' && role !== 'public' && role !== 'admin')) {
    it(`${name} shows each what is theirs, and of the rest not that it exists`, async () => {
      const { open = [], naming = () => [], nameless = false } = READS[name as ReadRoute]
      expect([...open, ...naming(NOTHING, NOTHING)]).not.to.deep.equal([])
      for (const { who, token, sees, own } of callers()) {
        for (const path of open) {
          const { status, text } = await raw.call('GET', path, { token })
          expect(status, `${who} at ${path}`).to.equal(200)
          for (const it of [north, south]) {
            if (!sees.includes(it)) expect(text, `${who} at ${path}`).not.to.match(new RegExp(it.vo, 'i'))
            // These name nothing of a VO: see below.
            else if (name !== 'whoami' && name !== 'status' && name !== 'listWorkers')
              expect(text, `${who} at ${path}`).to.match(new RegExp(it.vo, 'i'))
          }
        }
        for (const it of sees) {
          const other = it === north ? /south/i : /north/i
          for (const path of naming(it, it)) {
            const { status, text } = await raw.call('GET', path, { token })
            expect(
              [status, nameless || new RegExp(it.vo, 'i').test(text), other.test(text)],
              `${who} at ${path}`,
            ).to.deep.equal([200, true, false])
          }
        }
        for (const it of [north, south].filter(one => !sees.includes(one))) {
          const unknown = naming(NOTHING, own)
          for (const [i, path] of naming(it, own).entries()) {
            const nobodys = await answerTo(token, NOTHING, 'GET', [unknown[i] ?? ''])
            expect(await answerTo(token, it, 'GET', [path]), `${who} at ${path}`).to.equal(nobodys)
          }
        }
      }
    })
  }

  const writing = routesWhere(({ method, role }) => method !== 'GET' && (role === 'manager' || role === 'member'))
  for (const name of writing.filter(route => route !== 'addDids')) {
    it(`${name} reaches for nothing of another VO, and does not say that it exists`, async () => {
      const writes = writesOf(key)[name as WriteRoute]
      const { method } = ROUTES[name]
      const unknown = writes(NOTHING, south)
      for (const [i, write] of writes(north, south).entries()) {
        const answer = await answerTo(southern, north, method, write)
        expect(answer).to.match(/^40[04] /)
        expect(answer).to.equal(await answerTo(southern, NOTHING, method, unknown[i] ?? ['']))
      }
    })
  }

  it('a scope’s name that another VO has is told to be taken', async () => {
    const dids = [{ did: 'north:new', type: 'DATASET' }]
    const refused = [403, 'SCOPE_OF_OTHER_VO'] as const
    await raw.refusal([...refused, 'dids.0.did'], 'POST', '/v1/dids', { token: southern, body: { dids } })
    const files = { rse: south.rse, files: [{ did: 'north:new', bytes: 1 }] }
    await raw.refusal([...refused, 'files.0.did'], 'POST', '/v1/replicas', { token: southern, body: files })
    const job = { rse: south.rse, path: '/data/south/x', dataset: 'north:new' }
    await raw.refusal([...refused, 'dataset'], 'POST', '/v1/imports', { token: southern, body: job })
  })

  it('an admin, who sees all, is told why an account cannot write there', async () => {
    const body = { rse: south.rse, files: [{ did: 'north:f', bytes: 1 }] }
    await raw.refusal([403, 'RSE_OF_OTHER_VO', 'rse'], 'POST', '/v1/replicas', { body })
    const close = { body: { open: false } }
    await raw.refusal([403, 'SCOPE_OF_OTHER_VO', 'scope'], 'PATCH', '/v1/dids/south/run1', close)
  })

  it('links that leave the VO are the admin’s business', async () => {
    const links = async (token: Secret) =>
      (await house.clientFor(async () => token).listDistances()).items.map(
        ({ source, destination }) => `${source} ${destination}`,
      )
    expect(await links(southern)).to.deep.equal(['SOUTH-A SOUTH-B'])
    expect(await links(pool)).to.deep.equal(['NORTH-A NORTH-B'])
    expect(await links(admin)).to.have.members(['NORTH-A NORTH-B', 'NORTH-A SOUTH-A', 'SOUTH-A SOUTH-B'])
  })

  it('pages are filled before they are cut: what others have takes no room', async () => {
    const client = house.clientFor(async () => southern)
    const query = { limit: 1 }
    expect((await client.listRules({ query })).items.map(({ id }) => id)).to.deep.equal([south.rule])
    expect((await client.listTransfers({ query })).items.map(({ id }) => id)).to.deep.equal([south.transfer])
    const { items, next } = await client.listGrants({ query })
    expect(items.map(({ rse }) => rse)).to.deep.equal([south.rse])
    expect(next).to.be.a('string')
  })

  it('status and worker list count the VO’s own, and name the workers that serve it', async () => {
    const southerly = house.clientFor(async () => southern)
    const { publicJwk } = await newRecipient()
    const { session } = await house.client.openSession({ body: { worker: 'shared', key: publicJwk } })
    await southerly.openSession({ body: { worker: 'southern', key: publicJwk } })
    const claimed = await house.client.claim({ body: { session, limit: 10, waitSeconds: 10 } })
    expect(claimed.transfers.map(({ transfer }) => transfer)).to.deep.equal([south.transfer])

    const statusOf = (token: Secret) => house.clientFor(async () => token).status()
    const [all, theirs, pools] = await Promise.all([statusOf(admin), statusOf(southern), statusOf(pool)])
    expect(all.rules).to.deep.equal({ OK: 1, REPLICATING: 1 })
    expect([theirs.rules, pools.rules]).to.deep.equal([{ REPLICATING: 1 }, { OK: 1 }])
    expect([theirs.transfers, pools.transfers]).to.deep.equal([{ CLAIMED: 1 }, {}])
    const working = ({ workers }: { workers: readonly { name: string; active: number }[] }) =>
      Object.fromEntries(workers.map(({ name, active }) => [name, active]))
    expect(working(all)).to.deep.equal({ 'north-worker': 0, shared: 1, southern: 0 })
    expect([working(theirs), working(pools)]).to.deep.equal([
      { shared: 1, southern: 0 },
      { 'north-worker': 0, shared: 0 },
    ])
    const listed = async (token: Secret) =>
      working({ workers: (await house.clientFor(async () => token).listWorkers()).items })
    expect(await Promise.all([listed(admin), listed(southern), listed(pool)])).to.deep.equal([
      { 'north-worker': 0, shared: 1, southern: 0 },
      { shared: 1, southern: 0 },
      { 'north-worker': 0, shared: 0 },
    ])
    expect([theirs.grants, pools.grants, all.grants]).to.deep.equal([{ LIVE: 4 }, { LIVE: 4 }, { LIVE: 8 }])
    expect([theirs, pools, all].map(({ tokenRequests }) => tokenRequests.minted)).to.deep.equal([4, 4, 8])
  })
})
