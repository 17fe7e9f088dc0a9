import { expect } from 'chai'
import { cancelTransfers } from '../../server/transfers/cancel.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { failWaiting } from '../../server/transfers/give-up.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { loseTransfers, recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { planTransfers } from '../../server/transfers/plan.ts'
import { moveQueued } from '../../server/transfers/replan-store.ts'
import { starveTransfers } from '../../server/transfers/starve.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import {
  TRANSFER_MACHINE,
  type TransferEvent,
  type TransferEventType,
  type TransferFacts,
  type TransferState,
  transition,
} from '../../shared/domain/transfer-state.ts'
import { databases } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const STATES = Object.keys(TRANSFER_MACHINE) as TransferState[]
const LAST_BUT_ONE = DEFAULT_RETRY_POLICY.maxAttempts - 1
const FAILURE = {
  scope: 'DESTINATION',
  phase: 'TRANSFER',
  code: 'STORAGE_ERROR',
  message: 'it said 500',
  retryable: true,
} as const
const HOPELESS = { ...FAILURE, code: 'PERMISSION_DENIED', retryable: false } as const

interface Row extends TransferFacts {
  readonly id: number
  readonly replicaId: number
  readonly fence: number
  readonly source: number
}

/** What a statement of the store did to a row, to be compared with what the table says of the event. */
interface Case {
  readonly name: string
  readonly event: TransferEvent
  /** Whether somebody holds the transfers when it happens. */
  readonly held: boolean
  /** Where the statement looks at less than every state: the others are not its business. */
  readonly only?: readonly TransferState[]
  /** Nobody wants the replicas any more. */
  readonly unlocked?: boolean
  /** A row that the event is accepted for gets another source, and no other row. */
  readonly moves?: true
  /** The store's own addition to `notBefore`. */
  readonly delay?: number
  apply(world: World, session: number, rows: readonly Row[]): Promise<unknown>
}

const FRACTION = 0.5
const reports: [string, TransferEvent, Partial<ReportedOutcome>, number][] = [
  ['a report of success', { type: 'succeed' }, { result: 'done' }, 0],
  ['a report of an unknown end', { type: 'lose' }, { result: 'unknown' }, 1_000],
  ['work handed back', { type: 'hand-back' }, { result: 'handed-back' }, 0],
  ['a report of absence', { type: 'absent' }, { result: 'absent' }, 0],
  ['a report of growth', { type: 'look-again', afterMs: 5_000 }, { result: 'growing' }, 0],
  [
    'a report of failure',
    { type: 'fail', failure: FAILURE, fraction: FRACTION },
    { result: 'failed', error: FAILURE },
    0,
  ],
  [
    'a hopeless failure',
    { type: 'fail', failure: HOPELESS, fraction: FRACTION },
    { result: 'failed', error: HOPELESS },
    0,
  ],
]

const CASES: readonly Case[] = [
  {
    name: 'planning',
    event: { type: 'release' },
    held: false,
    apply: (world, _session, rows) => world.db.write(e => planTransfers(e, idsOf(rows), world.clock.now())),
  },
  {
    name: 'the end of all ways over other storages',
    event: { type: 'give-up' },
    held: false,
    apply: (world, _session, rows) => world.db.write(e => failWaiting(e, idsOf(rows), 'HOP_FAILED', world.clock.now())),
  },
  {
    name: 'the closing of a link',
    event: { type: 'starve' },
    held: false,
    apply: async world => {
      await world.change('UPDATE links SET distance = 0')
      await starveTransfers(world.db, world.clock.now(), 1_000)
    },
  },
  {
    name: 'a move to another source',
    event: { type: 'replan' },
    held: false,
    moves: true,
    apply: async (world, _session, rows) => {
      const [link] = await world.rows<{ id: number; source: number }>(
        'SELECT link_id AS id, source_rse_id AS source FROM transfers LIMIT 1',
      )
      const leaving = {
        linkId: link?.id ?? 0,
        sourceId: link?.source ?? 0,
        run: undefined,
        code: 'SOURCE_HELD',
        message: '',
      } as const
      await world.db.write(e => moveQueued(e, idsOf(rows), leaving, world.clock.now()))
    },
  },
  {
    name: 'a claim',
    event: { type: 'claim' },
    held: false,
    only: STATES.filter(state => state !== 'SETTLING'),
    apply: (world, session) => world.claim(session, 1_000),
  },
  {
    name: 'a claim to settle',
    event: { type: 'claim' },
    held: false,
    only: STATES.filter(state => state !== 'QUEUED'),
    apply: (world, sessionId) =>
      world.db.write(e => claimToSettle(e, { sessionId, fenceBase: FENCE_BASE }, 1_000, world.clock.now())),
  },
  {
    name: 'progress',
    event: { type: 'copy' },
    held: true,
    // Progress repeats itself.
    only: STATES.filter(other => other !== 'COPYING'),
    apply: (world: World, session: number, rows: readonly Row[]) => {
      const progress = rows.map(({ id, fence }) => ({ transfer: id, fence, state: 'COPYING' as const, bytes: 7 }))
      return world.db.write(e => recordProgress(e, session, progress, world.clock.now()))
    },
  },
  {
    name: 'the end of a session',
    event: { type: 'lose' },
    held: true,
    apply: (world, session) => world.db.write(e => loseTransfers(e, session, 0, world.clock.now())),
  },
  {
    name: 'a cancellation',
    event: { type: 'cancel' },
    held: true,
    unlocked: true,
    apply: (world, _session, rows) =>
      world.db.write(e =>
        cancelTransfers(
          e,
          rows.map(row => row.replicaId),
          world.clock.now(),
        ),
      ),
  },
  ...reports.map(([name, event, report, delay]) => ({
    name,
    event,
    held: true,
    delay,
    apply: (world: World, session: number, rows: readonly Row[]) =>
      applyOutcomes(
        world.context,
        DEFAULT_RETRY_POLICY,
        session,
        rows.map(row => reported(row, report)),
      ),
  })),
]

