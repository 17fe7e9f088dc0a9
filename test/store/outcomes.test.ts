import { expect } from 'chai'
import { cancelTransfers } from '../../server/transfers/cancel.ts'
import { openTransfers } from '../../server/transfers/open.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { loseTransfers, recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes, type OutcomeAnswer } from '../../server/transfers/outcomes.ts'
import { extendSession, requireSession } from '../../server/transfers/session-store.ts'
import { endSession, sessionReaper } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FAILURE, World } from './world.ts'

const WORKER = { issuer: 'https://issuer.example.org', client: 'pool' }
type Result = ReportedOutcome['result']
type Left = ReportedOutcome['left']

for (const { name, open } of databases) {
  describe(`outcomes on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let claimed: { id: number; fence: number }[]

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', 4, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      session = await world.openSession()
      claimed = await world.claim(session, 100)
    })
    afterEach(() => test.drop())

    async function report(
      by: number,
      results: readonly [{ id: number; fence: number }, Result, Left?][],
    ): Promise<OutcomeAnswer[]> {
      const outcomes = results.map(([{ id, fence }, result, left = 'unknown']) => ({
        transfer: id,
        fence,
        result,
        durationMs: 10,
        endedMsAgo: 0,
        bytes: 5,
        cleaned: false,
        left,
        ...(result === 'failed' ? { error: FAILURE } : {}),
      }))
      return (await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, by, outcomes)).map(({ answer }) => answer)
    }
    const nth = (i: number): { id: number; fence: number } => claimed[i] ?? { id: 0, fence: 0 }
    const states = async (): Promise<string[]> =>
      (await world.rows<{ state: string }>('SELECT state FROM transfers ORDER BY id')).map(row => row.state)

    it('are applied once, and a repeated report hears so', async () => {
      expect(
        await report(session, [
          [nth(0), 'done'],
          [nth(1), 'failed'],
        ]),
      ).to.deep.equal(['applied', 'applied'])
      expect(
        await report(session, [
          [nth(0), 'done'],
          [nth(1), 'failed'],
        ]),
      ).to.deep.equal(Array(2).fill('already-applied'))
      expect(await world.number('SELECT count(*) AS n FROM attempts')).to.equal(2)
      expect(await world.number('SELECT locks_ok AS n FROM rules')).to.equal(1)
    })

    it('that two reports race for are applied by one of them', async () => {
      const answers = await Promise.all(Array.from({ length: 8 }, () => report(session, [[nth(0), 'done']])))
      expect(answers.flat().filter(answer => answer === 'applied')).to.have.length(1)
      expect(answers.flat().filter(answer => answer === 'already-applied')).to.have.length(7)
      expect(await world.number('SELECT locks_ok AS n FROM rules')).to.equal(1)
    })

    it('that a heartbeat overtakes are applied none the less', async () => {
      const overtaken = { ...nth(0), transfer: nth(0).id, state: 'COPYING' as const, bytes: 3 }
      const write: typeof test.db.write = async work => {
        await test.db.write(e => recordProgress(e, session, [overtaken], world.clock.now()))
        return test.db.write(work)
      }
      const context = { ...world.context, db: { ...test.db, write } }
      const outcome = { transfer: nth(0).id, fence: nth(0).fence, result: 'done' as const }
      const numbers = { durationMs: 10, endedMsAgo: 0, bytes: 5, cleaned: false, left: 'nothing' as const }
      const [answer] = await applyOutcomes(context, DEFAULT_RETRY_POLICY, session, [{ ...outcome, ...numbers }])
      expect([answer?.answer, (await states())[0]]).to.deep.equal(['applied', 'DONE'])
    })

    it('that contradict each other within one report: the first counts', async () => {
      expect(
        await report(session, [
          [nth(0), 'done'],
          [nth(0), 'failed'],
        ]),
      ).to.deep.equal(['applied', 'already-applied'])
      expect((await states())[0]).to.equal('DONE')
      expect(await world.number("SELECT count(*) AS n FROM replicas WHERE state = 'AVAILABLE'")).to.equal(5)
    })

    it('are refused from another session, with another fence, and once the session has ended', async () => {
      const other = await world.openSession()
      expect(await report(other, [[nth(0), 'done']])).to.deep.equal(['refused'])
      expect(await report(session, [[{ ...nth(0), fence: nth(0).fence - 1 }, 'done']])).to.deep.equal(['refused'])
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      expect(await report(session, [[nth(0), 'done']])).to.deep.equal(['refused'])
      expect(await states()).to.deep.equal(Array(4).fill('SETTLING'))
    })

    it('of copies that nobody wants any more do not begin again', async () => {
      await world.change('DELETE FROM locks')
      await world.change('UPDATE replicas SET lock_count = 0')
      // The worker reports before it hears of the cancellation, or while it is written.
      await report(session, [
        [nth(0), 'failed'],
        [nth(1), 'handed-back'],
      ])
      expect((await states()).slice(0, 2)).to.deep.equal(['CANCELLED', 'CANCELLED'])
    })

    it('of copies that were cancelled, then wanted again, count', async () => {
      const replicas = await world.rows<{ replica_id: number }>('SELECT replica_id FROM transfers ORDER BY id')
      const ids = replicas.map(row => row.replica_id)
      await report(session, [[nth(1), 'unknown']])
      await world.change('UPDATE replicas SET lock_count = 0')
      await test.db.write(e => cancelTransfers(e, ids, world.clock.now()))
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE cancel_requested')).to.equal(4)
      const who = { vo_id: world.voId, account_id: world.accountId, activity: 'test', priority: 3 }
      const rule = { ...who, archive: false, source_set_id: null }
      await world.change('UPDATE replicas SET lock_count = 1')
      await test.db.write(e => openTransfers(e, ids, rule, world.clock.now()))
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE cancel_requested')).to.equal(0)
      expect(await report(session, [[nth(0), 'done']])).to.deep.equal(['applied'])
    })

    it('leave the queue of a failed copy until its time has come', async () => {
      await report(session, [[nth(0), 'failed']])
      const waiting = "SELECT not_before - :now AS n FROM transfers WHERE state = 'WAITING'"
      expect(await world.number(waiting, { now: world.clock.now() })).to.equal(DEFAULT_RETRY_POLICY.later / 2)
    })

    describe('sessions', () => {
      it('that lost sight of some of what they hold keep the rest', async () => {
        const now = world.clock.now()
        // Of the last one it knows an attempt that is over.
        const known = [nth(1), nth(2), { ...nth(3), fence: nth(3).fence - 1 }]
        const stillHeld = known.map(({ id, fence }) => ({ transfer: id, fence }))
        await test.db.write(e => loseTransfers(e, session, now, now, stillHeld))
        expect(await states()).to.deep.equal(['SETTLING', 'CLAIMED', 'CLAIMED', 'SETTLING'])
        expect(await report(session, [[nth(0), 'done']])).to.deep.equal(['refused'])
        expect(await report(session, [[nth(1), 'done']])).to.deep.equal(['applied'])
      })

      it('are their own worker’s', async () => {
        expect((await requireSession(test.db.read, WORKER, session)).worker).to.equal('w')
        expect(await codeOf(requireSession(test.db.read, { ...WORKER, client: 'other' }, session))).to.equal(
          'SESSION_ENDED',
        )
        expect(await codeOf(test.db.write(e => extendSession(e, { ...WORKER, client: 'other' }, session, 1)))).to.equal(
          'SESSION_ENDED',
        )
      })

      it('end when their lease runs out, unless a heartbeat comes first', async () => {
        const kept = await world.openSession()
        await world.clock.advance(20_001)
        await test.db.write(e => extendSession(e, WORKER, kept, world.clock.now() + 20_000))
        await world.run(sessionReaper)
        expect(await codeOf(requireSession(test.db.read, WORKER, session))).to.equal('SESSION_ENDED')
        expect((await requireSession(test.db.read, WORKER, kept)).id).to.equal(kept)
        expect(await states()).to.deep.equal(Array(4).fill('SETTLING'))
      })
    })
  })
}

async function codeOf(attempt: Promise<unknown>): Promise<unknown> {
  return attempt.then(
    () => 'done',
    error => error.code,
  )
}
