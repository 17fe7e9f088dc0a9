import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import type { TransferFailure } from '../../shared/domain/transfer-error.ts'
import { type TransferState, transition } from '../../shared/domain/transfer-state.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, stateList } from '../database/sql.ts'
import { moveLocks } from '../rules/lock-store.ts'
import type { RuleDelta } from '../rules/store.ts'
import { withAnotherSource } from '../transfers/history.ts'
import { markHops } from '../transfers/hop-store.ts'
import { insertAttempts } from '../transfers/outcome-store.ts'

/** A transfer that failed while no worker had it: at the tape of its source, or of its destination. */
export interface FailedAlone {
  readonly failure: TransferFailure
  /** Of its source in STAGING, of its destination in ARCHIVING. */
  readonly replicaId: number
}

interface Row {
  id: number
  fence: number
  state: TransferState
  attempts: number
  cancel_requested: number | boolean
  replica_id: number
  source_rse_id: number | null
  subject: number
}

/**
 * Fails the transfers in this state that hang on these replicas. Each has an attempt more, told by this session, so that it
 * stands in its history. The changes for their rules' counters.
 */
export async function failAlone(
  executor: Executor,
  state: 'STAGING' | 'ARCHIVING',
  failed: readonly FailedAlone[],
  by: { readonly sessionId: number; readonly policy: RetryPolicy; readonly fraction: number },
  now: number,
): Promise<RuleDelta[]> {
  if (failed.length === 0) return []
  const subject = state === 'STAGING' ? 'source_replica_id' : 'replica_id'
  const replicas = encodeRows(failed.map(({ replicaId }) => replicaId))
  const where = `state IN (${stateList([state])}) AND ${subject} ${oneOf(executor, 'replicas')}`
  const own = await query<{ replica_id: number; source_replica_id: number | null }>(
    executor,
    `SELECT replica_id, source_replica_id FROM transfers WHERE ${where}`,
    { replicas },
  )
  const touched = own.flatMap(({ replica_id, source_replica_id }) => [
    replica_id,
    ...(source_replica_id === null ? [] : [source_replica_id]),
  ])
  await lockRows(executor, 'replicas', [...new Set(touched)])
  const rows = await query<Row>(
    executor,
    `UPDATE transfers SET fence = fence + 1 WHERE ${where}
     RETURNING id, fence, state, attempts, cancel_requested, replica_id, source_rse_id, ${subject} AS subject`,
    { replicas },
  )
  const elsewhere = await withAnotherSource(
    executor,
    rows.map(row => row.id),
  )
  const failures = new Map(failed.map(({ replicaId, failure }) => [replicaId, failure]))
  const ended: { id: number; replica_id: number }[] = []
  for (const row of rows) {
    const failure = failures.get(row.subject)
    if (failure === undefined) continue
    const facts = { state: row.state, attempts: row.attempts, cancelRequested: Boolean(row.cancel_requested) }
    const retryable = failure.retryable || (state === 'STAGING' && elsewhere.has(row.id))
    const event = { type: 'fail', failure: { ...failure, retryable }, fraction: by.fraction } as const
    const next = transition(facts, event, now, by.policy)
    if (next === undefined) continue
    const { id } = row
    const { state: to, attempts, notBefore } = next
    await query(
      executor,
      `UPDATE transfers SET state = :to, attempts = :attempts, not_before = :notBefore, updated_at = :now,
              reason = CASE WHEN :to = 'WAITING' THEN 'BACKOFF' ELSE NULL END WHERE id = :id`,
      { id, to, attempts, notBefore, now },
    )
    const { scope, phase, code, message } = failure
    const told = {
      scope,
      phase,
      code,
      message,
      bytes: 0,
      mode: null,
      source_grant_id: null,
      destination_grant_id: null,
    }
    const attempt = { transfer_id: id, fence: row.fence, source_rse_id: row.source_rse_id, outcome: 'failed', ...told }
    await insertAttempts(executor, by.sessionId, [{ ...attempt, started_at: now, ended_at: now }])
    if (to === 'FAILED' || to === 'CANCELLED') ended.push(row)
  }
  const copies = ended.map(row => row.replica_id)
  await moveReplicas(executor, copies, 'fail', now)
  await markHops(
    executor,
    ended.map(row => row.id),
  )
  return moveLocks(executor, copies, 'fail')
}
