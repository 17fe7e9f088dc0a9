import { expect } from 'chai'
import { fillQueue } from '../../bench/filled.ts'
import { type Binding, type Executor, query } from '../../server/database/sql.ts'
import { unplannedBundles } from '../../server/tokens/unplanned.ts'
import { listActivities, putWeight } from '../../server/transfers/activity-store.ts'
import { claimOnLink, linksToServe } from '../../server/transfers/claim.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

/** Of one activity; `BACKLOG=1000000` is the full size. */
const BACKLOG = Number(environment.BACKLOG ?? 50_000)

for (const { name, open } of databases) {
  describe(`activities on a link, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      session = await world.openSession(1e9)
    })
    afterEach(() => test.drop())

    /** Datasets at A that are wanted at B for an activity. */
    async function queue(activity: string, count: number, priority = 3): Promise<void> {
      await world.dataset(activity, count, 'A')
      await world.addRule(activity, 'B', 1, priority, activity)
      await world.evaluate()
      await world.grantAll()
    }

    async function active(): Promise<Record<string, number>> {
      const rows = await listActivities(world.db.read, {})
      return Object.fromEntries(rows.map(row => [row.activity, row.active]))
    }

    async function end(activity: string, count: number): Promise<void> {
      const held = await world.rows<{ id: number; fence: number }>(
        `SELECT id, fence FROM transfers WHERE state = 'CLAIMED' AND activity = :activity ORDER BY id LIMIT :count`,
        { activity, count },
      )
      const done = { result: 'done', mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false } as const
      const outcomes = held.map(({ id, fence }) => ({ transfer: id, fence, ...done, left: 'own' as const }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }

    it('have the places by their weights, one claim after the other', async () => {
      await world.db.write(e => putWeight(e, { voId: world.voId, activity: 'heavy', weight: 3 }))
      await queue('light', 50)
      await queue('heavy', 50)
      for (const places of [1, 7, 4, 8]) expect(await world.claim(session, places)).to.have.length(places)
      expect(await active()).to.deep.equal({ heavy: 15, light: 5 })
    })

    it('follow another weight with the next claim', async () => {
      await queue('a', 50)
      await queue('b', 50)
      await world.claim(session, 10)
      await world.db.write(e => putWeight(e, { voId: world.voId, activity: 'b', weight: 4 }))
      await world.claim(session, 10)
      expect(await active()).to.deep.equal({ a: 5, b: 15 })
    })

    it('leave what they cannot fill to others, and then to lower priorities', async () => {
      await queue('few', 2)
      await queue('many', 10)
      await queue('later', 30, 2)
      expect(await world.claim(session, 20)).to.have.length(20)
      expect(await active()).to.deep.equal({ few: 2, many: 10, later: 8 })
    })

    it('are none of a lower priority while there is one that is higher', async () => {
      await queue('urgent', 100, 5)
      await queue('idle', 10, 1)
      await world.claim(session, 50)
      expect(await active()).to.deep.equal({ urgent: 50 })
    })

    it('that a worker may not serve are not waited for', async () => {
      await queue('a', 50)
      await queue('b', 50)
      const claimant = { sessionId: session, fenceBase: FENCE_BASE, activities: ['b'] }
      const [link] = await linksToServe(world.db.read, claimant, world.clock.now())
      if (link === undefined) throw new Error('no link has work')
      await world.db.write(e => claimOnLink(e, link, claimant, 10, world.clock.now()))
      expect(await active()).to.deep.equal({ b: 10 })
    })

    it('whose files always fail are not all that is tried at a source on trial', async () => {
      await queue('bad', 5)
      await queue('good', 5)
      await world.change("UPDATE transfers SET attempts = 1 WHERE activity = 'bad'")
      await world.change("UPDATE bundles SET served_at = 1 WHERE activity = 'good'")
      const now = world.clock.now()
      await world.change(
        `INSERT INTO link_health (link_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
         SELECT min(id), :now, :now, 0, 10, 0, true, 1, 1, :now, 'CONNECT_FAILED', '' FROM links WHERE has_work`,
        { now },
      )
      expect(await world.claim(session, 10)).to.have.length(1)
      expect(await active()).to.deep.equal({ good: 1 })
    })

    it(`that are small keep moving beside ${BACKLOG.toLocaleString('en')} files of another`, async function () {
      this.timeout(60_000 + BACKLOG)
      await fillQueue(world, { source: 'A', destination: 'B' }, 'backlog', BACKLOG)
      await world.change("UPDATE bundles SET served_at = 0 WHERE activity = 'bench'")
      await world.clock.advance(60_000)
      await queue('small', 60)
      await world.change('UPDATE links SET max_active = 40')
      const claimed: number[] = []
      for (let round = 0; round < 3; round += 1) {
        await claimWork(world.context, { sessionId: session, fenceBase: FENCE_BASE }, 1_000)
        const { small = 0, bench = 0 } = await active()
        claimed.push(small, bench)
        await end('small', 20)
        await end('bench', 20)
        await world.clock.advance(1_000)
      }
      // Three times 20 are all there are.
      expect(claimed).to.deep.equal([20, 20, 20, 20, 20, 20])
    })

    it('cost a claim as many statements and rows as there are activities, not bundles', async () => {
      await queue('a', 5)
      await queue('b', 5)
      const plans = await plansOfClaim()
      expect(plans.filter(step => /TEMP B-TREE|SCAN bundles|Sort|Seq Scan on bundles/.test(step))).to.deep.equal([])
      await clones(2_000)
      const now = world.clock.now()
      expect(await unplannedBundles(world.db.read, { voIds: [world.voId], aside: [] }, 10)).to.deep.equal([])
      const claimant = { sessionId: session, fenceBase: FENCE_BASE }
      const [link] = await linksToServe(world.db.read, {}, now)
      if (link === undefined) throw new Error('no link has work')
      let statements = 0
      const counted = (executor: Executor): Executor =>
        new Proxy(executor, {
          get(target, property) {
            if (property === 'raw') statements += 1
            return Reflect.get(target, property)
          },
        })
      await world.db.write(e => claimOnLink(counted(e), link, claimant, 4, now))
      expect(await active()).to.deep.equal({ a: 2, b: 2 })
      expect(statements).to.be.at.most(16)
    })

    /** More bundles of the activity `a`, ready and dry. */
    async function clones(count: number): Promise<void> {
      await world.change(
        `INSERT INTO accounts (vo_id, name, created_at)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) SELECT 1, 'clone' || i, 0 FROM n`,
        { count },
      )
      await world.change(
        `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                              has_work, ready, served_at, source_grant_id, destination_grant_id)
         SELECT link_id, bundles.vo_id, source_directory_id, destination_directory_id, priority, activity, accounts.id, true, true,
                9000000000000000, source_grant_id, destination_grant_id
           FROM bundles JOIN accounts ON accounts.name LIKE 'clone%' WHERE activity = 'a'`,
      )
    }

    /** The steps of the plan of the statement that finds the activities. */
    async function plansOfClaim(): Promise<string[]> {
      const steps: string[] = []
      const explain = name === 'SQLite' ? 'EXPLAIN QUERY PLAN' : 'EXPLAIN'
      const watched = (executor: Executor): Executor =>
        new Proxy(executor, {
          get(target, property) {
            if (property !== 'raw') return Reflect.get(target, property)
            return async (sql: string, bindings: Readonly<Record<string, Binding>>) => {
              if (sql.includes('firsts(')) {
                if (name === 'PostgreSQL') await target.raw('SET LOCAL enable_seqscan = off')
                const rows = await query<Record<string, string>>(target, `${explain} ${sql}`, bindings)
                steps.push(...rows.map(row => row.detail ?? row['QUERY PLAN'] ?? ''))
              }
              return target.raw(sql, bindings)
            }
          },
        })
      const claimant = { sessionId: session, fenceBase: FENCE_BASE }
      const now = world.clock.now()
      const [link] = await linksToServe(world.db.read, {}, now)
      if (link === undefined) throw new Error('no link has work')
      await world.db.write(e => claimOnLink(watched(e), link, claimant, 0, now))
      await world.db.write(e => claimOnLink(watched(e), link, { ...claimant, voIds: [0] }, 1, now))
      expect(steps).not.to.deep.equal([])
      return steps
    }
  })
}
