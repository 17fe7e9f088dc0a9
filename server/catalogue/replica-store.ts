import { REPLICA_MACHINE, type ReplicaEvent, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { statesAccepting, stepsOf } from '../../shared/domain/state-machine.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, keyset, oneOf, query, recordset, stateList } from '../database/sql.ts'

/** A directory at a storage and the one that tokens are asked for (`top`); absolute paths. */
export interface DirectoryPath {
  readonly path: string
  readonly top: string
}

export interface DirectoryKey {
  readonly id: number
  readonly topId: number
}

/** Makes the directories' rows that are missing. A directory keeps the top it got first. */
export async function ensureDirectories(
  executor: Executor,
  rseId: number,
  directories: readonly DirectoryPath[],
): Promise<Map<string, DirectoryKey>> {
  const tops = [...new Set(directories.map(directory => directory.top))]
  await query(
    executor,
    `INSERT INTO directories (rse_id, path) SELECT :rseId, value FROM ${keyset(executor, 'tops', 'text')} AS given
      WHERE true ON CONFLICT (rse_id, path) DO NOTHING`,
    { rseId, tops: encodeRows(tops) },
  )
  const nested = directories.filter(directory => directory.path !== directory.top)
  if (nested.length > 0) {
    const set = recordset(executor, 'rows', { path: 'text', top: 'text' })
    await query(
      executor,
      `INSERT INTO directories (rse_id, path, top_id)
       SELECT :rseId, given.path, coalesce(tops.top_id, tops.id) FROM ${set} AS given
         JOIN directories AS tops ON tops.rse_id = :rseId AND tops.path = given.top
        WHERE true ON CONFLICT (rse_id, path) DO NOTHING`,
      { rseId, rows: encodeRows(nested) },
    )
  }
  const rows = await query<{ id: number; top_id: number | null; path: string }>(
    executor,
    `SELECT id, top_id, path FROM directories WHERE rse_id = :rseId AND path ${oneOf(executor, 'paths', 'text')}`,
    { rseId, paths: encodeRows(directories.map(directory => directory.path)) },
  )
  return new Map(rows.map(row => [row.path, { id: row.id, topId: row.top_id ?? row.id }]))
}

export interface NewReplica {
  readonly file_id: number
  readonly directory_id: number
  readonly name: string
}

/**
 * Inserts what is missing; what is there stays, whatever its path: a file has one replica at an RSE. A path that belongs to
 * another file stays with it: compare with `findReplicas`. `locks`: of each, inserted by the caller next.
 */
export async function insertReplicas(
  executor: Executor,
  rseId: number,
  state: ReplicaState,
  replicas: readonly NewReplica[],
  now: number,
  locks = 0,
): Promise<{ id: number; file_id: number }[]> {
  const set = recordset(executor, 'rows', { file_id: 'bigint', directory_id: 'bigint', name: 'text' })
  return query(
    executor,
    `INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, updated_at)
     SELECT file_id, :rseId, directory_id, name, :state, CAST(:locks AS integer), :now FROM ${set} AS given
      WHERE true ON CONFLICT DO NOTHING RETURNING id, file_id`,
    { rseId, state, locks, now, rows: encodeRows(replicas) },
  )
}

export interface ReplicaRow {
  id: number
  file_id: number
  directory_id: number
  top_id: number
  name: string
  state: ReplicaState
}

export async function findReplicas(
  executor: Executor,
  rseId: number,
  fileIds: readonly number[],
): Promise<ReplicaRow[]> {
  return query<ReplicaRow>(
    executor,
    `SELECT replicas.id, replicas.file_id, replicas.directory_id, replicas.name, replicas.state,
            coalesce(directories.top_id, directories.id) AS top_id
       FROM replicas JOIN directories ON directories.id = replicas.directory_id
      WHERE replicas.rse_id = :rseId AND replicas.file_id ${oneOf(executor, 'files')}`,
    { rseId, files: encodeRows(fileIds) },
  )
}

/** What happened to these replicas: each goes where the table says, or stays. */
export async function moveReplicas(
  executor: Executor,
  replicaIds: readonly number[],
  event: ReplicaEvent,
  now: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  for (const step of stepsOf(REPLICA_MACHINE, event)) {
    await query(
      executor,
      `UPDATE replicas SET state = :to, updated_at = :now WHERE state = :from AND id ${oneOf(executor, 'replicas')}`,
      { ...step, now, replicas: encodeRows(replicaIds) },
    )
  }
}

/** An upload, or a registration of what a storage holds already, makes replicas available that no transfer is bringing. */
export async function makeAvailable(
  executor: Executor,
  rseId: number,
  fileIds: readonly number[],
  now: number,
): Promise<{ id: number; file_id: number }[]> {
  return query(
    executor,
    `UPDATE replicas SET state = 'AVAILABLE', updated_at = :now
      WHERE rse_id = :rseId AND state IN (${stateList(statesAccepting(REPLICA_MACHINE, 'succeed'))}) AND file_id ${oneOf(executor, 'files')}
        AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id
                         AND transfers.state NOT IN ('DONE', 'FAILED', 'CANCELLED'))
      RETURNING id, file_id`,
    { rseId, now, files: encodeRows(fileIds) },
  )
}

/** Those of the files, as `scope:name`, that a worker is bringing to this storage now. */
export async function transferring(read: Executor, rseId: number, fileIds: readonly number[]): Promise<string[]> {
  const rows = await query<{ did: string }>(
    read,
    `SELECT scopes.name || ':' || dids.name AS did FROM replicas
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id
       JOIN transfers ON transfers.replica_id = replicas.id AND transfers.state IN (${stateList(ACTIVE_STATES)})
      WHERE replicas.rse_id = :rseId AND replicas.file_id ${oneOf(read, 'files')} LIMIT 10`,
    { rseId, files: encodeRows(fileIds) },
  )
  return rows.map(row => row.did)
}

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
  /** Why it is BAD, or what keeps it from being deleted: `CODE: words`. */
  fault: string | null
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
            tops.path AS top, replicas.name,
            CASE replicas.state WHEN 'BAD' THEN (SELECT code || ': ' || message FROM replica_faults
              WHERE replica_faults.replica_id = replicas.id ORDER BY id DESC LIMIT 1)
            WHEN 'BEING_DELETED' THEN (SELECT coalesce(task_items.error, tasks.error) FROM task_items
              JOIN tasks ON tasks.id = task_items.task_id WHERE task_items.replica_id = replicas.id) END AS fault
       FROM replicas
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id
       JOIN directories ON directories.id = replicas.directory_id
       JOIN directories AS tops ON tops.id = coalesce(directories.top_id, directories.id)
      WHERE replicas.file_id ${oneOf(executor, 'files')}
        AND (:rseId = 0 OR replicas.rse_id = :rseId) AND (:state = '' OR replicas.state = :state)
      ORDER BY replicas.file_id, replicas.rse_id`,
    { files: encodeRows(fileIds), rseId: filter.rseId ?? 0, state: filter.state ?? '' },
  )
}
