import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, oneOf, query, stateList } from '../database/sql.ts'
import { moveLocks } from '../rules/lock-store.ts'
import type { RuleDelta } from '../rules/store.ts'
import { markHops } from './hop-store.ts'

/** Ends the waiting transfers of files that came to this storage in another way: an upload, or they lay there. */
export async function cancelNeedless(
  executor: Executor,
  rseId: number,
  fileIds: readonly number[],
  now: number,
): Promise<void> {
  const atOnce = stateList(statesAccepting(TRANSFER_MACHINE, 'cancel', 'CANCELLED'))
  const ended = await query<{ id: number }>(
    executor,
    `UPDATE transfers SET state = 'CANCELLED', updated_at = :now WHERE state IN (${atOnce}) AND replica_id IN
       (SELECT id FROM replicas WHERE rse_id = :rseId AND file_id ${oneOf(executor, 'files')}) RETURNING id`,
    { now, rseId, files: encodeRows(fileIds) },
  )
  await markHops(
    executor,
    ended.map(row => row.id),
  )
}

/** Whether nobody wants the copy `replicas` now: of the rules that lock it all are suspended, and no transfer goes over it. */
const UNWANTED = `(lock_count = 0 OR (
  NOT EXISTS (SELECT 1 FROM locks JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED' WHERE locks.replica_id = replicas.id)
  AND NOT EXISTS (SELECT 1 FROM hops WHERE hops.replica_id = replicas.id AND hops.look_at IS NOT NULL)))`

/**
 * Ends the open transfers to these replicas that nobody wants any more: at once where no worker has them, else they
 * are marked, and their worker hears of it with its next heartbeat. The caller has locked the replicas. The locks of suspended
 * rules are STUCK then, until the rules are resumed: the changes for their counters.
 */
export async function cancelTransfers(
  executor: Executor,
  replicaIds: readonly number[],
  now: number,
): Promise<RuleDelta[]> {
  if (replicaIds.length === 0) return []
  const atOnce = stateList(statesAccepting(TRANSFER_MACHINE, 'cancel', 'CANCELLED'))
  const rows = await query<{ id: number; replica_id: number; state: string }>(
    executor,
    `UPDATE transfers SET cancel_requested = true, updated_at = :now,
            state = CASE WHEN state IN (${atOnce}) THEN 'CANCELLED' ELSE state END
      WHERE state IN (${stateList(statesAccepting(TRANSFER_MACHINE, 'cancel'))})
        AND replica_id ${oneOf(executor, 'replicas')}
        AND EXISTS (SELECT 1 FROM replicas WHERE replicas.id = transfers.replica_id AND ${UNWANTED})
      RETURNING id, replica_id, state`,
    { replicas: encodeRows(replicaIds), now },
  )
  const ended = rows.filter(row => row.state === 'CANCELLED')
  const replicas = ended.map(row => row.replica_id)
  await moveReplicas(executor, replicas, 'fail', now)
  await markHops(
    executor,
    ended.map(row => row.id),
  )
  return moveLocks(executor, replicas, 'fail')
}
