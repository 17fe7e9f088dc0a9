import { expect } from 'chai'
import { ensureVo } from '../../server/accounts/store.ts'
import { expireForeignGrants, expireGrants } from '../../server/tokens/expire.ts'
import { ensureGrant, findGrant, type GrantRow, grantsToMint, grantsToRenew } from '../../server/tokens/grant-store.ts'
import { holdIssuer, takeTurn } from '../../server/tokens/issuers.ts'
import { type NewTokens, storeFailure, storeTokens, takeLease } from '../../server/tokens/lease-store.ts'
import { unplannedBundles } from '../../server/tokens/unplanned.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { GRANT_MACHINE, type GrantEvent, type GrantState } from '../../shared/domain/grant-state.ts'
import { targetsOf } from '../../shared/domain/state-machine.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const STATES = Object.keys(GRANT_MACHINE) as GrantState[]
const LEASE_MS = 60_000
const TOKENS: NewTokens = {
  step: 'mint',
  needsExchange: false,
  sealedAccess: 'sealed',
  sealedRefresh: null,
  expiresAt: 1,
  lifetimeMs: 1,
  jti: 'j',
  sha256: 's',
}

for (const { name, open } of databases) {
  describe(`grants on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let id: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      id = await ensure()
    })
    afterEach(() => test.drop())

    async function ensure(scopes = ['storage.read:/d']): Promise<number> {
      const rseId = (await world.rse('A')).id
      const key = { issuerId: world.issuerId, client: 'server', voId: world.voId, rseId, audience: 'a', scopes }
      return test.db.write(e => ensureGrant(e, { ...key, purpose: 'read' }, world.clock.now()))
    }
    async function grant(): Promise<GrantRow> {
      const row = await findGrant(test.db.read, id)
      if (row === undefined) throw new Error('the grant is gone')
      return row
    }
    /** As it is after its lease was taken. */
    async function lease(event: 'need' | 'restart', sessionId: number | null = null): Promise<GrantRow | undefined> {
      const now = world.clock.now()
      const row = await grant()
      return test.db.write(e => takeLease(e, row, { sessionId, event, until: now + LEASE_MS }, now))
    }
    const put = (state: GrantState, leaseUntil = 0): Promise<void> =>
      world.change('UPDATE grants SET state = :state, lease_until = :leaseUntil', { state, leaseUntil })

    /** The statements that move a grant, each with the event that it stands for, and where that is to lead. */
    const moves: readonly { event: GrantEvent; to?: GrantState; move: () => Promise<unknown> }[] = [
      { event: 'need', move: () => lease('need') },
      { event: 'restart', move: () => lease('restart') },
      { event: 'mint', to: 'LIVE', move: () => stored({}) },
      { event: 'mint', to: 'RENEWING', move: () => stored({ needsExchange: true }) },
      { event: 'renew', move: () => stored({ step: 'exchange' }) },
      { event: 'renew', move: () => stored({ step: 'refresh' }) },
      ...(['retry', 'restart', 'refuse'] as const).map(event => ({ event, move: () => failed(event) })),
      { event: 'expire', move: () => test.db.write(e => expireGrants(e, world.clock.now(), world.clock.now())) },
    ]
    const stored = async (tokens: Partial<NewTokens>): Promise<boolean> => {
      const row = await grant()
      return test.db.write(e => storeTokens(e, row, { ...TOKENS, ...tokens }))
    }
    const failed = async (event: 'retry' | 'restart' | 'refuse'): Promise<unknown> => {
      const row = await grant()
      return test.db.write(e => storeFailure(e, row, { event, notBefore: 7, error: 'WHY: why' }))
    }

    for (const [i, { event, to, move }] of moves.entries()) {
      it(`move as their table says: ${event}${to === undefined ? '' : ` to ${to}`}, statement ${i + 1}`, async () => {
        for (const state of STATES) {
          await world.clock.advance(1)
          await put(state)
          await move()
          const [first] = targetsOf(GRANT_MACHINE, state, event)
          expect((await grant()).state, state).to.equal(first === undefined ? state : (to ?? first))
        }
      })
    }

    it('are one for each key, and wanted again once they had expired', async () => {
      expect(await ensure()).to.equal(id)
      expect(await ensure(['storage.read:/e'])).to.not.equal(id)
      await put('EXPIRED')
      expect(await ensure()).to.equal(id)
      expect((await grant()).state).to.equal('WANTED')
    })

    it('are renewed by one of thirty', async () => {
      await put('LIVE')
      const sessions = await Promise.all(Array.from({ length: 30 }, () => world.openSession()))
      const row = await grant()
      const now = world.clock.now()
      const taken = await Promise.all(
        sessions.map(sessionId =>
          test.db.write(e => takeLease(e, row, { sessionId, event: 'need', until: now + LEASE_MS }, now)),
        ),
      )
      const [holder, ...others] = taken.filter(lease => lease !== undefined)
      expect(others).to.deep.equal([])
      expect((await grant()).lease_session_id).to.equal(holder?.lease_session_id)
    })

    it('take tokens only from whoever holds the lease, once', async () => {
      await put('LIVE')
      const first = await lease('need', await world.openSession())
      expect(await lease('need', await world.openSession())).to.equal(undefined)
      await world.clock.advance(LEASE_MS)
      const second = await lease('need', await world.openSession())
      if (first === undefined || second === undefined) throw new Error('no lease was given')
      expect(await test.db.write(e => storeTokens(e, first, { ...TOKENS, step: 'exchange' }))).to.equal(false)
      expect(
        await test.db.write(e => storeFailure(e, first, { event: 'refuse', notBefore: 0, error: 'X: x' })),
      ).to.equal(undefined)
      expect(await test.db.write(e => storeTokens(e, second, { ...TOKENS, step: 'exchange' }))).to.equal(true)
      expect(await test.db.write(e => storeTokens(e, second, { ...TOKENS, step: 'exchange' }))).to.equal(false)
      expect(await grant()).to.deep.include({ state: 'LIVE', generation: 1, exchanges: 1, error: null, lease_until: 0 })
    })

    it('are renewed by nobody else before the lease ends, though the session that held it has', async () => {
      await put('LIVE')
      const lost = await world.openSession()
      await lease('need', lost)
      await test.db.write(e => endSession(e, lost, world.clock.now(), world.clock.now()))
      expect((await grant()).lease_session_id).to.equal(null)
      await world.clock.advance(LEASE_MS - 1)
      expect(await lease('need', await world.openSession())).to.equal(undefined)
      await world.clock.advance(1)
      expect(await lease('need', await world.openSession())).to.not.equal(undefined)
    })

    it('that must be exchanged are offered to workers, and those that are wanted or held to the server', async () => {
      const mint = async (): Promise<number[]> =>
        (await grantsToMint(test.db.read, world.issuerId, world.clock.now(), 10)).map(row => row.id)
      expect(await mint()).to.deep.equal([id])
      await lease('restart')
      expect(await mint()).to.deep.equal([])
      await world.clock.advance(LEASE_MS)
      const leased = await lease('restart')
      if (leased === undefined) throw new Error('no lease was given')
      await test.db.write(e => storeTokens(e, leased, { ...TOKENS, needsExchange: true }))
      expect(await mint()).to.deep.equal([])
      expect(await grantsToRenew(test.db.read, {}, world.clock.now(), 10)).to.deep.equal([id])
      await put('HELD')
      expect(await mint()).to.deep.equal([id])
    })

    it('of others do not hide from a worker those that it may renew', async () => {
      const rseId = (await world.rse('A')).id
      const other = await test.db.write(e => ensureVo(e, 'other'))
      const common = { issuerId: world.issuerId, client: 'server', rseId, audience: 'a', purpose: 'read' as const }
      for (const path of ['e', 'f', 'g']) {
        const key = { ...common, voId: other, scopes: [`storage.read:/${path}`] }
        await test.db.write(e => ensureGrant(e, key, 0))
      }
      await put('RENEWING')
      await world.change('UPDATE grants SET not_before = 1 WHERE id = :id', { id })
      const now = world.clock.now()
      expect(await grantsToRenew(test.db.read, { voIds: [world.voId] }, now, 2)).to.deep.equal([id])
      expect(await grantsToRenew(test.db.read, { voIds: [other] }, now, 2)).to.have.length(2)
      expect(await grantsToRenew(test.db.read, { rseIds: [rseId + 1] }, now, 2)).to.deep.equal([])
    })

    it('that are held expire when nobody asks for them, though the server tries them again and again', async () => {
      const tryAgain = async (unasked: { unasked?: true }): Promise<void> => {
        await put('HELD')
        await world.clock.advance(3_600_000)
        const now = world.clock.now()
        const row = await grant()
        await test.db.write(e => takeLease(e, row, { sessionId: null, event: 'restart', until: now, ...unasked }, now))
        await failed('refuse')
      }
      const expire = (): Promise<number> => {
        const now = world.clock.now()
        return test.db.write(e => expireGrants(e, now - 1_800_000, now))
      }
      await tryAgain({})
      expect([(await grant()).state, await expire()]).to.deep.equal(['HELD', 0])
      await tryAgain({ unasked: true })
      expect([(await grant()).state, await expire()]).to.deep.equal(['HELD', 1])
    })

    it('that the configuration has no client for are given up, and their work gets others', async () => {
      const all = await World.make(test.db, { rses: ['B', 'C'] })
      await all.dataset('d', 1, 'B')
      await all.addRule('d', 'C', 1)
      await all.evaluate()
      await all.grantAll()
      const states = () => all.rows<{ state: GrantState }>('SELECT DISTINCT state FROM grants')
      const among = { voIds: [all.voId], aside: [] }
      const configured = { id: all.issuerId, clientId: 'server', voId: all.voId }
      const expire = (clientId: string): Promise<number> =>
        test.db.write(e => expireForeignGrants(e, [{ ...configured, clientId }]))
      expect([await expire('server'), await unplannedBundles(test.db.read, among, 10)]).to.deep.equal([0, []])
      await all.change("UPDATE grants SET sealed_access = 'sealed', lease_until = :until", {
        until: all.clock.now() + 1,
      })
      await all.change("UPDATE grants SET state = 'RENEWING' WHERE purpose = 'write'")
      expect([await expire('renamed'), await states()]).to.deep.equal([3, [{ state: 'EXPIRED' }]])
      expect(await all.number('SELECT count(*) AS n FROM grants WHERE sealed_access IS NOT NULL')).to.equal(0)
      expect(await unplannedBundles(test.db.read, among, 10)).to.have.length(1)
      expect(await expire('renamed')).to.equal(0)
    })

    it('are kept while an attempt on them is under way or to be settled, and planned again where they were lost', async () => {
      await put('EXPIRED')
      const all = await World.make(test.db, { rses: ['B', 'C'] })
      await all.dataset('d', 1, 'B')
      await all.addRule('d', 'C', 1)
      await all.evaluate()
      await all.grantAll()
      const lost = await all.openSession()
      const [first] = await all.claim(lost, 10)
      await all.clock.advance(3_600_001)
      const now = all.clock.now()
      const expire = (): Promise<number> => test.db.write(e => expireGrants(e, now, now))
      const settle = async (sessionId: number): Promise<number[]> =>
        (await test.db.write(e => claimToSettle(e, { sessionId, fenceBase: FENCE_BASE }, 10, now))).map(row => row.id)
      await all.change('UPDATE bundles SET has_work = false')
      expect(await expire()).to.equal(0)
      await test.db.write(e => endSession(e, lost, now, now))
      expect([
        await expire(),
        await unplannedBundles(test.db.read, { voIds: [all.voId], aside: [] }, 10),
      ]).to.deep.equal([0, []])
      await all.change('UPDATE bundles SET source_grant_id = NULL, destination_grant_id = NULL, ready = false')
      const session = await all.openSession()
      expect(await settle(session)).to.deep.equal([])
      expect(await unplannedBundles(test.db.read, { voIds: [all.voId], aside: [] }, 10)).to.have.length(1)
      await all.grantAll()
      expect(await settle(session)).to.deep.equal([first?.id])
    })

    it('ask their issuer in turn, at its rate, and not while it wants to be left alone', async () => {
      const issuer = { id: world.issuerId, requestsPerSecond: 50, requestsAtOnce: 100 }
      const turn = () => test.db.write(e => takeTurn(e, issuer, 0, world.clock.now()))
      const turns = await Promise.all(Array.from({ length: 10 }, turn))
      const delays = turns.map(({ delayMs }) => delayMs).sort((a, b) => a - b)
      expect(delays).to.deep.equal(Array.from({ length: 10 }, (_, i) => i * 20))
      await world.clock.advance(1_000)
      expect(await turn()).to.deep.equal({ given: true, delayMs: 0 })
      await test.db.write(e => holdIssuer(e, issuer.id, world.clock.now() + 5_000))
      expect(await turn()).to.deep.equal({ given: true, delayMs: 5_000 })
      expect([await turn(), await turn()]).to.deep.equal(Array(2).fill({ given: false, delayMs: 5_020 }))
    })
  })
}
