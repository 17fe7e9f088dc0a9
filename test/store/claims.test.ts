import { expect } from 'chai'
import { Issuers } from '../../server/tokens/issuers.ts'
import { claimOnLink, claimToSettle, linksToServe } from '../../server/transfers/claim.ts'
import { describeWork } from '../../server/transfers/claim-answer.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const CLAIMERS = 30
const never = (): never => {
  throw new Error('no token is asked for')
}

for (const { name, open } of databases) {
  describe(`claims on ${name}`, () => {
    let test: TestDatabase
    beforeEach(async () => {
      test = await open()
    })
    afterEach(() => test.drop())

    /** Two datasets at A wanted at B, and one at C wanted at B and A: four links, all but one with work. */
    async function queue(limits: { storageLimit: number; linkLimit: number }): Promise<World> {
      const world = await World.make(test.db, { rses: ['A', 'B', 'C'], ...limits })
      await world.dataset('first', 40, 'A')
      await world.dataset('second', 40, 'A')
      await world.dataset('third', 40, 'C')
      for (const dataset of ['first', 'second']) await world.addRule(dataset, 'B', 1)
      await world.addRule('third', 'A|B', 2)
      await world.evaluate()
      await world.grantAll()
      return world
    }

    it(`by ${CLAIMERS} at once never exceed what storages and links take`, async () => {
      const world = await queue({ storageLimit: 11, linkLimit: 7 })
      const sessions = await Promise.all(Array.from({ length: CLAIMERS }, () => world.openSession()))
      const claimed = (await Promise.all(sessions.map(session => world.claim(session, 4)))).flat()
      expect(new Set(claimed.map(row => row.id)).size).to.equal(claimed.length)
      const links = await world.rows<{ n: number }>(
        "SELECT count(*) AS n FROM transfers WHERE state = 'CLAIMED' GROUP BY link_id ORDER BY link_id",
      )
      // A to B and C to B share what B takes in; C to A is alone.
      expect(links.map(row => row.n).sort()).to.deep.equal([4, 7, 7])
      expect(
        await world.number(`SELECT count(*) AS n FROM transfers WHERE state = 'CLAIMED' AND destination_rse_id = :id`, {
          id: (await world.rse('B')).id,
        }),
      ).to.equal(11)
      expect(await world.claim(sessions[0] ?? 0, 100)).to.deep.equal([])
    })

    it('count attempts that are being settled as active', async () => {
      const world = await queue({ storageLimit: 11, linkLimit: 7 })
      const lost = await world.openSession()
      const first = await world.claim(lost, 100)
      await test.db.write(e => endSession(e, lost, world.clock.now(), world.clock.now()))
      const session = await world.openSession()
      expect(await world.claim(session, 100)).to.deep.equal([])
      const settled = await test.db.write(e =>
        claimToSettle(e, { sessionId: session, fenceBase: FENCE_BASE }, 100, world.clock.now()),
      )
      expect(settled.map(row => row.id)).to.have.members(first.map(row => row.id))
    })

    it('give each transfer a fence of its own, beyond all of the epochs before', async () => {
      const world = await queue({ storageLimit: 1000, linkLimit: 1000 })
      const session = await world.openSession()
      const [first] = await world.claim(session, 1)
      expect(first?.fence).to.equal(FENCE_BASE + 1)
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      const next = { sessionId: await world.openSession(), fenceBase: FENCE_BASE }
      const [again] = await test.db.write(e => claimToSettle(e, next, 1, world.clock.now()))
      expect(again).to.deep.include({ id: first?.id, fence: FENCE_BASE + 2 })
      await test.db.write(e => endSession(e, next.sessionId, world.clock.now(), world.clock.now()))
      const restored = { sessionId: await world.openSession(), fenceBase: 2 * FENCE_BASE }
      const [after] = await test.db.write(e => claimToSettle(e, restored, 1, world.clock.now()))
      expect(after).to.deep.include({ id: first?.id, fence: 2 * FENCE_BASE + 1 })
    })

    it('give nothing to a session that has ended', async () => {
      const world = await queue({ storageLimit: 1000, linkLimit: 1000 })
      const lost = await world.openSession()
      const [first] = await world.claim(lost, 1)
      const links = await linksToServe(test.db.read, {}, world.clock.now())
      await test.db.write(e => endSession(e, lost, world.clock.now(), world.clock.now()))
      const claimant = { sessionId: lost, fenceBase: FENCE_BASE }
      const now = world.clock.now()
      const refused = [
        ...links.map(link => test.db.write(e => claimOnLink(e, link, claimant, 10, now))),
        test.db.write(e => claimToSettle(e, claimant, 10, now)),
      ].map(claim =>
        claim.then(
          rows => rows.length,
          error => error.code,
        ),
      )
      expect(await Promise.all(refused)).to.deep.equal([
        'SESSION_ENDED',
        'SESSION_ENDED',
        'SESSION_ENDED',
        'SESSION_ENDED',
      ])
      const held = 'SELECT count(*) AS n FROM transfers WHERE session_id = :lost'
      expect([first?.state, await world.number(held, { lost })]).to.deep.equal(['CLAIMED', 0])
    })

    it('reach only what the worker may serve', async () => {
      const world = await queue({ storageLimit: 1000, linkLimit: 1000 })
      const [a, c] = [(await world.rse('A')).id, (await world.rse('C')).id]
      const links = await linksToServe(test.db.read, { rseIds: [a, c] }, world.clock.now())
      expect(links.map(link => [link.sourceId, link.destinationId])).to.deep.equal([[c, a]])
      const claimant = { sessionId: await world.openSession(), fenceBase: FENCE_BASE, voIds: [world.voId + 1] }
      for (const link of await linksToServe(test.db.read, {}, world.clock.now())) {
        expect(await test.db.write(e => claimOnLink(e, link, claimant, 10, world.clock.now()))).to.deep.equal([])
      }
    })

    it('are not held up by links whose tokens are missing', async () => {
      const world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D', 'E', 'F', 'G'] })
      await world.dataset('d', 10, 'A')
      await world.addRule('d', 'B|C|D|E|F|G', 6)
      await world.evaluate()
      await world.grantAll()
      const good = (await world.rse('G')).id
      await world.change("UPDATE grants SET state = 'HELD' WHERE purpose = 'write' AND rse_id <> :good", { good })
      await world.change(
        'UPDATE bundles SET ready = (destination_grant_id IN (SELECT id FROM grants WHERE rse_id = :good))',
        {
          good,
        },
      )
      expect((await linksToServe(test.db.read, {}, world.clock.now())).map(link => link.destinationId)).to.deep.equal([
        good,
      ])
      expect(await world.claim(await world.openSession(), 3)).to.have.length(3)
    })

    it('take only work whose tokens live long enough, unless a worker can refresh them', async () => {
      const world = await queue({ storageLimit: 1000, linkLimit: 1000 })
      const session = await world.openSession()
      const now = world.clock.now()
      const claims = async (life: { leftMs: number; lifetimeMs: number; sealedRefresh: string | null }) => {
        const { leftMs, lifetimeMs, sealedRefresh } = life
        await world.change(
          'UPDATE grants SET expires_at = :expiresAt, lifetime_ms = :lifetimeMs, sealed_refresh = :sealedRefresh',
          { expiresAt: now + leftMs, lifetimeMs, sealedRefresh },
        )
        return (await world.claim(session, 1)).length
      }
      expect(await claims({ leftMs: 299_000, lifetimeMs: 3_600_000, sealedRefresh: null })).to.equal(0)
      expect(await claims({ leftMs: 301_000, lifetimeMs: 3_600_000, sealedRefresh: null })).to.equal(1)
      expect(await claims({ leftMs: 4_000, lifetimeMs: 10_000, sealedRefresh: null })).to.equal(0)
      expect(await claims({ leftMs: 6_000, lifetimeMs: 10_000, sealedRefresh: null })).to.equal(1)
      expect(await claims({ leftMs: -1_000, lifetimeMs: 3_600_000, sealedRefresh: 'w1.1.x.y' })).to.equal(1)
    })

    it('hand back what has lost its grants before its worker was told of it', async () => {
      const world = await queue({ storageLimit: 1000, linkLimit: 1000 })
      const session = await world.openSession()
      const claimed = await world.claim(session, 10)
      await world.change('UPDATE bundles SET ready = false, source_grant_id = NULL, destination_grant_id = NULL')
      const tokens = { issuers: new Issuers([]), vault: { seal: never, open: never }, autonomyMs: 0 }
      const work = { claimed, more: false, renewals: [], imports: [], tasks: [] }
      const context = { ...world.context, ...tokens }
      const { transfers } = await describeWork(context, DEFAULT_RETRY_POLICY, session, work, false)
      expect(transfers).to.deep.equal([])
      expect(
        await world.rows(
          'SELECT state, session_id, attempts FROM transfers WHERE fence > 0 GROUP BY state, session_id, attempts',
        ),
      ).to.deep.equal([{ state: 'QUEUED', session_id: null, attempts: 0 }])
    })

    it('take the most urgent first', async () => {
      const world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('slow', 5, 'A')
      await world.dataset('fast', 5, 'A')
      await world.addRule('slow', 'B', 1, 2)
      await world.addRule('fast', 'B', 1, 4)
      await world.evaluate()
      await world.grantAll()
      const claimed = await world.claim(await world.openSession(), 5)
      const names = await world.rows<{ name: string }>(
        `SELECT DISTINCT substr(dids.name, 1, 4) AS name FROM transfers JOIN replicas ON replicas.id = replica_id
           JOIN dids ON dids.id = file_id WHERE transfers.state = 'CLAIMED'`,
      )
      expect([claimed.length, names.map(row => row.name)]).to.deep.equal([5, ['fast']])
    })
  })
}
