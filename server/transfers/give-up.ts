import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query } from '../database/sql.ts'
import { moveLocks } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import { holdWaiting, markHops } from './hop-store.ts'

/** Why waiting changes nothing any more. */
export type GivenUp = 'HOP_FAILED' | 'NO_SOURCE' | 'NO_ALLOWED_SOURCE' | 'DESTINATION_CLOSED'

/** Ends those of these transfers that still wait: their rules are STUCK with the reason, and their repair looks again. */
export async function giveUp(
  executor: Executor,
  transfers: readonly { readonly id: number; readonly replica_id: number }[],
  reason: GivenUp,
  now: number,
): Promise<void> {
  await lockRows(
    executor,
    'replicas',
    transfers.map(transfer => transfer.replica_id),
  )
  const ids = transfers.map(transfer => transfer.id)
  const failed = await failWaiting(executor, await holdWaiting(executor, ids, now), reason, now)
  const replicas = transfers.filter(({ id }) => failed.includes(id)).map(transfer => transfer.replica_id)
  await moveReplicas(executor, replicas, 'fail', now)
  const deltas = await moveLocks(executor, replicas, 'fail')
  await markHops(executor, failed)
  await addToRules(executor, deltas, now)
}

/** Which of these waiting transfers, whose rows are locked with their replicas, ended. */
export async function failWaiting(
  executor: Executor,
  transferIds: readonly number[],
  reason: GivenUp,
  now: number,
): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `UPDATE transfers SET state = 'FAILED', reason = :reason, updated_at = :now
      WHERE state = 'WAITING' AND id ${oneOf(executor, 'ids')} RETURNING id`,
    { ids: encodeRows(transferIds), reason, now },
  )
  return rows.map(row => row.id)
}
