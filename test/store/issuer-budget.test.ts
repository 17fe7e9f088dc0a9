import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import { acquireToken, takeRenewal } from '../../server/tokens/acquire.ts'
import { ensureGrant, findGrant, grantsToRenew } from '../../server/tokens/grant-store.ts'
import { type Issuer, Issuers } from '../../server/tokens/issuers.ts'
import { minters } from '../../server/tokens/minter.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { Wake } from '../../server/wake.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { until } from '../house/until.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const SERVERS = 3
const WORKERS = 10
const GRANTS = 10
const BUDGET = { requestsPerSecond: 5, requestsAtOnce: 2 }
/** How long the issuer takes. Milliseconds. */
const ANSWER_MS = 150
/** A timer of a busy machine may be so late, which makes the next request look early. */
const LATE_MS = 300

for (const { name, open } of databases) {
  describe(`${SERVERS} servers and ${WORKERS} workers on ${name}`, function () {
    this.timeout(60_000)
    let test: TestDatabase
    let world: World
    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
    })
    afterEach(() => test.drop())

    it("keep an issuer's budget exactly, and mint and exchange each grant once", async () => {
      const sent: number[] = []
      const atOnce = { now: 0, most: 0 }
      /** One request to the issuer, by whomever. */
      async function request(
        audience: string,
        scopes: readonly string[],
      ): Promise<{ token: Secret; expiresAt: number }> {
        sent.push(systemClock.monotonic())
        atOnce.now += 1
        atOnce.most = Math.max(atOnce.most, atOnce.now)
        await systemClock.sleep(ANSWER_MS)
        atOnce.now -= 1
        const exp = Math.floor(systemClock.now() / 1000) + 3600
        const claims = { iss: 'https://issuer.example.org', sub: 's', jti: systemRandom.uuid(), aud: audience, exp }
        const text = Buffer.from(JSON.stringify({ ...claims, scope: scopes.join(' '), 'wlcg.ver': '1.0' }))
        return { token: new Secret(`e30.${text.toString('base64url')}.c2ln`), expiresAt: exp * 1000 }
      }
      const contexts = Array.from({ length: SERVERS }, () => serverContext(test.db, world, request))
      const rseId = (await world.rse('A')).id
      const key = { issuerId: world.issuerId, client: 'server', voId: world.voId, rseId, audience: 'a' }
      for (let i = 0; i < GRANTS; i += 1) {
        const grant = { ...key, purpose: 'read' as const, scopes: [`storage.read:/${i}`] }
        await test.db.write(e => ensureGrant(e, grant, systemClock.now()))
      }
      const stopping = new AbortController()
      const services = contexts.flatMap(context => minters(context))
      for (const service of services) await service.start()
      const workers = Array.from({ length: WORKERS }, (_, i) =>
        work(contexts[i % SERVERS] as TokenContext, world, request, stopping.signal),
      )
      const live = "SELECT count(*) AS n FROM grants WHERE state = 'LIVE'"
      await until(
        () => world.number(live),
        count => count === GRANTS,
        40_000,
      )
      stopping.abort()
      await Promise.all([...services.map(service => service.stop()), ...workers])
      expect(await world.rows('SELECT DISTINCT mints, exchanges, refreshes FROM grants')).to.deep.equal([
        { mints: 1, exchanges: 1, refreshes: 0 },
      ])
      expect(sent).to.have.length(2 * GRANTS)
      expect(atOnce.most).to.be.at.most(BUDGET.requestsAtOnce)
      for (const [i, at] of sent.entries()) {
        const sixth = sent[i + BUDGET.requestsPerSecond]
        if (sixth !== undefined) expect(sixth - at, `requests ${i} to ${i + 5}`).to.be.at.least(1_000 - LATE_MS)
      }
    })
  })
}

type Request = (audience: string, scopes: readonly string[]) => Promise<{ token: Secret; expiresAt: number }>

function serverContext(db: Database, world: World, request: Request): TokenContext {
  const never = (): Promise<never> => Promise.reject(new Error('nobody may ask for this'))
  const mint: Issuer['client']['mint'] = async ({ audience, scopes }) => {
    const { token, expiresAt } = await request(audience, scopes)
    return { accessToken: token, expiresAt }
  }
  const client = { mint, exchange: never, refresh: never, revoke: never, discover: never }
  const url = 'https://issuer.example.org'
  const issuer = { id: world.issuerId, voId: world.voId, url, clientId: 'server', exchange: 'always', client } as const
  // What is sealed is what it was: only this test's own tokens are in it.
  const unsealed = { seal: (secret: Secret) => secret.reveal(), open: (text: string) => new Secret(text) }
  return {
    ...world.context,
    db,
    clock: systemClock,
    random: systemRandom,
    wake: new Wake(),
    issuers: new Issuers([{ ...issuer, ...BUDGET }]),
    vault: unsealed,
    autonomyMs: 0,
  }
}

/** What a worker does of renewals: it asks for what waits, and exchanges what it gets the lease for. */
async function work(context: TokenContext, world: World, request: Request, stopping: AbortSignal): Promise<void> {
  const sessionId = await world.openSession()
  const { publicJwk } = await newRecipient()
  while (!stopping.aborted) {
    for (const id of await grantsToRenew(context.db.read, {}, systemClock.now(), 20)) {
      const grant = await findGrant(context.db.read, id)
      if (grant === undefined) continue
      const order = await acquireToken(context, { sessionId, publicJwk }, grant, 86_400_000)
      if (order.kind !== 'exchange') continue
      await systemClock.sleep(order.delayMs)
      const { token, expiresAt } = await request(order.audience, order.scopes)
      const expiresInSeconds = (expiresAt - systemClock.now()) / 1000
      const refreshToken = systemRandom.uuid()
      const result = { kind: 'renewed' as const, accessToken: token.reveal(), refreshToken, expiresInSeconds }
      await takeRenewal(context, sessionId, id, { generation: order.generation, step: 'exchange', result })
    }
    await systemClock.sleep(100, stopping)
  }
}
