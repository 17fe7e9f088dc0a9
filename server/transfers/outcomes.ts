import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import { isEnded, transition } from '../../shared/domain/transfer-state.ts'
import { holdFilesOf } from '../catalogue/hold-files.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import { type Suspicion, suspectReplicas } from '../faults/look.ts'
import { condemnReplicas, type Fault, FOUND, isAnyAtFault } from '../faults/store.ts'
import { stuckBeside } from '../rules/arrivals.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { recopy } from '../rules/recopy.ts'
import { addToRules } from '../rules/store.ts'
import { addToTasks } from '../tasks/store.ts'
import { hintWork } from './bundles.ts'
import { cancelTransfers } from './cancel.ts'
import type { EndedAttempt } from './health.ts'
import { type Failing, type HealthChanges, judgeStorages, whatFails } from './health-store.ts'
import { earlierLooks, earlierLosses, failedBefore, withAnotherSource } from './history.ts'
import { markHops } from './hop-store.ts'
import { eventOf, failedAt, isSourceGone, judge, leftBy, type ReportedOutcome } from './outcome-decision.ts'
import {
  type Application,
  applyTransitions,
  findAttempts,
  findTransfers,
  forgetWritten,
  type HeldTransfer,
  insertAttempts,
  type NewAttempt,
} from './outcome-store.ts'
import { type EndedCopy, isLinkFailure, sumByLink } from './pace.ts'
import { addToMinutes } from './pace-store.ts'
import { dropPermits } from './permits.ts'
import { withWay } from './ways.ts'

export type OutcomeAnswer = 'applied' | 'already-applied' | 'refused'

/** Before an attempt with an unknown end is looked at. Milliseconds. */
const SETTLE_DELAY = 1_000
/** What was kept so long, while the server was away, held its place for that and not for its copy. Milliseconds. */
const LATE = 10_000

interface Decision {
  readonly held: HeldTransfer
  readonly reported: ReportedOutcome
  /** What it comes to. */
  readonly judged: ReportedOutcome
  /** The storage that failed it has failed it before. */
  readonly again: boolean
  readonly application: Application
}

/** How often a report is decided anew when the row moved between the look and the write: a heartbeat, a cancellation. */
const LOOKS = 5

/**
 * Applies what a worker reports, as a batch: read, decide in `transition()`, write with guards. The read is outside the
 * transaction, which keeps that short; what was overtaken meanwhile is looked at again. `refused`: the transfer is not the
 * session's, or not in a state for it; a repeated report hears `already-applied`.
 */
export async function applyOutcomes(
  context: Context,
  policy: RetryPolicy,
  sessionId: number,
  outcomes: readonly ReportedOutcome[],
  onApplied?: (held: HeldTransfer, reported: ReportedOutcome) => void,
): Promise<{ transfer: number; fence: number; answer: OutcomeAnswer }[]> {
  const applied = new Set<ReportedOutcome>()
  let open = outcomes
  for (let look = 0; look < LOOKS && open.length > 0; look += 1) {
    const now = context.clock.now()
    const decisions = await decide(context, policy, sessionId, open, now)
    if (decisions.length === 0) break
    const known = { failing: await whatFails(context.db.read), atFault: await isAnyAtFault(context.db.read) }
    const { won, health } = await context.db.write(executor =>
      applyDecisions(executor, sessionId, decisions, known, now),
    )
    for (const { key, code } of health.held) context.log.warn({ ...key, code }, 'a storage fails and is held back')
    for (const decision of decisions) {
      if (!won.has(decision.held.id)) continue
      applied.add(decision.reported)
      onApplied?.(decision.held, decision.judged)
    }
    if (health.freed || decisions.some(decision => decision.application.to === 'QUEUED')) context.wake.notify('queue')
    // Their slots are free: without this a link at its limit gets new work once in LOOK_AGAIN_MS only.
    else if (won.size > 0) context.wake.notifyOne('queue')
    open = decisions.filter(({ held }) => !won.has(held.id)).map(({ reported }) => reported)
  }
  const lost = outcomes.filter(reported => !applied.has(reported))
  const known = lost.length === 0 ? [] : await findAttempts(context.db.read, lost)
  const repeated = new Set(known.map(row => `${row.transfer_id} ${row.fence}`))
  return outcomes.map(reported => {
    const { transfer, fence } = reported
    const otherwise = repeated.has(`${transfer} ${fence}`) ? 'already-applied' : 'refused'
    return { transfer, fence, answer: applied.has(reported) ? 'applied' : otherwise }
  })
}

