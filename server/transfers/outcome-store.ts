import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE, type TransferState } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, recordset, stateList } from '../database/sql.ts'

export interface HeldTransfer {
  id: number
  fence: number
  state: TransferState
  attempts: number
  cancel_requested: number | boolean
  session_id: number | null
  claimed_at: number | null
  replica_id: number
  bundle_id: number | null
  link_id: number | null
  source_replica_id: number | null
  source_rse_id: number | null
  destination_rse_id: number
  vo_id: number
  bytes: number
  archive: number | boolean
}

export async function findTransfers(executor: Executor, ids: readonly number[]): Promise<HeldTransfer[]> {
  return query<HeldTransfer>(
    executor,
    `SELECT id, fence, state, attempts, cancel_requested, session_id, claimed_at, replica_id, bundle_id, link_id,
            source_replica_id, source_rse_id, destination_rse_id, vo_id, bytes, archive
       FROM transfers WHERE id ${oneOf(executor, 'ids')}`,
    { ids: encodeRows(ids) },
  )
}

/** Which of these (transfer, fence) have their outcome already. */
export async function findAttempts(
  executor: Executor,
  held: readonly { transfer: number; fence: number }[],
): Promise<{ transfer_id: number; fence: number }[]> {
  const set = recordset(executor, 'rows', { transfer: 'bigint', fence: 'bigint' })
  return query(
    executor,
    `SELECT attempts.transfer_id, attempts.fence FROM ${set} AS given
       JOIN attempts ON attempts.transfer_id = given.transfer AND attempts.fence = given.fence`,
    { rows: encodeRows(held.map(({ transfer, fence }) => ({ transfer, fence }))) },
  )
}

/**
 * The plus keeps the index by session out of it: SQLite would go through all that the session holds, and through the whole
 * set for each (1,000 outcomes took 1.7 s instead of 30 ms).
 */
const OF_SESSION = '+transfers.session_id = :sessionId'

export interface Application {
  readonly id: number
  readonly fence: number
  /** What the decision was made on, and where it led. */
  readonly from: TransferState
  readonly cancelRequested: boolean
  readonly to: TransferState
  readonly attempts: number
  readonly notBefore: number
  readonly left: 'nothing' | 'own' | 'unknown'
}

/** Nothing lies at these replicas' paths that an attempt may have left. Their rows are locked. */
export async function forgetWritten(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE transfers SET written_fence = NULL
      WHERE written_fence IS NOT NULL AND replica_id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
}

/**
 * Applies decisions in one statement: a row only moves if all that the decision was made on still holds, and its session
 * holds it. Answers who won; a lost race is no error.
 */
export async function applyTransitions(
  executor: Executor,
  sessionId: number,
  rows: readonly Application[],
  now: number,
): Promise<Set<number>> {
  const set = recordset(executor, 'rows', {
    id: 'bigint',
    fence: 'bigint',
    from_state: 'text',
    cancelled: 'boolean',
    to_state: 'text',
    attempts: 'bigint',
    not_before: 'bigint',
    remains: 'text',
  })
  await lockRows(
    executor,
    'transfers',
    rows.map(row => row.id),
  )
  const won = await query<{ id: number }>(
    executor,
    `UPDATE transfers SET state = given.to_state, attempts = given.attempts, not_before = given.not_before, session_id = NULL,
            reason = CASE WHEN given.to_state = 'WAITING' THEN 'BACKOFF' ELSE NULL END, updated_at = :now,
            written_fence = CASE given.remains WHEN 'own' THEN transfers.fence WHEN 'nothing' THEN NULL
              ELSE nullif(written_fence, transfers.fence) END
       FROM ${set} AS given
      WHERE transfers.id = given.id AND transfers.fence = given.fence AND transfers.state = given.from_state
        AND transfers.cancel_requested = given.cancelled AND ${OF_SESSION}
     RETURNING transfers.id`,
    {
      sessionId,
      now,
      rows: encodeRows(
        rows.map(row => ({
          id: row.id,
          fence: row.fence,
          from_state: row.from,
          cancelled: row.cancelRequested,
          to_state: row.to,
          attempts: row.attempts,
          not_before: row.notBefore,
          remains: row.left,
        })),
      ),
    },
  )
  return new Set(won.map(row => row.id))
}

