import { type Executor, encodeRows, isSqlite, lockRows, oneOf, query } from '../database/sql.ts'

/**
 * Holds the files of these replicas: until the transaction is over nobody makes a replica of one, locks one, or brings it somewhere, and
 * whoever is at that is waited for. `also`: replicas of other files that are locked with theirs, in one order.
 */
export async function holdFilesOf(
  executor: Executor,
  replicaIds: readonly number[],
  also: readonly number[] = [],
): Promise<void> {
  if (isSqlite(executor)) return
  if (replicaIds.length === 0) return lockRows(executor, 'replicas', also)
  const replicas = encodeRows(replicaIds)
  const files = await query<{ id: number }>(
    executor,
    `SELECT id FROM dids WHERE id IN (SELECT file_id FROM replicas WHERE id ${oneOf(executor, 'replicas')}) ORDER BY id FOR UPDATE`,
    { replicas },
  )
  const all = await replicasOf(
    executor,
    files.map(row => row.id),
  )
  await lockRows(executor, 'replicas', [...new Set([...all, ...also])])
}

/** Locks all replicas of these files, wherever they are: what arrives at one storage may be copied to the others. */
export async function holdReplicasOf(executor: Executor, fileIds: readonly number[]): Promise<void> {
  if (!isSqlite(executor)) await lockRows(executor, 'replicas', await replicasOf(executor, fileIds))
}

async function replicasOf(executor: Executor, fileIds: readonly number[]): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM replicas WHERE file_id ${oneOf(executor, 'files')}`,
    { files: encodeRows(fileIds) },
  )
  return rows.map(row => row.id)
}
