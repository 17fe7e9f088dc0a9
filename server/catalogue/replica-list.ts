import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'

export interface ListedReplica {
  id: number
  file_id: number
  scope: string
  file: string
  bytes: number
  adler32: string | null
  md5: string | null
  rse_id: number
  state: ReplicaState
  lock_count: number
  directory: string
  directory_id: number
  top: string
  name: string
  kept: number | boolean
  tombstone_at: number | null
  /** Why it is BAD or lost, what is said of it, or what its deletion failed with: `CODE: words`. */
  fault: string | null
  fault_at: number | null
  /** The account that declared it. */
  fault_by: string | null
}

/** The replicas of these files, in order of file keys. */
export async function listReplicasOf(
  executor: Executor,
  fileIds: readonly number[],
  filter: { rseId?: number | undefined; state?: string | undefined },
): Promise<ListedReplica[]> {
  return query<ListedReplica>(
    executor,
    `SELECT replicas.id, replicas.file_id, scopes.name AS scope, dids.name AS file, dids.bytes, dids.adler32, dids.md5, replicas.rse_id,
            replicas.state, replicas.lock_count, directories.path AS directory, directories.id AS directory_id,
            tops.path AS top, replicas.name, replicas.kept, replicas.tombstone_at, faults.at AS fault_at, accounts.name AS fault_by,
            coalesce((SELECT coalesce(task_items.error, tasks.error) FROM task_items JOIN tasks ON tasks.id = task_items.task_id
              WHERE task_items.replica_id = replicas.id AND tasks.kind IN ('delete', 'look')), faults.code || ': ' || faults.message) AS fault
       FROM replicas
       LEFT JOIN replica_faults AS faults ON faults.replica_id = replicas.id AND faults.over_at IS NULL
       LEFT JOIN accounts ON accounts.id = faults.account_id
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id
       JOIN directories ON directories.id = replicas.directory_id
       JOIN directories AS tops ON tops.id = coalesce(directories.top_id, directories.id)
      WHERE replicas.file_id ${oneOf(executor, 'files')}
        AND (:rseId = 0 OR replicas.rse_id = :rseId) AND (:state = '' OR replicas.state = :state)
      ORDER BY replicas.file_id, replicas.rse_id`,
    { files: encodeRows(fileIds), rseId: filter.rseId ?? 0, state: filter.state ?? '' },
  )
}
