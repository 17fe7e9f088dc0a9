import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import type { TaskRow } from './store.ts'

/** These files are deleted whatever happens: a worker may have sent the request for it, or nothing is lost with them. */
export async function markTold(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE task_items SET state = 'ASKED' WHERE state = 'WANTED' AND replica_id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
}

/** This kind of work at these files is not needed any more: what a worker tells of it later is not heard. */
export async function dropItems(
  executor: Executor,
  replicaIds: readonly number[],
  kind: TaskRow['kind'],
): Promise<void> {
  await query(
    executor,
    `DELETE FROM task_items WHERE replica_id ${oneOf(executor, 'replicas')}
        AND EXISTS (SELECT 1 FROM tasks WHERE tasks.id = task_items.task_id AND tasks.kind = :kind)`,
    { kind, replicas: encodeRows(replicaIds) },
  )
}

/** These files of a task are done: which of them were still to be. */
export async function finishItems(
  executor: Executor,
  taskId: number,
  replicaIds: readonly number[],
): Promise<Set<number>> {
  const rows = await query<{ replica_id: number }>(
    executor,
    `DELETE FROM task_items WHERE task_id = :taskId AND replica_id ${oneOf(executor, 'replicas')} RETURNING replica_id`,
    { taskId, replicas: encodeRows(replicaIds) },
  )
  return new Set(rows.map(row => row.replica_id))
}
