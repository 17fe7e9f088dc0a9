import { expect } from 'chai'
import { ensureVo } from '../../server/accounts/store.ts'
import { keyset } from '../../server/database/sql.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import { ensureIssuer, holdIssuer, type Issuer, Issuers } from '../../server/tokens/issuers.ts'
import { minters } from '../../server/tokens/minter.ts'
import { grantPlanner } from '../../server/tokens/planner.ts'
import { countUnopened, type TokenContext } from '../../server/tokens/tokens.ts'
import { unplannedBundles } from '../../server/tokens/unplanned.ts'
import { Secret } from '../../shared/domain/secret.ts'
import type { IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { until } from '../house/until.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

type Mint = IssuerClient['mint']

for (const { name, open } of databases) {
  describe(`minting ahead on ${name}`, () => {
    let test: TestDatabase
    let world: World
    /** Codes of what was logged as a warning. */
    let warned: unknown[]

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      warned = []
    })
    afterEach(() => test.drop())

    function contextOf(issuers: readonly Issuer[]): TokenContext {
      const unsealed = { seal: () => 'sealed', open: () => new Secret('opened') }
      const log = { ...silentLogger, warn: (fields: object) => void warned.push('code' in fields && fields.code) }
      return { ...world.context, log, issuers: new Issuers(issuers), vault: unsealed, autonomyMs: 0 }
    }
    const never = (): Promise<never> => Promise.reject(new Error('nobody may ask for this'))
    function issuer(id: number, mint: Mint): Issuer {
      const client = { mint, exchange: never, refresh: never, revoke: never, discover: never }
      const url = `https://issuer-${id}.example.org`
      return {
        id,
        voId: world.voId,
        url,
        clientId: 'server',
        exchange: 'never',
        requestsPerSecond: 1000,
        requestsAtOnce: 100,
        client,
      }
    }
    async function wantGrants(issuerId: number, count: number): Promise<void> {
      const rseId = (await world.rse('A')).id
      const key = { issuerId, client: 'server', voId: world.voId, rseId, audience: 'a', purpose: 'read' as const }
      for (let i = 0; i < count; i++) {
        await test.db.write(e => ensureGrant(e, { ...key, scopes: [`storage.read:/${i}`] }, world.clock.now()))
      }
    }
    const inState = (issuerId: number, state: string): Promise<number> =>
      world.number('SELECT count(*) AS n FROM grants WHERE issuer_id = :issuerId AND state = :state', {
        issuerId,
        state,
      })

    it('a vault key that does not open what is sealed is known as such', async () => {
      const context = contextOf([])
      const other = { ...context, vault: { ...context.vault, open: () => expect.fail('another key') } }
      await wantGrants(world.issuerId, 1)
      expect(await countUnopened(other), 'nothing is sealed').to.equal(0)
      await world.change(`UPDATE grants SET state = 'LIVE', sealed_access = 'sealed'`)
      expect([await countUnopened(context), await countUnopened(other)]).to.deep.equal([0, 1])
    })

    it('goes on for one issuer while another, with more to do, gives no answer', async () => {
      const silent = world.issuerId
      const good = await test.db.write(e => ensureIssuer(e, 'https://good.example.org'))
      await wantGrants(silent, 40)
      await wantGrants(good, 3)
      const hangUp: ((error: Error) => void)[] = []
      const hang: Mint = () => new Promise((_, reject) => void hangUp.push(reject))
      const running = minters(contextOf([issuer(silent, hang), issuer(good, tokenFrom(good))]))
      for (const service of running) await service.start()
      await world.clock.untilSleeping(3 + 16)
      await world.clock.advance(20)
      await world.clock.untilSleeping()
      expect([await inState(good, 'LIVE'), await inState(silent, 'LIVE')]).to.deep.equal([3, 0])
      const stopped = Promise.all(running.map(service => service.stop()))
      for (const reject of hangUp) reject(new IssuerError('ISSUER_UNREACHABLE', 'no answer'))
      await stopped
    })

    it('takes no lease while the issuer wants to be left alone', async () => {
      const id = world.issuerId
      await wantGrants(id, 20)
      const until = world.clock.now() + 3_600_000
      await test.db.write(e => holdIssuer(e, id, until))
      const [minter] = minters(contextOf([issuer(id, never)]))
      if (minter === undefined) throw new Error('no minter')
      await world.run(() => minter)
      const put = 'SELECT count(*) AS n FROM grants WHERE lease_until = 0 AND not_before = :until'
      expect(await world.number(put, { until })).to.equal(20)
    })

    it('asks an issuer that VOs share no more often than each of them allows', async () => {
      const mine = issuer(world.issuerId, never)
      const other = { ...mine, voId: mine.voId + 1, requestsPerSecond: 2, requestsAtOnce: 100 }
      const issuers = new Issuers([mine, other, { ...mine, id: mine.id + 1 }])
      expect(issuers.all().map(({ requestsPerSecond }) => requestsPerSecond)).to.deep.equal([2, 2, 1000])
    })

    it('gives its leases back when it stops before its turn', async () => {
      await wantGrants(world.issuerId, 3)
      const [minter] = minters(contextOf([issuer(world.issuerId, never)]))
      if (minter === undefined) throw new Error('no minter')
      await minter.start()
      await world.clock.untilSleeping(3)
      await minter.stop()
      const free = "SELECT count(*) AS n FROM grants WHERE state = 'WANTED' AND lease_until = 0 AND not_before = 0"
      expect(await world.number(free)).to.equal(3)
    })

    it('mints anew what work waits for before its token ends, and nothing else', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      await wantGrants(world.issuerId, 1)
      await world.change(
        `UPDATE grants SET state = 'LIVE', generation = 1, expires_at = :soon, lifetime_ms = 3600000,
                audience = 'https://a.example.org', scopes = CASE scopes WHEN 'storage.read:/0' THEN scopes ELSE 'storage.read:/d' END`,
        { soon: world.clock.now() + 299_000 },
      )
      const [minter] = minters(contextOf([issuer(world.issuerId, tokenFrom(world.issuerId))]))
      if (minter === undefined) throw new Error('no minter')
      await minter.start()
      // Both wait for their turn at the issuer.
      await world.clock.untilSleeping(2)
      await world.clock.advance(1)
      await until(
        () => inState(world.issuerId, 'WANTED'),
        wanted => wanted === 0,
      )
      await minter.stop()
      const minted = await world.rows('SELECT scopes, mints, state FROM grants ORDER BY scopes, purpose')
      expect(minted).to.deep.equal([
        { scopes: 'storage.read:/0', mints: 0, state: 'LIVE' },
        { scopes: 'storage.read:/d', mints: 1, state: 'LIVE' },
        { scopes: 'storage.read:/d', mints: 1, state: 'LIVE' },
      ])
    })

    it('chooses grants though many bundles can have none, and looks at those again later', async () => {
      await world.dataset('bad', 1, 'A')
      await world.dataset('gone', 1, 'A')
      await world.dataset('good', 1, 'A')
      await world.addRule('bad', 'B', 1, 5)
      await world.addRule('gone', 'B', 1, 4)
      await world.addRule('good', 'C', 1, 1)
      await world.evaluate()
      const other = await test.db.write(e => ensureVo(e, 'without issuer'))
      await world.change('UPDATE bundles SET vo_id = :other WHERE priority = 4', { other })
      await world.change(
        `UPDATE directories SET path = '/outside' WHERE id = (SELECT destination_directory_id FROM bundles WHERE priority = 5)`,
      )
      const clones = JSON.stringify(Array.from({ length: 120 }, (_, i) => i))
      await world.change(
        `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                              has_work, ready, served_at)
         SELECT link_id, vo_id, source_directory_id, destination_directory_id, priority, 'a' || value, account_id, true,
                false, 0 FROM bundles, ${keyset(test.db.read, 'clones', 'text')} AS given WHERE priority > 1`,
        { clones },
      )
      const planner = grantPlanner(contextOf([issuer(world.issuerId, never)]))
      await planner.start()
      await world.clock.untilSleeping()
      const planned =
        'SELECT count(*) AS n FROM bundles WHERE source_grant_id IS NOT NULL AND destination_grant_id IS NOT NULL'
      expect([await world.number(planned), warned.length]).to.deep.equal([1, 121])
      expect(new Set(warned)).to.deep.equal(new Set(['SCOPE_OUTSIDE_PREFIX']))
      await world.change(`UPDATE directories SET path = '/data/s/bad' WHERE path = '/outside'`)
      for (const passed of [300_000, 1_000]) {
        await world.clock.advance(passed)
        await world.clock.untilSleeping()
      }
      await planner.stop()
      expect([await world.number(planned), warned.length]).to.deep.equal([1 + 121, 121])
    })

    it('is fifty bundles of an activity ahead of the claims on each link, and goes on for others and those more urgent', async () => {
      await world.dataset('slow', 1, 'A')
      await world.dataset('fast', 1, 'A')
      await world.dataset('small', 1, 'A')
      await world.addRule('slow', 'B', 1, 3)
      await world.evaluate()
      const clones = JSON.stringify(Array.from({ length: 50 }, (_, i) => i))
      await world.change(
        `INSERT INTO accounts (vo_id, name, created_at)
         SELECT vo_id, 'clone' || value, 0 FROM bundles, ${keyset(test.db.read, 'clones', 'text')} AS given`,
        { clones },
      )
      await world.change(
        `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                              has_work, ready, served_at)
         SELECT link_id, bundles.vo_id, source_directory_id, destination_directory_id, priority, activity, accounts.id, true,
                true, 0 FROM bundles JOIN accounts ON accounts.name LIKE 'clone%'`,
      )
      const unplanned = () => unplannedBundles(test.db.read, { voIds: [world.voId], aside: [] }, 10)
      expect(await unplanned()).to.deep.equal([])
      await world.addRule('fast', 'B', 1, 4)
      await world.addRule('small', 'B', 1, 3, 'another')
      await world.evaluate()
      const urgent = await world.number('SELECT id AS n FROM bundles WHERE priority = 4')
      const small = await world.number("SELECT id AS n FROM bundles WHERE activity = 'another'")
      expect((await unplanned()).map(bundle => bundle.id)).to.deep.equal([urgent, small])
    })

    /** A token as it was asked for; nobody here looks at its signature. */
    function tokenFrom(id: number): Mint {
      return async ({ audience, scopes }) => {
        const exp = world.clock.now() / 1000 + 3600
        const iss = `https://issuer-${id}.example.org`
        const claims = { iss, sub: 's', jti: 'j', aud: audience, scope: scopes.join(' '), exp, 'wlcg.ver': '1.0' }
        const text = Buffer.from(JSON.stringify(claims)).toString('base64url')
        return { accessToken: new Secret(`e30.${text}.c2ln`), expiresAt: exp * 1000 }
      }
    }
  })
}
