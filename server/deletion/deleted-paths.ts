import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'

/** These replicas, of one storage, are deleted: remembered while an import of it is listed, whose worker may have seen them before. */
export async function noteDeleted(
  executor: Executor,
  rseId: number,
  replicaIds: readonly number[],
  now: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `INSERT INTO deleted_paths (directory_id, name, at) SELECT directory_id, name, :now FROM replicas
      WHERE id ${oneOf(executor, 'replicas')} AND EXISTS (SELECT 1 FROM imports WHERE rse_id = :rseId AND state = 'LISTING')
      ORDER BY directory_id, name ON CONFLICT (directory_id, name) DO UPDATE SET at = excluded.at`,
    { rseId, now, replicas: encodeRows(replicaIds) },
  )
}

/** Those of these absolute paths at a storage at which a file was deleted since then, as far as an import was listed there. */
export async function deletedSince(
  executor: Executor,
  rseId: number,
  paths: readonly string[],
  since: number,
): Promise<Set<string>> {
  const set = recordset(executor, 'rows', { directory: 'text', name: 'text' })
  const rows = await query<{ path: string }>(
    executor,
    `SELECT given.directory || '/' || given.name AS path FROM ${set} AS given
       JOIN directories ON directories.rse_id = :rseId AND directories.path = given.directory
       JOIN deleted_paths ON deleted_paths.directory_id = directories.id AND deleted_paths.name = given.name
      WHERE deleted_paths.at >= :since`,
    {
      rseId,
      since,
      rows: encodeRows(
        paths.map(path => {
          const slash = path.lastIndexOf('/')
          return { directory: path.slice(0, slash), name: path.slice(slash + 1) }
        }),
      ),
    },
  )
  return new Set(rows.map(row => row.path))
}

/** What no worker that lists an import can have seen any more. */
export async function pruneDeleted(executor: Executor): Promise<void> {
  await query(
    executor,
    `DELETE FROM deleted_paths WHERE NOT EXISTS (SELECT 1 FROM directories JOIN imports ON imports.rse_id = directories.rse_id
      AND imports.state = 'LISTING' AND coalesce(imports.claimed_at, 0) <= deleted_paths.at WHERE directories.id = deleted_paths.directory_id)`,
  )
}
