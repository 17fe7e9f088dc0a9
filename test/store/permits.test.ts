import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes, type OutcomeAnswer } from '../../server/transfers/outcomes.ts'
import { grantPermit, prunePermits } from '../../server/transfers/permits.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FAILURE, FENCE_BASE, World } from './world.ts'

type Result = ReportedOutcome['result']
type Left = ReportedOutcome['left']

for (const { name, open } of databases) {
  describe(`permits on ${name}`, () => {
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
      results: readonly [{ id: number; fence: number }, Result, Left?, boolean?][],
    ): Promise<OutcomeAnswer[]> {
      const outcomes = results.map(([{ id, fence }, result, left = 'unknown', cleaned = false]) => ({
        transfer: id,
        fence,
        result,
        durationMs: 10,
        endedMsAgo: 0,
        bytes: 5,
        cleaned,
        left,
        ...(result === 'failed' ? { error: FAILURE } : {}),
      }))
      return (await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, by, outcomes)).map(({ answer }) => answer)
    }
    const nth = (i: number): { id: number; fence: number } => claimed[i] ?? { id: 0, fence: 0 }

    describe('to clean up', () => {
      const permit = (fence = nth(0).fence, sessionId = session): Promise<unknown> =>
        test.db.write(e => grantPermit(e, { sessionId, transfer: nth(0).id, fence, written: true }, world.clock.now()))

      it('are for whoever holds the transfer, and never for a file that is verified', async () => {
        expect(await permit()).to.deep.include({ top: '/data/s/d', voId: world.voId })
        expect(await codeOf(permit(nth(0).fence + 1))).to.equal('PERMIT_REFUSED')
        expect(await codeOf(permit(nth(0).fence, await world.openSession()))).to.equal('PERMIT_REFUSED')
        await world.change("UPDATE replicas SET state = 'AVAILABLE'")
        expect(await codeOf(permit())).to.equal('PERMIT_REFUSED')
      })

      describe('for what this attempt did not write', () => {
        /** Whether the holder of the first transfer, which wrote nothing itself, may remove what lies there. */
        const mayRemove = async (): Promise<boolean> => {
          await world.clock.advance(70_000)
          await test.db.write(e => prunePermits(e, world.clock.now()))
          const by = await world.openSession()
          await world.change(
            `UPDATE transfers SET state = 'CLAIMED', session_id = ${by}, fence = fence + 1 WHERE id = ${nth(0).id}`,
          )
          const fence = await world.number(`SELECT fence AS n FROM transfers WHERE id = ${nth(0).id}`)
          const held = { sessionId: by, transfer: nth(0).id, fence, written: false }
          return (await codeOf(test.db.write(e => grantPermit(e, held, world.clock.now())))) === 'done'
        }
        const copying = (): Promise<void> =>
          test.db.write(e =>
            recordProgress(
              e,
              session,
              [{ ...nth(0), transfer: nth(0).id, state: 'COPYING', bytes: 0 }],
              world.clock.now(),
            ),
          )
        const ended = (): Promise<unknown> =>
          test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))

        const histories: [string, () => Promise<unknown>, boolean][] = [
          ['nothing happened before', async () => undefined, false],
          ['an earlier attempt reached nobody', () => report(session, [[nth(0), 'failed']]), false],
          ['a worker was lost before its COPY was taken', ended, false],
          ['a worker was lost after its COPY was taken', () => copying().then(ended), true],
          ['a COPY got no answer', () => report(session, [[nth(0), 'unknown']]), false],
          ['a COPY that was taken got no end', () => report(session, [[nth(0), 'unknown', 'own']]), true],
          ['a failed one may have left something', () => report(session, [[nth(0), 'failed', 'own']]), true],
          [
            'one was taken, but wrote nothing in the end',
            () => copying().then(() => report(session, [[nth(0), 'failed']])),
            false,
          ],
          [
            'what one left is gone',
            () => copying().then(() => report(session, [[nth(0), 'failed', 'nothing']])),
            false,
          ],
          [
            'another transfer to the same place left something',
            async () => {
              await report(session, [[nth(0), 'failed', 'own']])
              await world.change(
                `INSERT INTO transfers (replica_id, destination_rse_id, vo_id, account_id, activity, priority, bytes, state,
                   attempts, not_before, fence, bytes_done, cancel_requested, created_at, updated_at, written_fence)
                 SELECT replica_id, destination_rse_id, vo_id, account_id, activity, priority, bytes, 'FAILED', 1, 0, fence, 0,
                   false, 0, 0, written_fence FROM transfers WHERE id = ${nth(0).id}`,
              )
              await world.change(`UPDATE transfers SET written_fence = NULL WHERE id = ${nth(0).id}`)
            },
            true,
          ],
        ]
        for (const [what, happen, may] of histories) {
          it(`${what}: ${may ? 'it may go' : 'it stays'}`, async () => {
            await happen()
            expect(await mayRemove()).to.equal(may)
          })
        }

        for (const [result, may] of [
          ['growing', true],
          ['absent', false],
        ] as const) {
          it(`an earlier one was looked at, and found ${result}: ${may ? 'it may go' : 'it stays'}`, async () => {
            await copying()
            await ended()
            const next = await world.openSession(1e9)
            const claimed = await test.db.write(e =>
              claimToSettle(e, { sessionId: next, fenceBase: FENCE_BASE }, 4, world.clock.now()),
            )
            const first = claimed.find(({ id }) => id === nth(0).id) ?? nth(0)
            expect(await report(next, [[first, result]])).to.deep.equal(['applied'])
            expect(await mayRemove()).to.equal(may)
          })
        }
      })

      it('are not for a storage that is closed for deletions, until it is opened', async () => {
        await world.change("UPDATE rses SET availability_delete = false WHERE name = 'B'")
        expect(await codeOf(permit())).to.equal('RSE_NOT_DELETABLE')
        expect(await world.number('SELECT count(*) AS n FROM permits')).to.equal(0)
        await world.change('UPDATE rses SET availability_delete = true')
        expect(await codeOf(permit())).to.equal('done')
      })

      it('keep the path free of new attempts until they are surely over', async () => {
        await permit()
        expect(await report(session, [[nth(0), 'handed-back']])).to.deep.equal(['applied'])
        expect(await world.claim(session, 1)).to.deep.equal([])
        await world.clock.advance(60_000)
        await test.db.write(e => prunePermits(e, world.clock.now()))
        expect((await world.claim(session, 1)).map(row => row.id)).to.deep.equal([nth(0).id])
      })

      it('cost who waits for work no write', async () => {
        await permit()
        await report(session, [[nth(0), 'handed-back']])
        const claimant = { sessionId: session, fenceBase: FENCE_BASE }
        const db: Database = { ...test.db, write: () => Promise.reject(new Error('it writes')) }
        expect(await claimWork({ ...world.context, db }, claimant, 1, true)).to.deep.equal([])
        await world.clock.advance(61_000)
        expect(await claimWork(world.context, claimant, 1, true)).to.have.length(1)
      })
    })

    // A late clean-up of a dead worker destroyed a later attempt's good file: facts/transfers.md, DIRAC #8465.
    describe('of a worker that died', () => {
      const permit = (by: number, fence: number): Promise<unknown> =>
        test.db.write(e =>
          grantPermit(e, { sessionId: by, transfer: nth(0).id, fence, written: true }, world.clock.now()),
        )
      const settle = async (by: number): Promise<{ id: number; fence: number }[]> =>
        test.db.write(e => claimToSettle(e, { sessionId: by, fenceBase: FENCE_BASE }, 1, world.clock.now()))

      it('keep others from settling the transfer while its DELETE may still arrive', async () => {
        await permit(session, nth(0).fence)
        await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
        await world.change(`DELETE FROM transfers WHERE id <> ${nth(0).id}`)
        const next = await world.openSession()
        expect(await settle(next)).to.deep.equal([])
        await world.clock.advance(60_000)
        expect((await settle(next)).map(row => row.id)).to.deep.equal([nth(0).id])
      })

      it('are not ended by the answer to a DELETE of another transfer that was claimed as often', async () => {
        await permit(session, nth(0).fence)
        // The replica's next transfer: its first claim has the same fence.
        await world.change(`UPDATE permits SET transfer_id = ${nth(0).id + 1000}`)
        await permit(session, nth(0).fence)
        await report(session, [[nth(0), 'handed-back', 'nothing', true]])
        expect(await world.number('SELECT count(*) AS n FROM permits')).to.equal(1)
        expect(await world.claim(session, 1)).to.deep.equal([])
      })

      it('are not ended by the answer to somebody else’s DELETE', async () => {
        await permit(session, nth(0).fence)
        const next = await world.openSession()
        await world.change(`UPDATE transfers SET session_id = ${next}, fence = fence + 1 WHERE id = ${nth(0).id}`)
        const fence = nth(0).fence + 1
        await permit(next, fence)
        const outcome = { transfer: nth(0).id, fence, durationMs: 1, endedMsAgo: 0, bytes: 0 }
        await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, next, [
          { ...outcome, result: 'handed-back', cleaned: true, left: 'nothing' },
        ])
        await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
        await world.change("DELETE FROM transfers WHERE state = 'SETTLING'")
        expect(await world.claim(next, 1)).to.deep.equal([])
        await world.clock.advance(60_000)
        expect((await world.claim(next, 1)).map(row => row.id)).to.deep.equal([nth(0).id])
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