/** What becomes of those transfers that the session holds. Of several reports on one attempt only the first can count. */
async function decide(
  context: Context,
  policy: RetryPolicy,
  sessionId: number,
  outcomes: readonly ReportedOutcome[],
  now: number,
): Promise<Decision[]> {
  const rows = await findTransfers(
    context.db.read,
    outcomes.map(reported => reported.transfer),
  )
  const byId = new Map(rows.map(row => [row.id, row]))
  const gone = outcomes.filter(({ result, cleaned }) => result === 'absent' || cleaned).map(({ transfer }) => transfer)
  const losses = await earlierLosses(context.db.read, gone)
  const growing = outcomes.filter(({ result }) => result === 'growing').map(({ transfer }) => transfer)
  const looks = await earlierLooks(context.db.read, growing)
  const sourceGone = outcomes.filter(isSourceGone).map(({ transfer }) => transfer)
  const elsewhere = await withAnotherSource(context.db.read, sourceGone)
  const over = await withWay(
    context,
    sourceGone.filter(id => !elsewhere.has(id)),
  )
  const again = await failedBefore(context.db.read, outcomes.flatMap(failedAt))
  const tapes = new Set((await context.storages.all()).filter(rse => rse.tape).map(rse => rse.id))
  return outcomes.flatMap(reported => {
    const held = byId.get(reported.transfer)
    if (held === undefined || held.fence !== reported.fence || held.session_id !== sessionId) return []
    const { id, fence, state: from, attempts } = held
    const cancelRequested = Boolean(held.cancel_requested)
    const interrupted = from === 'SETTLING' && !losses.has(id)
    const judged = judge(reported, looks.get(id), interrupted)
    const archives = Boolean(held.archive) && held.bytes > 0 && tapes.has(held.destination_rse_id)
    const history = {
      archives,
      loss: losses.get(id),
      elsewhere: elsewhere.has(id) || over.has(id),
      looks: looks.get(id),
    }
    const event = eventOf(judged, context.random.fraction(), history)
    const next = transition({ state: from, attempts, cancelRequested }, event, now, policy)
    if (next === undefined) return []
    byId.delete(id)
    const { state: to, notBefore } = next
    return [
      {
        held,
        reported,
        judged,
        again: again.has(id),
        application: {
          id,
          fence,
          from,
          to,
          attempts: next.attempts,
          cancelRequested,
          notBefore,
          left: archives && reported.result === 'done' ? 'own' : leftBy(reported),
        },
      },
    ]
  })
}

