import type { z } from 'zod'
import type { outcome } from '../../shared/contract/routes/worker.ts'
import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import type { TransferCode } from '../../shared/domain/transfer-error.ts'
import { type TransferEvent, transition } from '../../shared/domain/transfer-state.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import { addToRules, moveLocks } from '../rules/store.ts'
import { cancelTransfers } from './cancel.ts'
import {
  type Application,
  applyTransitions,
  dropPermits,
  findAttempts,
  findTransfers,
  type HeldTransfer,
  hintWork,
  insertAttempts,
  type NewAttempt,
  setReplicaStates,
} from './outcome-store.ts'

export type ReportedOutcome = z.output<typeof outcome>
export type OutcomeAnswer = 'applied' | 'already-applied' | 'refused'

/** Before an attempt with an unknown end is looked at, and between looks while it grows. Milliseconds. */
const SETTLE_DELAY = 1_000
const GROWING_DELAY = 5_000

interface Decision {
  readonly held: HeldTransfer
  readonly reported: ReportedOutcome
  readonly application: Application
}

/**
 * Applies what a worker reports, as a batch: read, decide in `transition()`, write with guards. The read is outside the
 * transaction, which keeps that short; whoever was overtaken meanwhile is told `refused`, and a repeated report
 * `already-applied`.
 */
export async function applyOutcomes(
  context: Context,
  policy: RetryPolicy,
  sessionId: number,
  outcomes: readonly ReportedOutcome[],
  onApplied?: (held: HeldTransfer, reported: ReportedOutcome) => void,
): Promise<{ transfer: number; fence: number; answer: OutcomeAnswer }[]> {
  const now = context.clock.now()
  const rows = await findTransfers(
    context.db.read,
    outcomes.map(reported => reported.transfer),
  )
  const byId = new Map(rows.map(row => [row.id, row]))
  const decisions = outcomes.flatMap(reported => {
    const held = byId.get(reported.transfer)
    if (held === undefined || held.fence !== reported.fence || held.session_id !== sessionId) return []
    const facts = { state: held.state, attempts: held.attempts, cancelRequested: Boolean(held.cancel_requested) }
    const next = transition(facts, eventOf(reported, context.random.fraction()), now, policy)
    if (next === undefined) return []
    const application = {
      id: held.id,
      fence: held.fence,
      from: held.state,
      to: next.state,
      attempts: next.attempts,
      notBefore: next.notBefore,
    }
    return [{ held, reported, application }]
  })
  const won =
    decisions.length === 0
      ? new Set<number>()
      : await context.db.write(executor => applyDecisions(executor, sessionId, decisions, now))
  for (const { held, reported } of decisions) if (won.has(held.id)) onApplied?.(held, reported)
  if (decisions.some(decision => decision.application.to === 'QUEUED')) context.wake.notify('queue')
  const lost = outcomes.filter(reported => !won.has(reported.transfer))
  const known = lost.length === 0 ? [] : await findAttempts(context.db.read, lost)
  const repeated = new Set(known.map(row => `${row.transfer_id} ${row.fence}`))
  return outcomes.map(({ transfer, fence }) => {
    const answer = won.has(transfer) ? 'applied' : repeated.has(`${transfer} ${fence}`) ? 'already-applied' : 'refused'
    return { transfer, fence, answer }
  })
}

/** What a report means in the transfer's table of events. */
export function eventOf(reported: ReportedOutcome, fraction: number): TransferEvent {
  switch (reported.result) {
    case 'done':
      return { type: 'succeed' }
    case 'unknown':
      return { type: 'lose' }
    case 'handed-back':
      return { type: 'hand-back' }
    case 'absent':
      return { type: 'absent' }
    case 'growing':
      return { type: 'look-again', afterMs: GROWING_DELAY }
    case 'failed': {
      const unexplained = {
        scope: 'GENERAL',
        phase: 'TRANSFER',
        code: 'TRANSFER_FAILED',
        message: 'the worker gave no reason',
        retryable: true,
      } as const
      const { retryAfterSeconds, ...error } = reported.error ?? { ...unexplained, retryAfterSeconds: undefined }
      const failure = {
        ...error,
        code: error.code as TransferCode,
        ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      }
      return { type: 'fail', failure, fraction }
    }
  }
}

async function applyDecisions(
  executor: Executor,
  sessionId: number,
  decisions: readonly Decision[],
  now: number,
): Promise<Set<number>> {
  const applications = decisions.map(({ application, reported }) =>
    reported.result === 'unknown' ? { ...application, notBefore: now + SETTLE_DELAY } : application,
  )
  const won = await applyTransitions(executor, sessionId, applications, now)
  const winners = decisions.filter(decision => won.has(decision.held.id))
  await insertAttempts(
    executor,
    sessionId,
    winners.map(decision => attemptOf(decision, now)),
  )
  const ended = (state: string): number[] =>
    winners.filter(({ application }) => application.to === state).map(({ held }) => held.replica_id)
  const arrived = ended('DONE')
  const failed = ended('FAILED')
  const cancelled = ended('CANCELLED')

  await setReplicaStates(executor, arrived, 'AVAILABLE', now)
  await setReplicaStates(executor, [...failed, ...cancelled], 'UNAVAILABLE', now)
  await addToRules(executor, await moveLocks(executor, arrived, 'REPLICATING', 'OK'), now)
  await addToRules(executor, await moveLocks(executor, arrived, 'STUCK', 'OK'), now)
  await addToRules(executor, await moveLocks(executor, [...failed, ...cancelled], 'REPLICATING', 'STUCK'), now)

  const requeued = winners.filter(({ application }) => application.to === 'QUEUED').map(({ held }) => held)
  await hintWork(
    executor,
    requeued.flatMap(held => held.bundle_id ?? []),
    requeued.flatMap(held => held.link_id ?? []),
  )
  await cancelTransfers(
    executor,
    requeued.map(held => held.replica_id),
    now,
  )
  await dropPermits(
    executor,
    winners.filter(({ reported }) => reported.cleaned).map(({ held }) => held.id),
  )
  return won
}

function attemptOf({ held, reported }: Decision, now: number): NewAttempt {
  const endedAt = now - Math.round(reported.endedMsAgo)
  return {
    transfer_id: held.id,
    fence: held.fence,
    source_rse_id: held.source_rse_id,
    source_grant_id: reported.sourceGrant ?? null,
    destination_grant_id: reported.destinationGrant ?? null,
    mode: reported.mode ?? null,
    outcome: reported.result,
    started_at: endedAt - Math.round(reported.durationMs),
    ended_at: endedAt,
    bytes: reported.bytes,
    scope: reported.error?.scope ?? null,
    phase: reported.error?.phase ?? null,
    code: reported.error?.code ?? null,
    message: reported.error?.message ?? null,
  }
}
