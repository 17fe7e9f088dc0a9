import { expect } from 'chai'
import { acquireToken, takeRenewal } from '../../server/tokens/acquire.ts'
import { ensureGrant, findGrant, type GrantRow, grantsToRenew } from '../../server/tokens/grant-store.ts'
import { Issuers } from '../../server/tokens/issuers.ts'
import { takeLease } from '../../server/tokens/lease-store.ts'
import { heedRefusal } from '../../server/tokens/refusal.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { newRecipient } from '../../shared/oidc/sealed-transport.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`what a worker reports of a renewal, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let id: number
    let context: TokenContext

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      const never = (): Promise<never> => Promise.reject(new Error('nobody may ask the issuer'))
      const issuer = {
        id: world.issuerId,
        voId: world.voId,
        url: 'https://issuer.example.org',
        clientId: 'server',
        exchange: 'always' as const,
        requestsPerSecond: 50,
        requestsAtOnce: 100,
        client: { mint: never, exchange: never, refresh: never, revoke: never, discover: never },
      }
      const vault = { seal: () => 'sealed', open: () => new Secret('opened') }
      context = { ...world.context, issuers: new Issuers([issuer]), vault, autonomyMs: 0 }
      const rseId = (await world.rse('A')).id
      const key = { issuerId: issuer.id, client: 'server', voId: world.voId, rseId, audience: 'a' }
      id = await test.db.write(e => ensureGrant(e, { ...key, purpose: 'read', scopes: ['storage.read:/d'] }, 0))
      await world.change("UPDATE grants SET state = 'RENEWING', generation = 1")
    })
    afterEach(() => test.drop())

    it('without a client at the issuer it gives the lease back, and others may try soon', async () => {
      const renewable = (): Promise<number[]> => grantsToRenew(test.db.read, {}, world.clock.now(), 10)
      const sessionId = await world.openSession()
      const now = world.clock.now()
      const grant = await findGrant(test.db.read, id)
      if (grant === undefined) throw new Error('the grant is gone')
      await test.db.write(e => takeLease(e, grant, { sessionId, event: 'need', until: now + 60_000 }, now))
      const result = { kind: 'failed' as const, code: 'ISSUER_NOT_CONFIGURED', message: 'no client there' }
      await takeRenewal(context, sessionId, id, { generation: 1, step: 'exchange', result })
      const kept = { state: 'RENEWING', lease_session_id: null, lease_until: 0, failures: 0, error: null }
      expect(await findGrant(test.db.read, id)).to.deep.include(kept)
      expect(await renewable()).to.deep.equal([])
      await world.clock.advance(5_000)
      expect(await renewable()).to.deep.equal([id])
    })

    it('a refusal by the issuer holds the grant for all', async () => {
      const sessionId = await world.openSession()
      await world.change('UPDATE grants SET lease_session_id = :sessionId, expires_at = :later', {
        sessionId,
        later: world.clock.now() + 1_000,
      })
      const result = { kind: 'failed' as const, code: 'TOKEN_REFUSED', message: 'no' }
      await takeRenewal(context, sessionId, id, { generation: 1, step: 'exchange', result })
      expect(await findGrant(test.db.read, id)).to.deep.include({ state: 'HELD', error: 'TOKEN_REFUSED: no' })
    })

    it('a storage’s refusal renews the token once, and holds the grant when the next is refused too', async () => {
      await world.change(
        "UPDATE grants SET state = 'LIVE', exchanged = true, sealed_refresh = 's', expires_at = :later",
        {
          later: world.clock.now() + 3_600_000,
        },
      )
      const found = async (): Promise<GrantRow> => {
        const grant = await findGrant(test.db.read, id)
        if (grant === undefined) throw new Error('the grant is gone')
        return grant
      }
      const refuse = async (generation: number): Promise<GrantRow | undefined> =>
        heedRefusal(context, await found(), { generation, canary: true, message: 'who are you' })
      expect(await refuse(1)).to.include({ state: 'LIVE', refused_generation: 1, refused_at: world.clock.now() })
      const sessionId = await world.openSession()
      const holder = { sessionId, publicJwk: (await newRecipient()).publicJwk }
      expect(await acquireToken(context, holder, await found(), 1)).to.include({ kind: 'refresh', generation: 1 })
      await world.change(
        "UPDATE grants SET state = 'LIVE', generation = 2, lease_until = 0, lease_session_id = NULL, lifetime_ms = 3600000",
      )
      expect(await refuse(1), 'of another worker').to.include({ state: 'LIVE', generation: 2 })
      const until = world.clock.now() + 300_000
      await world.change('UPDATE grants SET lease_until = :until', { until })
      expect(await refuse(2), 'while somebody renews').to.equal(undefined)
      await world.change('UPDATE grants SET lease_until = 0')
      expect(await refuse(2)).to.include({ state: 'HELD', not_before: until, refused_generation: 2, refused_at: until })
      const refused = { kind: 'refused', code: 'STORAGE_REFUSED_TOKEN', message: 'who are you' }
      expect(await acquireToken(context, holder, await found(), 1)).to.deep.equal(refused)
    })

    it('a refresh refused after one whose answer was lost is begun anew with a minted token, once', async () => {
      const sessionId = await world.openSession()
      const refused = async (error: string): Promise<string | undefined> => {
        await world.change(
          "UPDATE grants SET state = 'RENEWING', exchanged = true, failures = 1, error = :error, lease_session_id = :sessionId",
          { sessionId, error },
        )
        const result = { kind: 'failed' as const, code: 'TOKEN_REFUSED', message: 'spent' }
        await takeRenewal(context, sessionId, id, { generation: 1, step: 'refresh', result })
        return (await findGrant(test.db.read, id))?.state
      }
      expect(await refused('ISSUER_UNREACHABLE: no answer')).to.equal('WANTED')
      expect(await refused('TOKEN_REFUSED: spent')).to.equal('HELD')
    })
  })
}
