import { expect } from 'chai'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { isLastLook, lookDelay, settleShare } from '../../server/transfers/settling.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const REFUSED = {
  scope: 'DESTINATION',
  phase: 'FINALIZATION',
  code: 'PERMISSION_DENIED',
  message: 'DELETE answered 403',
  retryable: false,
} as const
const GONE = { ...REFUSED, code: 'CONNECT_FAILED', message: 'connection refused', retryable: true } as const
const NO_TOKEN = { ...GONE, scope: 'TOKEN', code: 'ISSUER_UNREACHABLE' } as const

describe('looks at a destination', () => {
  for (const [looks, seconds] of [
    [0, 5],
    [1, 10],
    [5, 160],
    [6, 300],
    [250, 300],
  ] as const) {
    it(`number ${looks + 2} comes ${seconds} s after the one before`, () => {
      expect(lookDelay({ looks, inVain: 0 })).to.equal(seconds * 1_000)
    })
  }

  for (const [earlier, failure, last] of [
    [{ looks: 6, inVain: 6 }, GONE, false],
    [{ looks: 7, inVain: 7 }, GONE, true],
    [{ looks: 200, inVain: 6 }, GONE, false],
    [{ looks: 7, inVain: 7 }, undefined, false],
    [{ looks: 298, inVain: 0 }, undefined, false],
    [{ looks: 299, inVain: 0 }, undefined, true],
    [{ looks: 298, inVain: 7 }, NO_TOKEN, false],
    [{ looks: 299, inVain: 0 }, NO_TOKEN, true],
    [{ looks: 299, inVain: 0 }, { scope: 'GENERAL', code: 'PERMIT_LATE' }, true],
    [{ looks: 7, inVain: 7 }, { ...NO_TOKEN, code: 'TOKEN_NARROWER' }, true],
    [{ looks: 7, inVain: 7 }, { ...NO_TOKEN, code: 'TOKEN_REFUSED' }, true],
    [{ looks: 7, inVain: 7 }, { scope: 'GENERAL', code: 'PERMIT_LATE' }, false],
  ] as const) {
    const words = `${failure?.code ?? 'a file that grows'} after ${earlier.looks} looks, ${earlier.inVain} in vain`
    it(`${words}: ${last ? 'is the last' : 'is not the last'}`, () => {
      expect(isLastLook(earlier, failure)).to.equal(last)
    })
  }

  for (const [limit, fraction, share] of [
    [8, 0, 4],
    [8, 0.99, 4],
    [5, 0.49, 2],
    [5, 0.5, 3],
    [1, 0.49, 0],
    [1, 0.5, 1],
  ] as const) {
    it(`take ${share} of a claim of ${limit}, by chance ${fraction}`, () => {
      expect(settleShare(limit, fraction)).to.equal(share)
    })
  }
})