async function applyDecisions(
  executor: Executor,
  sessionId: number,
  decisions: readonly Decision[],
  { failing, atFault }: { readonly failing: Failing; readonly atFault: boolean },
  now: number,
): Promise<{ won: Set<number>; health: HealthChanges }> {
  const applications = decisions.map(({ application, reported }) =>
    reported.result === 'unknown' ? { ...application, notBefore: now + SETTLE_DELAY } : application,
  )
  const done = decisions.filter(({ application }) => application.to === 'DONE').map(({ held }) => held.replica_id)
  // Of a file that nobody had any more there is a copy again, which one that was under way when that was found has brought.
  const stuck = atFault ? await stuckBeside(executor, done) : []
  await holdFilesOf(
    executor,
    decisions.flatMap(faultsOf).map(({ replica_id }) => replica_id),
    [...decisions.map(({ held }) => held.replica_id), ...stuck.map(({ id }) => id)],
  )
  const won = await applyTransitions(executor, sessionId, applications, now)
  const winners = decisions.filter(decision => won.has(decision.held.id))
  await markHops(
    executor,
    winners.filter(({ application }) => isEnded(application.to)).map(({ held }) => held.id),
  )
  const clear = winners.filter(({ application }) => application.left === 'nothing')
  await forgetWritten(
    executor,
    clear.map(({ held }) => held.replica_id),
  )
  await insertAttempts(
    executor,
    sessionId,
    winners.map(decision => attemptOf(decision, now)),
  )
  const endedAs = (state: string): number[] =>
    winners.filter(({ application }) => application.to === state).map(({ held }) => held.replica_id)
  const arrived = endedAs('DONE')
  const failed = [...endedAs('FAILED'), ...endedAs('CANCELLED')]

  await awaitTape(executor, winners, now)
  await moveReplicas(executor, arrived, 'succeed', now)
  await moveReplicas(executor, failed, 'fail', now)
  const deltas = [
    ...(await moveLocks(executor, arrived, 'succeed')),
    ...(await moveLocks(executor, failed, 'fail')),
    ...(await condemnReplicas(executor, winners.flatMap(faultsOf), now)),
  ]
  await suspectReplicas(executor, winners.flatMap(suspicionsOf), now)

  const requeued = winners.filter(({ application }) => application.to === 'QUEUED').map(({ held }) => held)
  await hintWork(
    executor,
    requeued.flatMap(held => held.bundle_id ?? []),
    requeued.flatMap(held => held.link_id ?? []),
  )
  // The last lock may have gone since the worker was told to go on.
  const again = winners.filter(({ application }) => application.to === 'QUEUED' || application.to === 'WAITING')
  const unwanted = await cancelTransfers(
    executor,
    again.map(({ held }) => held.replica_id),
    now,
  )
  await dropPermits(
    executor,
    winners.filter(({ reported }) => reported.cleaned).map(({ reported }) => reported),
  )
  // A look at what an earlier attempt left says nothing of the source.
  const tried = winners.filter(({ application }) => application.from !== 'SETTLING')
  const ended = tried.flatMap(decision => endedAttempts(decision, sessionId, now))
  const health = await judgeStorages(executor, ended, failing, now)
  await addToMinutes(executor, sumByLink(tried.flatMap(decision => endedCopies(decision, now))), now)
  const wanting = new Set(stuck.filter(({ arriving }) => arrived.includes(arriving)).map(({ id }) => id))
  const copied = await recopy(executor, [...wanting], now)
  await addToRules(executor, summedByRule([...deltas, ...unwanted, ...copied]), now)
  return { won, health }
}

/** Whether copies are on tape is asked in bulk. */
function awaitTape(executor: Executor, winners: readonly Decision[], now: number): Promise<void> {
  const archiving = winners.filter(({ application }) => application.to === 'ARCHIVING').map(({ held }) => held)
  const copies = archiving.map(held => ({ ...held, rse_id: held.destination_rse_id }))
  return addToTasks(executor, 'archive', copies, now)
}

/** The source's replica, where the source itself contradicts the catalogue. */
function faultsOf({ held, judged: { error } }: Decision): Fault[] {
  if (error?.code !== 'SOURCE_CORRUPT' || held.source_replica_id === null) return []
  const { code, message } = error
  const since = held.claimed_at === null ? {} : { since: held.claimed_at }
  return [{ replica_id: held.source_replica_id, transfer_id: held.id, code, message, ...FOUND, ...since }]
}

/** The source's replica, where it was said that there is no such file: that is looked at before it is believed. */
function suspicionsOf({ held, judged: { error } }: Decision): Suspicion[] {
  const { vo_id, source_replica_id: replica_id, source_rse_id: rse_id } = held
  if (error?.code !== 'SOURCE_MISSING' || replica_id === null || rse_id === null) return []
  return [{ vo_id, rse_id, replica_id, words: `${error.code}: ${error.message}` }]
}

function endedAttempts({ held, judged, again }: Decision, sessionId: number, now: number): EndedAttempt[] {
  const { result: outcome, mode = null, error, endedMsAgo } = judged
  const { link_id: linkId, vo_id: voId, destination_rse_id: destinationId, claimed_at: claimedAt } = held
  if (linkId === null || claimedAt === null) return []
  const endedAt = now - Math.round(endedMsAgo)
  return [{ linkId, voId, destinationId, sessionId, mode, outcome, claimedAt, endedAt, again, error }]
}

function endedCopies({ held, judged }: Decision, now: number): EndedCopy[] {
  const { link_id: linkId, claimed_at: claimedAt } = held
  const { result, mode, bytes, durationMs, endedMsAgo, error } = judged
  if (endedMsAgo > LATE) return []
  const done = result === 'done' && mode !== undefined
  if (linkId === null || (!done && (result !== 'failed' || error === undefined || !isLinkFailure(error)))) return []
  const milliseconds = Math.round(Math.max(durationMs, now - (claimedAt ?? now)))
  return [{ linkId, mode: mode ?? 'none', done, bytes, milliseconds }]
}

function attemptOf({ held, judged: reported }: Decision, now: number): NewAttempt {
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
