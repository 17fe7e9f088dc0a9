import { createPublicKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { calculateJwkThumbprint, generateKeyPair, importJWK, type JWK, type JWTPayload, SignJWT } from 'jose'
import type { Client } from '../../shared/contract/client.ts'
import { WORKER_CONTRACT } from '../../shared/contract/worker-contract.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, placeDataset, someFiles, untilRule } from '../house/dataset.ts'
import { AUDIENCE, type House, startHouse } from '../house/house.ts'
import { RawCalls } from '../house/raw.ts'

const now = Math.floor(systemClock.now() / 1000)

describe('who calls the API', () => {
  let house: House
  let raw: RawCalls
  /** The issuer's own key: what is signed with it is what a broken issuer might give out. */
  let key: Awaited<ReturnType<typeof importJWK>>
  let kid: string
  /** In PEM form. */
  let publicKey: string

  before(async () => {
    // The client `server` is a second pool here, which serves one storage only.
    house = await startHouse({
      server: ({ issuer, clients }) => ({
        workers: [
          { issuer, client: clients.worker.id },
          { issuer, client: clients.server.id, rses: ['SITE-C'] },
          { issuer, client: 'elsewhere', subject: 'service-account-elsewhere' },
        ],
      }),
    })
    await house.addStorages()
    raw = await RawCalls.create(house)
    const jwk = JSON.parse(await readFile(join(house.sandbox.directory, 'issuer/es256.jwk'), 'utf8')) as JWK
    key = await importJWK(jwk, 'ES256')
    kid = await calculateJwkThumbprint(jwk)
    const { d: _, ...publicJwk } = jwk
    publicKey = createPublicKey({ key: publicJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }).toString()
  })
  after(() => house.stop())

  const claims = (more: JWTPayload = {}): JWTPayload => ({
    iss: house.sandbox.issuer,
    sub: house.sandbox.clients.manager.id,
    aud: AUDIENCE,
    iat: now,
    exp: now + 600,
    jti: 'j',
    'wlcg.ver': '1.0',
    ...more,
  })
  const sign = (payload: JWTPayload, by = key, header: object = {}): Promise<string> =>
    new SignJWT(payload).setProtectedHeader({ alg: 'ES256', kid, ...header }).sign(by)
  const without = (name: string): JWTPayload =>
    Object.fromEntries(Object.entries(claims()).filter(([claim]) => claim !== name))
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

  it('a token of the issuer for this server is good', async () => {
    const answered = await raw.call('GET', '/v1/whoami', { token: await sign(claims()) })
    expect(JSON.parse(answered.text)).to.deep.equal({
      issuer: house.sandbox.issuer,
      subject: house.sandbox.clients.manager.id,
      account: 'alice',
      vo: 'exp',
      admin: true,
      worker: false,
    })
  })

  const bad: [string, string, () => Promise<string | undefined>][] = [
    ['no token', 'TOKEN_MISSING', async () => undefined],
    ['something else', 'TOKEN_MALFORMED', async () => 'open-sesame-open-sesame'],
    ['a wrong signature', 'TOKEN_SIGNATURE', async () => `${(await sign(claims())).slice(0, -20)}AAAAAAAAAAAAAAAAAAAA`],
    [
      'a signature by another key',
      'TOKEN_SIGNATURE',
      async () => sign(claims(), (await generateKeyPair('ES256')).privateKey),
    ],
    ['a key that nobody publishes', 'TOKEN_SIGNATURE', async () => sign(claims(), key, { kid: 'other' })],
    [
      'other claims under a good signature',
      'TOKEN_SIGNATURE',
      async () => {
        const [header, , signature] = (await sign(claims())).split('.')
        return [header, encode(claims({ sub: 'somebody else' })), signature].join('.')
      },
    ],
    [
      'an HMAC made with the public key',
      'TOKEN_ALGORITHM',
      async () => {
        const secret = new TextEncoder().encode(publicKey)
        return new SignJWT(claims()).setProtectedHeader({ alg: 'HS256', kid }).sign(secret)
      },
    ],
    ['no signature at all', 'TOKEN_ALGORITHM', async () => `${encode({ alg: 'none', kid })}.${encode(claims())}.`],
    ['an end in the past', 'TOKEN_EXPIRED', () => sign(claims({ exp: now - 1 }))],
    ['no end', 'TOKEN_MALFORMED', () => sign(without('exp'))],
    ['a beginning in the future', 'TOKEN_NOT_YET_VALID', () => sign(claims({ nbf: now + 600 }))],
    ['another audience', 'TOKEN_AUDIENCE', () => sign(claims({ aud: 'https://elsewhere.example.org' }))],
    ['the audience of all storages', 'TOKEN_AUDIENCE', () => sign(claims({ aud: 'https://wlcg.cern.ch/jwt/v1/any' }))],
    ['no audience', 'TOKEN_AUDIENCE', () => sign(without('aud'))],
    ['another issuer', 'TOKEN_ISSUER', () => sign(claims({ iss: 'https://iam.example.org/' }))],
    ['nobody for a subject', 'TOKEN_MALFORMED', () => sign(without('sub'))],
    ['a NUL in its subject', 'TOKEN_MALFORMED', () => sign(claims({ sub: 'a\u0000b' }))],
    ['a profile to come', 'TOKEN_MALFORMED', () => sign(claims({ 'wlcg.ver': '2.0' }))],
  ]
  for (const [what, code, make] of bad) {
    it(`a token with ${what} is refused: ${code}`, async () => {
      const token = await make()
      if (token !== undefined) house.leaks.guard(`a token with ${what}`, new Secret(token))
      await raw.refusal([401, code], 'GET', '/v1/whoami', { token })
      const answered = await raw.call('POST', '/v1/rules', { token, body: '{' })
      expect([answered.status, answered.headers['www-authenticate']]).to.deep.equal([401, 'Bearer realm="waybill"'])
    })
  }

  it('a token for a storage is none for the API', async () => {
    const [storage] = house.sandbox.storages
    const token = await house.token('server', storage?.audience ?? '', ['storage.read:/exp'])
    await raw.refusal([401, 'TOKEN_AUDIENCE'], 'GET', '/v1/whoami', { token })
  })

  describe('may do no more than its right', () => {
    const as = (name: 'server' | 'worker' | 'manager') => house.token(name, AUDIENCE, ['wlcg'])

    it('who has no account, and is no worker, sees itself and nothing else', async () => {
      const token = await sign(claims({ sub: 'stranger' }))
      expect((await raw.call('GET', '/v1/whoami', { token })).status).to.equal(200)
      await raw.refusal([403, 'FORBIDDEN'], 'GET', '/v1/rules', { token })
      const rule = { token, body: { dids: ['exp:x'], copies: 1, expression: '*' } }
      const { detail } = await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/rules', rule)
      expect(detail).to.contain('no account is mapped to stranger')
    })

    it('who has an account is no admin, and leaves other accounts’ rules alone', async () => {
      await placeDataset(house, 'SITE-A', 'run1', someFiles(1))
      const rule = await askCopy(house, 'run1', 'SITE-A')
      await house.client.addAccount({ body: { name: 'bob' } })
      const identity = { issuer: house.sandbox.issuer, subject: house.sandbox.clients.server.id, account: 'bob' }
      await house.client.addIdentity({ body: identity })
      const token = await as('server')
      const rse = { name: 'SITE-D', prefix: '/x', protocols: [{ url: 'https://a.example.org' }] }
      await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/rses', { token, body: rse })
      await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/identities', { token, body: identity })
      await raw.refusal([403, 'FORBIDDEN'], 'DELETE', `/v1/rules/${rule}`, { token })
      await raw.refusal([403, 'FORBIDDEN'], 'POST', `/v1/rules/${rule}/repair`, { token })
      await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/rses/SITE-A/retry', { token })
      expect((await house.client.getRule({ params: { id: rule } })).account).to.equal('alice')
    })

    it('an identity is moved only when that is said, and taken away for good', async () => {
      const identity = { issuer: house.sandbox.issuer, subject: 'carol' }
      for (const name of ['carol', 'dave']) await house.client.addAccount({ body: { name } })
      await house.client.addIdentity({ body: { ...identity, account: 'carol' } })
      await house.client.addIdentity({ body: { ...identity, account: 'carol' } })
      const toDave = { body: { ...identity, account: 'dave' } }
      const taken = await raw.refusal([409, 'IDENTITY_TAKEN', 'subject'], 'POST', '/v1/identities', toDave)
      expect(taken.detail).to.contain('is carol of exp')
      await house.client.addIdentity({ body: { ...identity, account: 'dave', move: true } })
      const token = await sign(claims({ sub: 'carol' }))
      const account = async () => (await house.clientFor(async () => new Secret(token)).whoami()).account
      expect(await account()).to.equal('dave')
      await house.client.removeIdentity({ query: identity })
      expect(await account()).to.equal(undefined)
      const path = `/v1/identities?issuer=${encodeURIComponent(identity.issuer)}&subject=carol`
      await raw.refusal([404, 'IDENTITY_UNKNOWN', 'subject'], 'DELETE', path)
    })

    it('identities are of issuers whose tokens are taken here', async () => {
      const { issuer } = house.sandbox
      const subject = house.sandbox.clients.manager.id
      const refused = (wrong: string) =>
        raw.refusal([400, 'ISSUER_NOT_TAKEN', 'issuer'], 'POST', '/v1/identities', {
          body: { issuer: wrong, subject, account: 'alice' },
        })
      expect((await refused('https://elsewhere.example.org')).detail).to.contain(`those are: ${issuer}`)
      expect((await refused(`${issuer}/`)).detail).to.contain(`${issuer} is: mind the last slash`)
    })

    it('who is no worker gets no work, and who is one asks for no copies', async () => {
      await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/worker/claims', { body: { session: 1, limit: 1 } })
      const body = { dids: ['exp:x'], copies: 1, expression: '*' }
      await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/rules', { token: await as('worker'), body })
    })
  })

  it('a worker is a pool’s client by itself: no person who came through it, and nobody who only has its name', async () => {
    const pool = house.sandbox.clients.worker.id
    const isWorker = async (subject: string, client?: string): Promise<boolean> => {
      const token = await sign(claims({ sub: subject, ...(client === undefined ? {} : { client_id: client }) }))
      return JSON.parse((await raw.call('GET', '/v1/whoami', { token })).text).worker
    }
    const cases: [boolean, string, string?][] = [
      [true, pool, pool],
      [true, pool],
      [false, 'a-person', pool],
      [false, pool, 'another-client'],
      [true, 'service-account-elsewhere', 'elsewhere'],
      [true, 'service-account-elsewhere'],
      [false, 'elsewhere', 'elsewhere'],
      [false, 'a-person', 'elsewhere'],
    ]
    for (const [worker, subject, client] of cases) {
      expect(await isWorker(subject, client), `${subject} through ${client}`).to.equal(worker)
    }
    const token = await sign(claims({ sub: 'a-person', client_id: pool }))
    const { detail } = await raw.refusal([403, 'FORBIDDEN'], 'POST', '/v1/worker/claims', {
      token,
      body: { session: 1, limit: 1 },
    })
    expect(detail).to.contain('a-person').and.to.contain('with this subject if that is not the client id')
  })

  describe('as a worker', () => {
    let pool: Client
    let other: Client
    let session: number
    let others: number

    before(async () => {
      pool = house.clientFor(() => house.token('worker', AUDIENCE, ['wlcg']))
      other = house.clientFor(() => house.token('server', AUDIENCE, ['wlcg']))
      const { publicJwk } = await newRecipient()
      session = (await pool.openSession({ body: { worker: 'w', key: publicJwk } })).session
      others = (await other.openSession({ body: { worker: 'w', key: publicJwk } })).session
    })

    const refused = async (call: Promise<unknown>): Promise<string> => {
      const error: unknown = await call.then(
        answer => answer,
        (reason: unknown) => reason,
      )
      return error instanceof Error && 'code' in error ? String(error.code) : `not refused: ${JSON.stringify(error)}`
    }
    const outcome = { transfer: 1, fence: 1, result: 'done', durationMs: 1, endedMsAgo: 0, bytes: 1 } as const

    it('has no session when it speaks another version of the contract', async () => {
      const { publicJwk } = await newRecipient()
      const spoken = { worker: 'newer', contract: WORKER_CONTRACT + 1, key: publicJwk }
      expect(await refused(pool.openSession({ body: spoken }))).to.equal('CONTRACT_TOO_NEW')
      expect(await refused(pool.openSession({ body: { ...spoken, contract: 0 } }))).to.equal('INVALID')
      expect((await house.client.listWorkers()).items.map(({ name }) => name)).not.to.include('newer')
      const { session: known } = await pool.openSession({ body: { ...spoken, contract: WORKER_CONTRACT } })
      await pool.closeSession({ params: { id: known } })
    })

    it('has no part in another pool’s session', async () => {
      const calls = [
        other.heartbeat({ params: { id: session }, body: {} }),
        other.claim({ body: { session, limit: 1 } }),
        other.reportOutcomes({ body: { session, outcomes: [outcome] } }),
        other.askPermit({ body: { session, transfer: 1, fence: 1, written: true } }),
        other.acquireToken({ params: { id: 1 }, body: { session, lifeSeconds: 60 } }),
        other.closeSession({ params: { id: session } }),
      ]
      expect(await Promise.all(calls.map(refused))).to.deep.equal(calls.map(() => 'SESSION_ENDED'))
    })

    it('gets no work and no token for storages that its pool does not serve', async () => {
      await placeDataset(house, 'SITE-A', 'run2', someFiles(1))
      const rule = await askCopy(house, 'run2', 'SITE-B')
      const worker = await house.startWorker()
      await untilRule(house, rule, 'OK')
      await worker.stop()
      const again = await askCopy(house, 'run1', 'SITE-B')
      expect(await other.claim({ body: { session: others, limit: 10, waitSeconds: 1 } })).to.deep.equal({
        transfers: [],
        more: false,
        storages: [],
        tasks: [],
        renewals: [],
        imports: [],
        drained: false,
      })
      const grants = (await house.client.listGrants()).items
      expect(grants.map(({ state }) => state)).to.include('LIVE')
      for (const { id } of grants) {
        const body = { session: others, lifeSeconds: 60 }
        expect(await refused(other.acquireToken({ params: { id }, body }))).to.equal('GRANT_UNKNOWN')
      }
      await house.client.removeRule({ params: { id: again } })
    })

    it('removes nothing that it does not hold, and nothing that is verified', async () => {
      const [done] = (await house.client.listTransfers({ query: { state: 'DONE' } })).items
      expect(done?.did).to.equal('exp:run2/f0')
      for (let fence = 1; fence <= 3; fence++) {
        const held = { session, transfer: done?.id ?? 0, fence, written: true }
        expect(await refused(pool.askPermit({ body: held }))).to.equal('PERMIT_REFUSED')
      }
    })

    it('reports on nothing that it does not hold', async () => {
      const { results } = await pool.reportOutcomes({ body: { session, outcomes: [{ ...outcome, transfer: 4711 }] } })
      expect(results.map(({ answer }) => answer)).to.deep.equal(['refused'])
      const report = { session, fence: 1, part: 1, files: [], directories: [], leftOut: [], listed: [] }
      expect(await refused(pool.reportImport({ params: { id: 4711 }, body: report }))).to.equal('IMPORT_UNKNOWN')
    })

    it('hands in no token that it was not asked to renew', async () => {
      const [grant] = (await house.client.listGrants()).items
      const result = { kind: 'renewed', accessToken: await sign(claims()), expiresInSeconds: 60 } as const
      const body = { session, generation: grant?.generation ?? 0, step: 'refresh', result } as const
      expect(await refused(pool.reportRenewal({ params: { id: grant?.id ?? 0 }, body }))).to.equal('LEASE_LOST')
    })

    it('has no token of a person', async () => {
      const { publicJwk } = await newRecipient()
      const plan = { rse: 'SITE-A', dataset: 'exp:up', files: [{ did: 'exp:u', bytes: 1, adler32: '1' }] }
      await house.client.planUpload({ body: { ...plan, key: publicJwk } })
      const grant = (await house.client.listGrants()).items.find(({ purpose }) => purpose === 'upload')
      const call = pool.acquireToken({ params: { id: grant?.id ?? 0 }, body: { session, lifeSeconds: 60 } })
      expect(await refused(call)).to.equal('GRANT_UNKNOWN')
    })
  })
})