for (const { name, open } of databases) {
  describe(`settling on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
    })
    afterEach(() => test.drop())

    async function lost(files: number): Promise<void> {
      await world.dataset('d', files, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const session = await world.openSession()
      expect(await world.claim(session, files)).to.have.length(files)
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
    }

    /** Looks once, as soon as it may; what the transfer is then. */
    async function look(error: ReportedOutcome['error']) {
      const notBefore = await world.number('SELECT not_before AS n FROM transfers')
      await world.clock.advance(Math.max(0, notBefore - world.clock.now()))
      const session = await world.openSession(1e9)
      const claimant = { sessionId: session, fenceBase: FENCE_BASE }
      const [row] = await test.db.write(e => claimToSettle(e, claimant, 1, world.clock.now()))
      if (row === undefined) throw new Error('nothing is to be settled')
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 0, cleaned: false, left: 'unknown' as const }
      const outcome = { transfer: row.id, fence: row.fence, result: 'growing' as const, ...numbers }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [
        { ...outcome, ...(error === undefined ? {} : { error }) },
      ])
      const [transfer] = await world.rows<{ state: string; attempts: number; not_before: number }>(
        'SELECT state, attempts, not_before FROM transfers',
      )
      const { state, attempts, not_before } = transfer ?? { state: '', attempts: 0, not_before: 0 }
      return { state, attempts, delay: not_before - world.clock.now() }
    }

    it('ends when the storage lets nobody remove what lies there, with the storage’s words', async () => {
      await lost(1)
      for (const seconds of [5, 10, 20, 40, 80, 160, 300]) {
        expect(await look(REFUSED)).to.deep.equal({ state: 'SETTLING', attempts: 0, delay: seconds * 1_000 })
      }
      expect(await look(REFUSED)).to.include({ state: 'FAILED', attempts: 1 })
      expect(await world.rows('SELECT outcome, code, message FROM attempts ORDER BY id DESC LIMIT 1')).to.deep.equal([
        { outcome: 'failed', code: 'PERMISSION_DENIED', message: 'DELETE answered 403' },
      ])
      expect(await world.rows('SELECT state, locks_stuck FROM rules')).to.deep.equal([
        { state: 'STUCK', locks_stuck: 1 },
      ])
    })

    it('ends when the issuer gives no token to remove what lies there, and gives back the slots', async () => {
      await lost(1)
      const narrower = { ...NO_TOKEN, code: 'TOKEN_NARROWER', retryable: false }
      for (let i = 0; i < 7; i++) expect((await look(narrower)).state).to.equal('SETTLING')
      expect(await look(narrower)).to.include({ state: 'FAILED', attempts: 1 })
      expect(await world.rows('SELECT state, locks_stuck FROM rules')).to.deep.equal([
        { state: 'STUCK', locks_stuck: 1 },
      ])
    })

    it('that removes what an interrupted attempt left costs no attempt', async () => {
      await lost(1)
      const session = await world.openSession(1e9)
      const claimant = { sessionId: session, fenceBase: FENCE_BASE }
      const [row] = await test.db.write(e => claimToSettle(e, claimant, 1, world.clock.now()))
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 0, cleaned: true, left: 'nothing' as const }
      const removed = { ...GONE, scope: 'TRANSFER', code: 'OUTCOME_UNKNOWN' } as const
      const outcome = { transfer: row?.id ?? 0, fence: row?.fence ?? 0, result: 'failed' as const, error: removed }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [{ ...outcome, ...numbers }])
      expect(await world.rows('SELECT state, attempts, written_fence FROM transfers')).to.deep.equal([
        { state: 'QUEUED', attempts: 0, written_fence: null },
      ])
    })

    it('of the next attempt begins to count anew', async () => {
      await lost(1)
      for (let i = 0; i < 7; i++) await look(GONE)
      expect(await look(GONE)).to.include({ state: 'WAITING', attempts: 1 })
      await world.change("UPDATE transfers SET state = 'SETTLING', not_before = 0")
      expect(await look(GONE)).to.deep.equal({ state: 'SETTLING', attempts: 1, delay: 5_000 })
    })

    it('waits for an issuer that is away', async () => {
      await lost(1)
      for (let i = 0; i < 12; i++) expect((await look(NO_TOKEN)).state).to.equal('SETTLING')
    })

    it('takes half of a claim where other work waits, and its chance in a claim of one', async () => {
      await lost(6)
      await world.dataset('other', 6, 'A')
      await world.addRule('other', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const claimant = { sessionId: await world.openSession(), fenceBase: FENCE_BASE }
      const states = async (limit: number): Promise<string[]> =>
        (await claimWork(world.context, claimant, limit)).map(row => row.state)
      expect(await states(4)).to.deep.equal(['SETTLING', 'SETTLING', 'CLAIMED', 'CLAIMED'])
      // Chance is the middle here: a claim of one is a look.
      expect(await states(1)).to.deep.equal(['SETTLING'])
      const copying = { ...world.context, random: { ...world.context.random, fraction: () => 0 } }
      const claimOne = async (): Promise<string[]> => (await claimWork(copying, claimant, 1)).map(row => row.state)
      expect(await claimOne()).to.deep.equal(['CLAIMED'])
      await world.change("DELETE FROM transfers WHERE state = 'QUEUED'")
      expect(await claimOne()).to.deep.equal(['SETTLING'])
    })
  })
}