export interface NewAttempt {
  transfer_id: number
  fence: number
  source_rse_id: number | null
  source_grant_id: number | null
  destination_grant_id: number | null
  mode: string | null
  outcome: string
  started_at: number
  ended_at: number
  bytes: number
  scope: string | null
  phase: string | null
  code: string | null
  message: string | null
}

export async function insertAttempts(
  executor: Executor,
  sessionId: number,
  attempts: readonly NewAttempt[],
): Promise<void> {
  const columns = {
    transfer_id: 'bigint',
    fence: 'bigint',
    source_rse_id: 'bigint',
    source_grant_id: 'bigint',
    destination_grant_id: 'bigint',
    mode: 'text',
    outcome: 'text',
    started_at: 'bigint',
    ended_at: 'bigint',
    bytes: 'bigint',
    scope: 'text',
    phase: 'text',
    code: 'text',
    message: 'text',
  } as const
  const names = Object.keys(columns).join(', ')
  await query(
    executor,
    `INSERT INTO attempts (session_id, ${names}) SELECT :sessionId, ${names}
       FROM ${recordset(executor, 'rows', columns)} AS given WHERE true ON CONFLICT (transfer_id, fence) DO NOTHING`,
    { sessionId, rows: encodeRows(attempts) },
  )
}

/**
 * Progress of what a session holds; a transfer that it does not hold any more is left alone. A COPY that was taken found nothing
 * in its way: what lies there from then on may be its own, also when nobody hears of it again.
 */
export async function recordProgress(
  executor: Executor,
  sessionId: number,
  progress: readonly { transfer: number; fence: number; state: 'COPYING'; bytes: number }[],
  now: number,
): Promise<void> {
  if (progress.length === 0) return
  await lockRows(
    executor,
    'transfers',
    progress.map(({ transfer }) => transfer),
  )
  const set = recordset(executor, 'rows', { transfer: 'bigint', fence: 'bigint', state: 'text', bytes: 'bigint' })
  const toCopying = stateList([...statesAccepting(TRANSFER_MACHINE, 'copy'), 'COPYING'])
  await query(
    executor,
    `UPDATE transfers SET state = given.state, bytes_done = given.bytes, updated_at = :now,
            written_fence = transfers.fence FROM ${set} AS given
      WHERE transfers.id = given.transfer AND transfers.fence = given.fence AND ${OF_SESSION}
        AND transfers.state IN (${toCopying})`,
    { sessionId, now, rows: encodeRows(progress) },
  )
}

/** Transfers of a session that nobody asks for any more. */
export async function cancelledOf(executor: Executor, sessionId: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    'SELECT id FROM transfers WHERE session_id = :sessionId AND cancel_requested',
    { sessionId },
  )
  return rows.map(row => row.id)
}

/** A session is over, or has lost sight of some of what it holds: that is settled by others. How many transfers that were. */
export async function loseTransfers(
  executor: Executor,
  sessionId: number,
  notBefore: number,
  now: number,
  stillHeld: readonly { transfer: number; fence: number }[] = [],
): Promise<number> {
  const held = recordset(executor, 'rows', { transfer: 'bigint', fence: 'bigint' })
  const given = await query<{ id: number }>(executor, 'SELECT id FROM transfers WHERE session_id = :sessionId', {
    sessionId,
  })
  await lockRows(
    executor,
    'transfers',
    given.map(row => row.id),
  )
  const rows = await query(
    executor,
    `UPDATE transfers SET state = 'SETTLING', session_id = NULL, not_before = :notBefore, updated_at = :now
      WHERE session_id = :sessionId AND state IN (${stateList(statesAccepting(TRANSFER_MACHINE, 'lose'))})
        AND (id, fence) NOT IN (SELECT given.transfer, given.fence FROM ${held} AS given) RETURNING id`,
    { sessionId, notBefore, now, rows: encodeRows(stillHeld.map(({ transfer, fence }) => ({ transfer, fence }))) },
  )
  return rows.length
}
