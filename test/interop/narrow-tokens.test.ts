import { expect } from 'chai'
import { decodeJwt } from 'jose'
import type { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { AUDIENCE } from '../house/house.ts'
import { requireComponents } from './components.ts'
import { type PlannedFile, readTree } from './file-set.ts'
import { pathOf, type RuleStage, startRuleStage } from './rule-stage.ts'

const FILES: readonly PlannedFile[] = [
  { did: 'exp:f1', dataset: 'exp:run1', bytes: 1_000 },
  { did: 'exp:f2', dataset: 'exp:run2', bytes: 1_000 },
  { did: 'exp:f10', dataset: 'exp:run10', bytes: 1_000 },
]

interface Side {
  readonly url: string
  readonly directory: string
  readonly audience: string
  readonly token: Secret
}

interface Attempted {
  readonly what: string
  readonly at: 'source' | 'destination'
  readonly token: 'source' | 'destination'
  readonly method: string
  readonly path: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** What each token is for, so that the refusals below mean something. */
const ALLOWED: readonly Attempted[] = [
  { what: 'its dataset is read', at: 'source', token: 'source', method: 'GET', path: 'exp/run1/f1' },
  { what: 'its dataset is verified', at: 'destination', token: 'destination', method: 'HEAD', path: 'exp/run1/f1' },
  { what: 'a new file', at: 'destination', token: 'destination', method: 'PUT', path: 'exp/run1/new', body: 'new' },
]

const REFUSED: readonly Attempted[] = [
  { what: 'reading at the destination', at: 'destination', token: 'source', method: 'GET', path: 'exp/run1/f1' },
  { what: 'reading at the source', at: 'source', token: 'destination', method: 'GET', path: 'exp/run1/f1' },
  { what: 'writing at the source', at: 'source', token: 'destination', method: 'PUT', path: 'exp/run1/x', body: 'x' },
  { what: 'writing', at: 'source', token: 'source', method: 'PUT', path: 'exp/run1/x', body: 'x' },
  { what: 'overwriting', at: 'source', token: 'source', method: 'PUT', path: 'exp/run1/f1', body: 'x' },
  { what: 'deleting', at: 'source', token: 'source', method: 'DELETE', path: 'exp/run1/f1' },
  { what: 'a directory', at: 'source', token: 'source', method: 'MKCOL', path: 'exp/run1/x/' },
  {
    what: 'a copy from elsewhere',
    at: 'source',
    token: 'source',
    method: 'COPY',
    path: 'exp/run1/x',
    headers: { Source: 'https://localhost/x', Credential: 'none', Overwrite: 'F' },
  },
  { what: 'overwriting', at: 'destination', token: 'destination', method: 'PUT', path: 'exp/run1/f1', body: 'x' },
  { what: 'deleting', at: 'destination', token: 'destination', method: 'DELETE', path: 'exp/run1/f1' },
  { what: 'reading another dataset', at: 'source', token: 'source', method: 'GET', path: 'exp/run2/f2' },
  { what: 'reading another dataset', at: 'destination', token: 'destination', method: 'HEAD', path: 'exp/run2/f2' },
  {
    what: 'writing to another dataset',
    at: 'destination',
    token: 'destination',
    method: 'PUT',
    path: 'exp/run2/x',
    body: 'x',
  },
]

/** A dataset whose name goes on where the token's ends. XRootD 5.5.3 opens it: facts/http-tpc.md section 4. */
const NEIGHBOURS: readonly Attempted[] = [
  { what: 'reading run10', at: 'source', token: 'source', method: 'GET', path: 'exp/run10/f10' },
  { what: 'reading run10', at: 'destination', token: 'destination', method: 'HEAD', path: 'exp/run10/f10' },
  { what: 'writing to run10', at: 'destination', token: 'destination', method: 'PUT', path: 'exp/run10/x', body: 'x' },
]

const PAIRS = [
  // XRootD 5.5.3 has 403 for who may not and for a token of another storage (its bearer is nobody), but 401 for a COPY.
  { kind: 'XRootD', source: 'XRD-A', destination: 'XRD-B', refused: REFUSED, elsewhere: 403, copy: 401 },
  {
    kind: 'the embedded storage',
    source: 'SITE-A',
    destination: 'SITE-B',
    refused: [...REFUSED, ...NEIGHBOURS],
    elsewhere: 401,
    copy: 403,
  },
]

describe("a grant's tokens are good for one dataset, one storage and one direction", () => {
  let stage: RuleStage
  const directories = new Map<string, string>()

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await startRuleStage()
    for (const { source, destination } of PAIRS) {
      for (const name of [source, destination]) {
        const xrootd = name === source ? stage.near : stage.far
        directories.set(name, await stage.addRse(name, name.startsWith('XRD') ? xrootd : 'embedded'))
      }
      await stage.link(source, destination)
      await stage.place(source, directories.get(source) ?? '', FILES)
      for (const { dataset } of FILES) await stage.replicate(dataset, destination, 20_000)
    }
  })
  after(() => stage?.stop())

  /** As a worker gets it: from the vault, sealed to the key of its session. */
  async function tokenOf(rse: string, purpose: 'read' | 'write'): Promise<Secret> {
    const { house } = stage
    const worker = house.clientFor(() => house.token('worker', AUDIENCE, ['wlcg']))
    const recipient = await newRecipient()
    const { session } = await worker.openSession({ body: { worker: 'curious', key: recipient.publicJwk } })
    const { items } = await house.client.listGrants({ query: { rse } })
    const scope = /:\/[a-z-]+\/exp\/run1$/
    const grant = items.find(item => item.purpose === purpose && item.scopes.every(value => scope.test(value)))
    const answer = await worker.acquireToken({ params: { id: grant?.id ?? 0 }, body: { session, lifeSeconds: 0 } })
    await worker.closeSession({ params: { id: session } })
    if (answer.kind !== 'token') throw new Error(`the grant at ${rse} is not live: ${answer.kind}`)
    return recipient.open(answer.token, answer.context)
  }

  async function statusOf({ method, path, body, headers = {} }: Attempted, side: Side, token: Secret): Promise<number> {
    const answer = await stage.house.http.request({
      method,
      url: `${side.url}/${path}`,
      // XRootD 5.5.3 closes the connection after a refusal: the next request must not meet the end of a kept one.
      headers: { Authorization: `Bearer ${token.reveal()}`, Connection: 'close', ...headers },
      ...(body === undefined ? {} : { body }),
    })
    await answer.text(10_000)
    return answer.status
  }

  for (const { kind, refused, elsewhere, copy, ...names } of PAIRS) {
    describe(kind, () => {
      let sides: Record<'source' | 'destination', Side>

      before(async () => {
        const side = async (rse: string, purpose: 'read' | 'write'): Promise<Side> => {
          const { prefix, audience, protocols } = await stage.house.client.getRse({ params: { rse } })
          const url = `${protocols[0]?.url}${prefix}`
          return { url, audience, directory: directories.get(rse) ?? '', token: await tokenOf(rse, purpose) }
        }
        sides = { source: await side(names.source, 'read'), destination: await side(names.destination, 'write') }
      })

      it('says so in the tokens', () => {
        const claims = (['source', 'destination'] as const).map(name => decodeJwt(sides[name].token.reveal()))
        expect(claims.map(({ aud }) => aud)).to.deep.equal([sides.source.audience, sides.destination.audience])
        const top = (name: string) => `/${name.toLowerCase()}/exp/run1`
        expect(
          claims.map(({ scope }) =>
            String(scope)
              .split(' ')
              .filter(value => value.startsWith('storage.'))
              .sort(),
          ),
        ).to.deep.equal([
          [`storage.read:${top(names.source)}`],
          [`storage.create:${top(names.destination)}`, `storage.read:${top(names.destination)}`],
        ])
      })

      for (const attempted of ALLOWED) {
        it(`takes the ${attempted.token} token for ${attempted.what}`, async () => {
          const status = await statusOf(attempted, sides[attempted.at], sides[attempted.token].token)
          expect(status).to.be.within(200, 201)
        })
      }

      for (const attempted of refused) {
        const { what, at, token, method } = attempted
        const expected = at === token ? (method === 'COPY' ? copy : 403) : elsewhere
        it(`refuses the ${token} token at the ${at} for ${what}`, async () => {
          const before = await readTree(sides[at].directory)
          const status = await statusOf(attempted, sides[at], sides[token].token)
          expect(status).to.equal(expected)
          expect(await readTree(sides[at].directory)).to.deep.equal(before)
        })
      }
    })
  }

  it('was tried on the files that the layout has there', () => {
    expect(FILES.map(pathOf)).to.deep.equal(['exp/run1/f1', 'exp/run2/f2', 'exp/run10/f10'])
  })
})
