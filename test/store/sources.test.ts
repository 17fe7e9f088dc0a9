import { expect } from 'chai'
import { fillQueue } from '../../bench/filled.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { HOLD } from '../../server/transfers/health.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { replanner } from '../../server/transfers/replan.ts'
import { insertSession } from '../../server/transfers/session-store.ts'
import { drain } from '../../server/transfers/worker-store.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, WORKER, World } from './world.ts'

const QUEUED = 100_000
const DEAD = {
  scope: 'SOURCE',
  phase: 'TRANSFER',
  code: 'CONNECT_FAILED',
  message: 'Connection refused',
  retryable: true,
} as const

for (const { name, open } of databases) {
  describe(`sources that fail, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let ids: { a: number; b: number; c: number }

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
      ids = { a: (await world.rse('A')).id, b: (await world.rse('B')).id, c: (await world.rse('C')).id }
      session = await world.openSession(86_400_000)
    })
    afterEach(() => test.drop())

    async function queue(dataset: string, files: number, ...at: string[]): Promise<void> {
      for (const rse of at) await world.dataset(dataset, files, rse)
      await world.addRule(dataset, 'B', 1)
      await world.evaluate()
      await world.grantAll()
    }

    const claim = (limit: number) => claimWork(world.context, { sessionId: session, fenceBase: FENCE_BASE }, limit)

    async function report(
      claimed: readonly { id: number; fence: number }[],
      outcome: Pick<ReportedOutcome, 'result' | 'error'> & Partial<ReportedOutcome>,
      by = session,
    ): Promise<void> {
      const numbers = { durationMs: 10, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing' } as const
      const outcomes = claimed.map(({ id: transfer, fence }) => ({
        transfer,
        fence,
        mode: 'pull' as const,
        ...numbers,
        ...outcome,
      }))
      const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, by, outcomes)
      expect(answers.filter(({ answer }) => answer !== 'applied')).to.deep.equal([])
    }

    const openOther = (): Promise<number> => {
      const other = { worker: 'other', publicJwk: '{}', expiresAt: world.clock.now() + 86_400_000 }
      return test.db.write(e => insertSession(e, WORKER, other, world.clock.now()))
    }

    const fail = async (count: number): Promise<void> => report(await claim(count), { result: 'failed', error: DEAD })
    /** What is queued, by source, and for what it was moved there. */
    const queued = () =>
      world.rows(
        `SELECT transfers.source_rse_id AS source, replans.source_rse_id AS left_rse, code, count(*) AS n FROM transfers
           LEFT JOIN replans ON replans.id = replan_id WHERE state = 'QUEUED' GROUP BY 1, 2, 3 ORDER BY source, n`,
      )
    /** It has failed for so long that work leaves it. */
    async function die(): Promise<void> {
      await fail(HOLD.failures)
      await world.clock.advance(HOLD.beforeMoving)
      await fail(1)
    }

    /** C is on trial for B, where one copy of it was done. */
    const tryC = (failures: number): Promise<unknown> =>
      world.change(
        `INSERT INTO link_health (link_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
         SELECT id, :now, :now, 0, :failures, 1, :yes, 0, 1, 1, '', '' FROM links WHERE source_rse_id = :c AND destination_rse_id = :b`,
        { now: world.clock.now(), failures, yes: true, c: ids.c, b: ids.b },
      )

    it('are held back after a run of failures, then tried by one transfer, and by more as they succeed', async () => {
      await queue('d', 40, 'A')
      await fail(HOLD.failures - 1)
      const onTheirWay = await claim(3)
      expect(onTheirWay).to.have.length(3)
      await report(onTheirWay, { result: 'failed', error: DEAD })
      expect(await claim(10), 'held').to.deep.equal([])
      await world.clock.advance(HOLD.first)
      const trial = await claim(10)
      expect(trial, 'on trial').to.have.length(1)
      expect(await claim(10), 'while it is tried').to.deep.equal([])
      await report(trial, { result: 'failed', error: DEAD })
      await world.clock.advance(HOLD.first)
      expect(await claim(10), 'held for twice as long').to.deep.equal([])
      await world.clock.advance(HOLD.first)
      for (const more of [1, 2, 4]) {
        const claimed = await claim(30)
        expect(claimed, 'each that succeeds lets one more in').to.have.length(more)
        await report(claimed, { result: 'done' })
      }
    })

    it('are tried also while an attempt whose end nobody saw is still looked at', async () => {
      await queue('d', 20, 'A')
      const [lost, ...others] = await claim(HOLD.failures + 1)
      await report(lost ? [lost] : [], { result: 'unknown' })
      await report(others, { result: 'failed', error: DEAD })
      await world.clock.advance(HOLD.first)
      const taken = await world.claim(session, 10)
      expect(taken.map(({ state }) => state)).to.deep.equal(['CLAIMED'])
    })

    it('are tried also while old copies go on, whose late failures are no trials, and by more while a trial moves', async () => {
      await queue('d', 40, 'A')
      const old = await claim(20)
      await report(old.slice(0, HOLD.failures), { result: 'failed', error: DEAD })
      await world.clock.advance(HOLD.first)
      const [trial] = await claim(10)
      await report(old.slice(HOLD.failures), { result: 'failed', error: DEAD })
      expect(await world.number('SELECT holds AS n FROM link_health')).to.equal(1)
      expect(await claim(10), 'one at a time').to.deep.equal([])
      const moves = { transfer: trial?.id ?? 0, fence: trial?.fence ?? 0, state: 'COPYING' as const, bytes: 1 }
      await test.db.write(e => recordProgress(e, session, [moves], world.clock.now()))
      expect(await claim(10), 'it gives something').to.have.length(1)
    })

    it('are tried by another file each time: a few bad ones do not keep the rest, in their dataset or in others', async () => {
      for (let i = 0; i < 6; i += 1) await queue(`bad${i}`, 1, 'A')
      await queue('d', 34, 'A')
      const bad = new Set(
        (await world.rows<{ id: number }>('SELECT id FROM transfers ORDER BY id LIMIT 12')).map(row => row.id),
      )
      let copied = 0
      for (let step = 0; step < 40; step += 1) {
        const claimed = await claim(20)
        const good = claimed.filter(({ id }) => !bad.has(id))
        copied += good.length
        await report(
          claimed.filter(({ id }) => bad.has(id)),
          { result: 'failed', error: { ...DEAD, code: 'STORAGE_ERROR' } },
        )
        await report(good, { result: 'done' })
        await world.clock.advance(5_000)
        await world.run(transferReleaser)
      }
      expect(copied).to.equal(28)
    })

    it('two of them do not send their work to each other', async () => {
      await queue('d', 200, 'A', 'C')
      await die()
      await world.run(replanner)
      await world.grantAll()
      await die()
      await world.run(replanner)
      const steps = await world.number('SELECT count(*) AS n FROM replans')
      for (let minute = 0; minute < 10; minute += 1) {
        await world.clock.advance(60_000)
        await world.run(transferReleaser)
        await fail(1)
        await world.run(replanner)
      }
      expect(await world.number('SELECT count(*) AS n FROM replans')).to.equal(steps)
    })

    for (const [failures, moved] of [
      [0, true],
      [1, false],
    ] as const) {
      it(`on trial ${moved ? '' : 'do not '}take work when ${failures} of 1 failed`, async () => {
        await queue('d', 60, 'A', 'C')
        await tryC(failures)
        await die()
        await world.run(replanner)
        const left = await world.number('SELECT count(*) AS n FROM transfers WHERE replan_id IS NOT NULL')
        expect(left, 'as much as a trial takes').to.equal(moved ? 2 : 0)
      })
    }

    it('on trial come after those that are well, however near they are', async () => {
      await queue('d', 60, 'A', 'C', 'D')
      await tryC(0)
      await die()
      await world.run(replanner)
      const sources = await world.rows<{ source: number }>(
        'SELECT DISTINCT source_rse_id AS source FROM transfers WHERE replan_id IS NOT NULL',
      )
      expect(sources).to.deep.equal([{ source: (await world.rse('D')).id }])
      expect(
        await world.number(`SELECT count(*) AS n FROM transfers WHERE state = 'QUEUED' AND replan_id IS NULL`),
      ).to.equal(0)
    })

    it('are taken by new work a minute after a hold: nothing else may be there to try them with', async () => {
      await queue('d', 20, 'A')
      await fail(HOLD.failures)
      await queue('e', 5, 'A', 'C')
      await world.clock.advance(HOLD.first + 59_000)
      await queue('f', 5, 'A', 'C')
      const from = (rse: number) =>
        world.number('SELECT count(*) AS n FROM transfers WHERE source_rse_id = :rse', { rse })
      expect([await from(ids.a), await from(ids.c)]).to.deep.equal([20, 10])
      await world.clock.advance(1_000)
      await queue('g', 5, 'A', 'C')
      expect([await from(ids.a), await from(ids.c)]).to.deep.equal([25, 10])
    })

    it('are not left for one that has failed a file already, which waits for its own', async () => {
      await queue('d', 20, 'A', 'C')
      const [file] = await world.rows<{ id: number }>('SELECT max(id) AS id FROM transfers')
      await world.change(
        `INSERT INTO attempts (transfer_id, fence, session_id, source_rse_id, outcome, started_at, ended_at, bytes, scope, phase, code)
         VALUES (:id, 1, 1, :c, 'failed', 0, 0, 0, 'SOURCE', 'TRANSFER', 'SOURCE_MISSING')`,
        { id: file?.id ?? 0, c: ids.c },
      )
      await die()
      await world.run(replanner)
      const at = 'SELECT id FROM transfers WHERE source_rse_id = :a AND state = :state'
      expect(await world.rows(at, { a: ids.a, state: 'QUEUED' })).to.deep.equal([file])
      await world.change(`UPDATE transfers SET state = 'WAITING', not_before = 0 WHERE id = :id`, { id: file?.id ?? 0 })
      await world.run(transferReleaser)
      expect(await world.rows(at, { a: ids.a, state: 'QUEUED' }), 'planned anew').to.deep.equal([file])
    })

    it('that say nothing, as one that is switched off, are left by a transfer that failed there, though nobody is blamed', async () => {
      await queue('d', 1, 'A', 'C')
      const stall = { ...DEAD, scope: 'TRANSFER', code: 'TIMEOUT_NO_PROGRESS' } as const
      await report(await claim(1), { result: 'failed', error: stall })
      await world.clock.advance(60_000)
      await world.run(transferReleaser)
      expect(await queued()).to.deep.equal([{ source: ids.c, left_rse: null, code: null, n: 1 }])
    })

    it('keep what is queued as long as no trial has failed', async () => {
      await queue('d', 40, 'A', 'C')
      await fail(HOLD.failures)
      await world.clock.advance(2 * HOLD.beforeMoving)
      const trial = await claim(1)
      await world.run(replanner)
      expect(await world.number('SELECT count(*) AS n FROM replans'), 'while it is tried').to.equal(0)
      await report(trial, { result: 'done' })
      await world.run(replanner)
      expect(await world.number('SELECT count(*) AS n FROM replans')).to.equal(0)
    })

    it('are not left for where nothing is given out', async () => {
      await queue('d', 20, 'A', 'C')
      await world.change(`UPDATE rses SET max_outbound = 0 WHERE id = ${ids.c}`)
      await die()
      await world.run(replanner)
      expect(await world.number('SELECT count(*) AS n FROM replans')).to.equal(0)
    })

    it('that nobody has tried for an hour are forgotten', async () => {
      await queue('d', 20, 'A')
      await fail(HOLD.failures)
      await world.clock.advance(3_700_000)
      await world.run(replanner)
      expect(await world.rows('SELECT * FROM link_health')).to.deep.equal([])
    })

    it('are held for who cannot reach them only: another destination may', async () => {
      await queue('d', 20, 'A')
      await fail(HOLD.failures)
      await world.dataset('e', 20, 'A')
      await world.addRule('e', 'C', 1)
      await world.evaluate()
      await world.grantAll()
      expect(await claim(100)).to.have.length(20)
    })

    it('are held for what others have failed before, too', async () => {
      await queue('d', 30, 'A')
      const odd = { ...DEAD, scope: 'TRANSFER', code: 'TRANSFER_FAILED' } as const
      await report(await claim(30), { result: 'failed', error: odd })
      await world.clock.advance(600_000)
      await world.run(transferReleaser)
      await fail(HOLD.failures)
      expect(await claim(10)).to.deep.equal([])
    })

    it('are tried with a pause also by who proves nothing by it', async () => {
      await queue('d', 60, 'A')
      const other = await openOther()
      const push = { result: 'failed', mode: 'push', error: DEAD } as const
      await report(await claim(HOLD.failures - 1), push)
      await report(await world.claim(other, 1), push, other)
      for (let i = 0; i < 3; i += 1) {
        expect(await claim(10), 'held').to.deep.equal([])
        await world.clock.advance(HOLD.first)
        await report(await claim(10), push)
      }
      expect(await world.number('SELECT holds AS n FROM link_health')).to.equal(1)
    })

    it('are held for what one worker alone saw when no other takes work that could see it otherwise', async () => {
      await queue('d', 40, 'A')
      await openOther()
      const failPush = async (): Promise<void> =>
        report(await claim(HOLD.failures), { result: 'failed', mode: 'push', error: DEAD })
      await failPush()
      expect(await claim(1)).to.have.length(1)
      await test.db.write(e => drain(e, { ...WORKER, worker: 'other' }, world.clock.now()))
      await failPush()
      expect(await claim(1)).to.deep.equal([])
    })

    it('are not held for what is wrong with files or tokens, or while some of their files are copied', async () => {
      await queue('d', 60, 'A')
      const missing = { ...DEAD, code: 'SOURCE_MISSING', retryable: false }
      await report(await claim(15), { result: 'failed', error: missing })
      await report(await claim(15), { result: 'failed', error: { ...DEAD, scope: 'TOKEN', code: 'TOKEN_REFUSED' } })
      for (let i = 0; i < 3; i += 1) {
        await fail(HOLD.failures - 1)
        await report(await claim(1), { result: 'done' })
      }
      expect(await world.rows('SELECT * FROM link_health')).to.deep.equal([])
    })

    it('lose what is queued to sources that have it too, after a while; the rest waits there', async () => {
      await queue('both', 30, 'A', 'C')
      await queue('one', 30, 'A')
      await fail(HOLD.failures)
      await world.run(replanner)
      expect(await queued(), 'not at once').to.deep.equal([{ source: ids.a, left_rse: null, code: null, n: 50 }])
      await world.clock.advance(HOLD.beforeMoving)
      await fail(1)
      await world.run(replanner)
      const moved = { source: ids.c, left_rse: ids.a, code: 'SOURCE_HELD' }
      const [left, gone] = (await queued()) as { n: number }[]
      expect([left, gone]).to.deep.equal([
        { source: ids.a, left_rse: null, code: null, n: left?.n },
        { ...moved, n: 49 - (left?.n ?? 0) },
      ])
      const [why] = await world.rows<{ message: string }>('SELECT message FROM replans')
      expect(why?.message).to.equal(`it has failed for 60 s, the last time: CONNECT_FAILED: Connection refused`)
      const stays = `SELECT count(*) AS n FROM transfers JOIN replicas AS own ON own.id = replica_id
        JOIN replicas AS other ON other.file_id = own.file_id AND other.rse_id = ${ids.c}
       WHERE transfers.state = 'QUEUED' AND transfers.source_rse_id = ${ids.a}`
      expect(await world.number(stays), 'that C has').to.equal(0)
      await world.grantAll()
      expect((await claim(100)).length, 'from C').to.equal(gone?.n)
    })

    it('are chosen only where no other has the file', async () => {
      await queue('d', 20, 'A')
      await fail(HOLD.failures)
      await queue('both', 5, 'A', 'C')
      await queue('one', 5, 'A')
      const from = (dataset: string) =>
        world.rows(
          `SELECT DISTINCT source_rse_id AS source FROM transfers JOIN replicas ON replicas.id = replica_id
             JOIN dids ON dids.id = file_id WHERE dids.name LIKE '${dataset}.%' AND transfers.state = 'QUEUED'`,
        )
      expect(await from('both')).to.deep.equal([{ source: ids.c }])
      expect(await from('one')).to.deep.equal([{ source: ids.a }])
    })

    it('that are much slower lose work as well', async () => {
      await queue('d', 200, 'A', 'C')
      await queue('e', 30, 'C')
      const took = async (source: number, durationMs: number): Promise<void> => {
        const claimed = await claim(1_000)
        const rows = await world.rows<{ id: number }>(`SELECT id FROM transfers WHERE source_rse_id = ${source}`)
        const mine = claimed.filter(({ id }) => rows.some(row => row.id === id))
        await report(mine.slice(0, 25), { result: 'done', durationMs, bytes: 100 })
        await report(
          claimed.filter(({ id }) => !mine.slice(0, 25).some(other => other.id === id)),
          {
            result: 'handed-back',
          },
        )
      }
      await took(ids.a, 8_000)
      await took(ids.c, 2_000)
      await world.run(replanner)
      expect(await world.rows('SELECT DISTINCT code, message FROM replans')).to.deep.equal([
        { code: 'SOURCE_SLOW', message: 'a file took 8.0 s from there in the last 15 minutes' },
      ])
      // 175 and 5: in four fifths of the time of the whole they are even.
      expect(((await queued()) as { n: number }[]).map(({ n }) => n)).to.deep.equal([36, 5, 139])
    })

    it('are left by each transfer once, when two servers move them', async () => {
      await queue('d', 3_000, 'A', 'C')
      await die()
      await Promise.all([world.run(replanner), world.run(replanner)])
      const steps = await world.rows<{ n: number }>('SELECT count(*) AS n FROM transfers GROUP BY replan_id')
      const [left, ...moved] = steps.map(({ n }) => n).sort((a, b) => a - b)
      expect(moved.reduce((sum, n) => sum + n, left ?? 0)).to.equal(3_000)
      expect(await world.number('SELECT count(*) AS n FROM replans'), 'no step moved nothing').to.equal(
        steps.length - 1,
      )
      const at = await world.rows<{ source: number }>(
        `SELECT DISTINCT source_rse_id AS source FROM transfers WHERE state = 'QUEUED'`,
      )
      expect(at).to.deep.equal([{ source: ids.c }])
    })

    it(`dead with ${QUEUED.toLocaleString('en')} transfers: all are done from the other, and each tells why it moved`, async function () {
      this.timeout(300_000)
      await fillQueue(world, { source: 'A', destination: 'B', alsoAt: 'C' }, 's', QUEUED)
      await die()
      await world.run(replanner)
      await world.clock.advance(60_000)
      await world.run(transferReleaser)
      await world.grantAll()
      for (;;) {
        const claimed = await claim(1_000)
        if (claimed.length === 0) break
        await report(claimed, { result: 'done' })
      }
      const ends = `SELECT transfers.state, transfers.source_rse_id AS source, replans.source_rse_id AS left_rse, code,
                           (SELECT count(*) FROM attempts WHERE transfer_id = transfers.id AND outcome = 'failed') AS failed,
                           count(*) AS n
                      FROM transfers LEFT JOIN replans ON replans.id = replan_id GROUP BY 1, 2, 3, 4, 5 ORDER BY n`
      const done = { state: 'DONE', source: ids.c }
      expect(await world.rows(ends)).to.deep.equal([
        { ...done, left_rse: null, code: null, failed: 1, n: HOLD.failures + 1 },
        { ...done, left_rse: ids.a, code: 'SOURCE_HELD', failed: 0, n: QUEUED - HOLD.failures - 1 },
      ])
      expect(await world.rows(`SELECT state, locks_ok, locks_replicating, locks_stuck FROM rules`)).to.deep.equal([
        { state: 'OK', locks_ok: QUEUED, locks_replicating: 0, locks_stuck: 0 },
      ])
    })
  })
}