/** Of storages with a tape: tape.test.ts. */
const UNUSED: readonly TransferEventType[] = ['archive', 'stage', 'online']

for (const { name, open } of databases) {
  describe(`transfers on ${name} move as their table says`, () => {
    for (const test of CASES) {
      it(`${test.name} (${test.event.type}), from every state`, async () => {
        const { db, drop } = await open()
        try {
          const world = await World.make(db, { rses: ['A', 'B', 'C'] })
          const session = await world.openSession()
          const before = await oneOfEach(world, test.held ? session : null, test.unlocked === true)
          await test.apply(world, session, before)
          const after = new Map((await transfers(world)).map(row => [row.id, row]))
          for (const row of before.filter(({ state }) => test.only?.includes(state) ?? true)) {
            const { id, state, attempts, cancelRequested } = row
            const next = transition(
              { state, attempts, cancelRequested },
              test.event,
              world.clock.now(),
              DEFAULT_RETRY_POLICY,
            )
            const found = after.get(id)
            const where = `${state}, attempts ${attempts}, cancelled ${cancelRequested}`
            expect(found?.state, where).to.equal(next?.state ?? state)
            expect(found?.attempts, where).to.equal(next?.attempts ?? attempts)
            expect(found?.cancelRequested, where).to.equal(next?.cancelRequested ?? cancelRequested)
            if (next !== undefined && (next.notBefore > 0 || test.delay !== undefined)) {
              const delay = next.notBefore === 0 && test.delay ? world.clock.now() + test.delay : next.notBefore
              expect(found?.notBefore, where).to.equal(delay)
            }
            if (test.moves) expect(found?.source !== row.source, where).to.equal(next !== undefined)
            if (next === undefined) expect(found, where).to.deep.include({ fence: row.fence })
          }
        } finally {
          await drop()
        }
      })
    }
  })
}

describe('the table of transfers', () => {
  it('has no event that is neither tested nor known to be unused', () => {
    const events = new Set(Object.values(TRANSFER_MACHINE).flatMap(row => Object.keys(row)))
    expect([...events]).to.have.members([...new Set(CASES.map(({ event }) => event.type)), ...UNUSED])
  })
})

/** A transfer in each state, with few and with almost all attempts used, marked for cancellation or not. */
async function oneOfEach(world: World, session: number | null, unlocked: boolean): Promise<Row[]> {
  const combinations = STATES.flatMap(state =>
    [0, LAST_BUT_ONE].flatMap(attempts => [false, true].map(cancelled => ({ state, attempts, cancelled }))),
  )
  for (const rse of ['A', 'C']) await world.dataset('d', combinations.length, rse)
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.grantAll()
  const ids = (await transfers(world)).map(row => row.id)
  for (const [i, { state, attempts, cancelled }] of combinations.entries()) {
    await world.change(
      `UPDATE transfers SET state = :state, attempts = :attempts, cancel_requested = :cancelled, session_id = :session, fence = :fence
        WHERE id = :id`,
      { state, attempts, cancelled, session, fence: FENCE_BASE + 1, id: ids[i] ?? 0 },
    )
  }
  if (unlocked) {
    await world.change('DELETE FROM locks')
    await world.change('UPDATE replicas SET lock_count = 0')
  }
  return transfers(world)
}

async function transfers(world: World): Promise<(Row & { notBefore: number })[]> {
  const rows = await world.rows<{
    id: number
    replica_id: number
    fence: number
    state: TransferState
    attempts: number
    cancel_requested: number | boolean
    not_before: number
    source_rse_id: number
  }>('SELECT * FROM transfers ORDER BY id')
  return rows.map(row => ({
    id: row.id,
    replicaId: row.replica_id,
    fence: row.fence,
    state: row.state,
    attempts: row.attempts,
    cancelRequested: Boolean(row.cancel_requested),
    notBefore: row.not_before,
    source: row.source_rse_id,
  }))
}

function idsOf(rows: readonly Row[]): number[] {
  return rows.map(row => row.id)
}

function reported(row: Row, report: Partial<ReportedOutcome>): ReportedOutcome {
  const times = { durationMs: 10, endedMsAgo: 0 }
  return {
    transfer: row.id,
    fence: row.fence,
    result: 'done',
    bytes: 0,
    cleaned: false,
    left: 'unknown',
    ...times,
    ...report,
  }
}
