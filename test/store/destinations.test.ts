import { expect } from 'chai'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { HOLD } from '../../server/transfers/health.ts'
import { liftHolds } from '../../server/transfers/lift-store.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { replanner } from '../../server/transfers/replan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const FULL = {
  scope: 'DESTINATION',
  phase: 'TRANSFER',
  code: 'DESTINATION_FULL',
  message: 'no space left on device',
  retryable: true,
} as const
const BUSY = { ...FULL, code: 'STORAGE_BUSY', message: '503', retryAfterSeconds: 300 } as const

for (const { name, open } of databases) {
  describe(`destinations that fail, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      await world.dataset('d', 40, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      session = await world.openSession(86_400_000)
    })
    afterEach(() => test.drop())

    const claim = (limit: number) => claimWork(world.context, { sessionId: session, fenceBase: FENCE_BASE }, limit)
    async function report(
      claimed: readonly { id: number; fence: number }[],
      outcome: Pick<ReportedOutcome, 'result' | 'error'>,
    ): Promise<void> {
      const numbers = {
        durationMs: 10,
        endedMsAgo: 0,
        bytes: 1,
        cleaned: false,
        left: 'nothing',
        mode: 'pull',
      } as const
      const outcomes = claimed.map(({ id: transfer, fence }) => ({ transfer, fence, ...numbers, ...outcome }))
      const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      expect(answers.filter(({ answer }) => answer !== 'applied')).to.deep.equal([])
    }
    const ids = (rows: readonly { id: number }[]) => rows.map(({ id }) => id)

    it('for want of space are left alone at once, and cost no attempt', async () => {
      const [first, ...others] = await claim(5)
      await report(first ? [first] : [], { result: 'failed', error: FULL })
      expect(await claim(10), 'held').to.deep.equal([])
      // What was on its way ends as it does.
      await report(others, { result: 'failed', error: FULL })
      expect(await world.rows('SELECT state, attempts, reason FROM transfers ORDER BY id LIMIT 2')).to.deep.equal(
        Array(2).fill({ state: 'WAITING', attempts: 0, reason: 'BACKOFF' }),
      )
      expect(await world.number('SELECT holds AS n FROM destination_health')).to.equal(1)
      expect(await world.number(`SELECT count(*) AS n FROM attempts WHERE code = 'DESTINATION_FULL'`)).to.equal(5)
    })

    it('for want of space are tried by one file, then by others, less and less often', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      const tried: number[] = []
      for (const minutes of [1, 2, 4]) {
        await world.clock.advance(minutes * 60_000 - 1)
        await world.run(transferReleaser)
        expect(await claim(10), 'held').to.deep.equal([])
        await world.clock.advance(1)
        const trial = await claim(10)
        expect(trial, 'on trial').to.have.length(1)
        expect(await claim(10), 'while it is tried').to.deep.equal([])
        tried.push(...ids(trial))
        await report(trial, { result: 'failed', error: FULL })
      }
      expect(new Set(tried).size, 'another file each time').to.equal(3)
    })

    it('that have room again take more with each file that arrives', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      await world.clock.advance(60_000)
      for (const more of [1, 2, 4]) {
        const claimed = await claim(30)
        expect(claimed).to.have.length(more)
        await report(claimed, { result: 'done' })
      }
    })

    it('that say when to come back are left alone until then', async () => {
      await report(await claim(1), { result: 'failed', error: BUSY })
      await world.clock.advance(299_999)
      expect(await claim(10)).to.deep.equal([])
      await world.clock.advance(1)
      expect(await claim(10)).to.have.length(1)
    })

    it('that say so again on trial are left alone until then, though others succeed', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      await world.clock.advance(60_000)
      for (let trial = 0; trial < 4; trial += 1) await report(await claim(4), { result: 'done' })
      const [first, second] = [await claim(1), await claim(1)]
      await world.clock.advance(1)
      await report(first, { result: 'failed', error: BUSY })
      await report(second, { result: 'done' })
      expect(await claim(10)).to.deep.equal([])
      await world.clock.advance(299_999)
      expect(await claim(10)).to.deep.equal([])
      await world.clock.advance(1)
      expect(await claim(10)).to.have.length(1)
    })

    it('that took something on trial are as any other ten minutes later', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      await world.clock.advance(60_000)
      await report(await claim(1), { result: 'done' })
      const left = async (ms: number) => {
        await world.clock.advance(ms)
        await world.run(replanner)
        return world.number('SELECT count(*) AS n FROM destination_health')
      }
      expect(await left(HOLD.forgetAfter)).to.equal(1)
      expect(await left(1)).to.equal(0)
      expect((await claim(10)).length).to.be.above(2)
    })

    it('are on trial at once when an admin asks for it, and the file that failed may try', async () => {
      await report(await claim(1), { result: 'failed', error: { ...BUSY, retryAfterSeconds: 3_600 } })
      await world.change(`DELETE FROM transfers WHERE state = 'QUEUED'`)
      await world.run(transferReleaser)
      expect(await claim(10)).to.deep.equal([])
      const b = (await world.rse('B')).id
      const lift = (rseId: number) => test.db.write(e => liftHolds(e, rseId, world.clock.now()))
      expect(await lift((await world.rse('C')).id), 'another').to.equal(0)
      expect(await lift(b)).to.equal(1)
      await world.run(transferReleaser)
      const trial = await claim(10)
      expect(trial).to.have.length(1)
      await report(trial, { result: 'failed', error: FULL })
      expect(await world.rows('SELECT holds, code FROM destination_health')).to.deep.equal([
        { holds: 2, code: 'DESTINATION_FULL' },
      ])
    })

    it('do not hold up what goes elsewhere', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      await world.dataset('e', 3, 'A')
      await world.addRule('e', 'C', 1)
      await world.evaluate()
      await world.grantAll()
      expect(await claim(10)).to.have.length(3)
    })

    it('that are full for one VO take what another sends', async () => {
      await report(await claim(1), { result: 'failed', error: FULL })
      const other = await world.number(`INSERT INTO vos (name) VALUES ('other') RETURNING id AS n`)
      await world.change('UPDATE bundles SET vo_id = :other', { other })
      await world.change('UPDATE transfers SET vo_id = :other', { other })
      expect(await claim(10)).to.have.length(10)
    })

    it('that are full for one VO, or tried by it, leave another its priorities and shares', async () => {
      const other = await world.number(`INSERT INTO vos (name) VALUES ('other') RETURNING id AS n`)
      for (const [did, priority, activity] of [
        ['idle', 1, 'x'],
        ['urgent', 5, 'x'],
        ['also', 5, 'y'],
      ] as const) {
        await world.dataset(did, 10, 'A')
        await world.addRule(did, 'B', 1, priority, activity)
      }
      await world.evaluate()
      await world.grantAll()
      await report(await claim(1), { result: 'failed', error: FULL })
      for (const table of ['bundles', 'transfers'])
        await world.change(`UPDATE ${table} SET vo_id = :other WHERE activity <> 'test'`, { other })
      // They have failed before, by another storage's fault.
      await world.change("UPDATE transfers SET attempts = 1 WHERE activity <> 'test' AND priority = 5")
      const taken = async (limit: number) => {
        await claim(limit)
        return world.rows(
          `SELECT activity, priority, count(*) AS n FROM transfers WHERE state = 'CLAIMED' GROUP BY 1, 2 ORDER BY 1, 2`,
        )
      }
      expect(await taken(4), 'held').to.deep.equal([
        { activity: 'x', priority: 5, n: 2 },
        { activity: 'y', priority: 5, n: 2 },
      ])
      await world.clock.advance(60_000)
      expect(await taken(5), 'on trial').to.deep.equal([
        { activity: 'test', priority: 3, n: 1 },
        { activity: 'x', priority: 5, n: 4 },
        { activity: 'y', priority: 5, n: 4 },
      ])
    })

    it('are told once, however many workers fail at once', async () => {
      const claimed = await claim(20)
      await Promise.all(claimed.map(one => report([one], { result: 'failed', error: FULL })))
      expect(await world.rows('SELECT holds FROM destination_health')).to.deep.equal([{ holds: 1 }])
    })
  })
}
