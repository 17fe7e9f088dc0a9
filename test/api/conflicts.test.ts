import { expect } from 'chai'
import { type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'

type Refused = readonly [status: number, code: string, field?: string]

const file = (did: string, more: object = {}) => ({ did, bytes: 1, adler32: '00620062', ...more })
const at = (path: string) => ({ path: `/data/exp/${path}` })
const storage = (more: object) => ({
  name: 'SITE-D',
  prefix: '/x',
  protocols: [{ url: 'https://a.example.org' }],
  ...more,
})

describe('what contradicts the catalogue', () => {
  let house: House
  let raw: RawCalls

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    raw = await RawCalls.create(house)
    const { client } = house
    const dids = [
      { did: 'exp:closed', type: 'DATASET' as const },
      { did: 'exp:inner', type: 'CONTAINER' as const },
      { did: 'exp:outer', type: 'CONTAINER' as const },
    ]
    await client.addDids({ body: { dids } })
    await client.attach({ params: { scope: 'exp', name: 'outer' }, body: { dids: ['exp:inner'] } })
    const files = [file('exp:f1', at('somewhere/f1')), file('exp:f2')]
    await client.registerReplicas({ body: { rse: 'SITE-A', dataset: 'exp:run1', files } })
    await client.setOpen({ params: { scope: 'exp', name: 'closed' }, body: { open: false } })
    await client.addRules({ body: { dids: ['exp:run1'], copies: 1, expression: 'SITE-B' } })
  })
  after(() => house.stop())

  function refuses(method: string, path: string, cases: readonly [what: string, refused: Refused, body: object][]) {
    for (const [what, refused, body] of cases) {
      it(`${what}: ${refused[1]}`, async () => {
        await raw.refusal(refused, method, path, { body })
      })
    }
  }

  const register = (files: object[], more: object = {}) => ({ rse: 'SITE-A', files, ...more })
  refuses('POST', '/v1/replicas', [
    ['a file of another size', [409, 'FILE_MISMATCH', 'files.0'], register([file('exp:f1', { bytes: 2 })])],
    ['a file of another checksum', [409, 'FILE_MISMATCH', 'files.0'], register([file('exp:f1', { adler32: '1' })])],
    ['a file in two sizes', [409, 'FILE_MISMATCH', 'files.1'], register([file('exp:t'), file('exp:t', { bytes: 2 })])],
    ['a path of another file', [409, 'PATH_TAKEN', 'files.0'], register([file('exp:g', at('somewhere/f1'))])],
    ['a path twice', [409, 'PATH_TAKEN', 'files.1'], register(['exp:h', 'exp:i'].map(did => file(did, at('twice/h'))))],
    ['a file at a second path', [409, 'REPLICA_EXISTS', 'files.0'], register([file('exp:f1', at('elsewhere/f1'))])],
    [
      'a path outside the prefix',
      [400, 'PATH_OUTSIDE_PREFIX', 'files.0.path'],
      register([file('exp:j', { path: '/data/expert/j' })]),
    ],
    ['a dataset as a file', [409, 'DID_TYPE', 'files.0'], register([file('exp:run1')])],
    ['a file as a dataset', [409, 'DID_TYPE', 'dataset'], register([file('exp:k')], { dataset: 'exp:f1' })],
    ['a closed dataset', [409, 'DID_CLOSED', 'dataset'], register([file('exp:l')], { dataset: 'exp:closed' })],
    ['a storage nobody knows', [404, 'RSE_UNKNOWN', 'rse'], register([file('exp:m')], { rse: 'SITE-Z' })],
  ])

  refuses('POST', '/v1/dids', [
    ['a container as a dataset', [409, 'DID_TYPE', 'dids.0.did'], { dids: [{ did: 'exp:inner', type: 'DATASET' }] }],
  ])
  refuses('POST', '/v1/dids/exp/closed/contents', [
    ['attaching to a closed dataset', [409, 'DID_CLOSED'], { dids: ['exp:f1'] }],
  ])
  refuses('POST', '/v1/dids/exp/f1/contents', [['attaching to a file', [409, 'DID_TYPE'], { dids: ['exp:f2'] }]])
  refuses('POST', '/v1/dids/exp/run1/contents', [
    ['a dataset in a dataset', [409, 'DID_TYPE', 'dids.0'], { dids: ['exp:closed'] }],
    ['something unknown in a dataset', [404, 'DID_UNKNOWN', 'dids.1'], { dids: ['exp:f1', 'exp:nothing'] }],
  ])
  refuses('POST', '/v1/dids/exp/closed/contents/remove', [
    ['detaching from a closed dataset', [409, 'DID_CLOSED'], { dids: ['exp:f1'] }],
  ])
  refuses('POST', '/v1/dids/exp/f1/contents/remove', [
    ['detaching from a file', [409, 'DID_TYPE'], { dids: ['exp:f2'] }],
  ])
  refuses('POST', '/v1/dids/exp/run1/contents/remove', [
    ['detaching something unknown', [404, 'DID_UNKNOWN', 'dids.1'], { dids: ['exp:f1', 'exp:nothing'] }],
  ])
  refuses('POST', '/v1/dids/exp/inner/contents', [
    ['a container in itself', [409, 'DID_CIRCLE', 'dids.0'], { dids: ['exp:inner'] }],
    ['a container in what it holds', [409, 'DID_CIRCLE', 'dids.0'], { dids: ['exp:outer'] }],
  ])

  const rule = (more: object) => ({ dids: ['exp:run1'], copies: 1, expression: 'SITE-B', ...more })
  refuses('POST', '/v1/rules', [
    ['a rule that is there', [409, 'RULE_EXISTS', 'dids.0'], rule({})],
    ['a rule twice in one request', [409, 'RULE_EXISTS', 'dids.1'], rule({ dids: ['exp:f1', 'exp:f1'] })],
    ['a rule for nothing', [404, 'DID_UNKNOWN', 'dids.1'], rule({ dids: ['exp:f1', 'exp:nothing'] })],
  ])

  const foreign = { audience: 'https://b.example.org' }
  const anywhere = { audience: 'https://wlcg.cern.ch/jwt/v1/any', protocols: [{ url: 'https://wlcg.cern.ch' }] }
  refuses('POST', '/v1/rses', [
    ['a storage that is there', [409, 'RSE_EXISTS', 'name'], storage({ name: 'SITE-A' })],
    ['an audience of another host', [400, 'AUDIENCE_FOREIGN', 'audience'], storage(foreign)],
    ['the audience of all storages', [400, 'AUDIENCE_FOREIGN', 'audience'], storage(anywhere)],
    [
      'a prefix that no scope could name',
      [400, 'PREFIX_OUTSIDE_BASE', 'prefix'],
      storage({ prefix: '/database/x', basePath: '/data' }),
    ],
    [
      'a storage without TLS',
      [400, 'INVALID', 'protocols.0.url'],
      storage({ protocols: [{ url: 'http://a.example.org' }] }),
    ],
    [
      'a storage with a user name',
      [400, 'INVALID', 'protocols.0.url'],
      storage({ protocols: [{ url: 'https://me:you@a.example.org' }] }),
    ],
  ])
  refuses('POST', '/v1/rses/SITE-A/protocols', [
    ['a second host behind one audience', [400, 'AUDIENCE_FOREIGN', 'url'], { url: 'https://b.example.org' }],
  ])
  refuses('PUT', '/v1/distances/SITE-A/SITE-A', [['a link to itself', [400, 'LINK_TO_ITSELF', 'destination'], {}]])
  refuses('POST', '/v1/accounts', [
    ['an account that is there', [409, 'ACCOUNT_EXISTS', 'name'], { name: 'alice' }],
    ['a VO nobody knows', [400, 'VO_UNKNOWN', 'vo'], { name: 'bob', vo: 'other' }],
  ])
  refuses('POST', '/v1/imports', [
    [
      'an import from outside the prefix',
      [400, 'SCOPE_OUTSIDE_PREFIX'],
      { rse: 'SITE-A', path: '/data/other', dataset: 'exp:import' },
    ],
  ])

  it('leaves nothing behind', async () => {
    const { items } = await house.client.listDids({ query: { scope: 'exp', limit: 1000 } })
    expect(items.map(({ did }) => did)).to.deep.equal(
      ['closed', 'f1', 'f2', 'inner', 'outer', 'run1'].map(name => `exp:${name}`),
    )
    expect((await house.client.listRses()).items.map(({ name }) => name)).to.deep.equal(['SITE-A', 'SITE-B', 'SITE-C'])
    expect((await house.client.listRules()).items).to.have.length(1)
    expect((await house.client.listAccounts()).items).to.have.length(1)
  })

  it('a registration that says the same again changes nothing', async () => {
    const body = register([file('exp:f1', at('somewhere/f1')), file('exp:f2')], { dataset: 'exp:run1' })
    const answered = await raw.call('POST', '/v1/replicas', { body })
    expect([answered.status, JSON.parse(answered.text)]).to.deep.equal([201, { files: 2, created: 0, attached: 0 }])
  })
})
