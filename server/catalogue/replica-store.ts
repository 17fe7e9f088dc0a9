import { REPLICA_MACHINE, type ReplicaEvent, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { statesAccepting, stepsOf } from '../../shared/domain/state-machine.ts'
import { ACTIVE_STATES, ENDED_STATES } from '../../shared/domain/transfer-state.ts'
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
 * another file stays with it: compare with `findReplicas`. `locks`: of each, inserted by the caller next. `kept`: they stay when no
 * rule asks for them any more.
 */
export async function insertReplicas(
  executor: Executor,
  rseId: number,
  state: ReplicaState,
  replicas: readonly NewReplica[],
  now: number,
  { locks = 0, kept = false }: { readonly locks?: number; readonly kept?: boolean } = {},
): Promise<{ id: number; file_id: number }[]> {
  const set = recordset(executor, 'rows', { file_id: 'bigint', directory_id: 'bigint', name: 'text' })
  return query(
    executor,
    `INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, kept, updated_at)
     SELECT file_id, :rseId, directory_id, name, :state, CAST(:locks AS integer), CAST(:kept AS boolean), :now FROM ${set} AS given
      WHERE true ON CONFLICT DO NOTHING RETURNING id, file_id`,
    { rseId, state, locks, kept, now, rows: encodeRows(replicas) },
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
  if (event === 'succeed') await endFaults(executor, replicaIds, now)
}

/** What was found of these replicas, or said, holds no longer. Their rows are locked. */
export async function endFaults(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  await query(
    executor,
    `UPDATE replica_faults SET over_at = :now WHERE over_at IS NULL AND replica_id ${oneOf(executor, 'replicas')}`,
    { now, replicas: encodeRows(replicaIds) },
  )
}

/**
 * These replicas are there, without a transfer: somebody put them there, registered what lies there already (`succeed`), or it was
 * looked at (`restore`). Those that a transfer is bringing stay as they are. The keys of those that became available. Their rows are
 * locked. `kept`: they stay when no rule asks for them any more, as those do that were kept before.
 */
export async function makeAvailable(
  executor: Executor,
  replicaIds: readonly number[],
  { event, kept }: { readonly event: 'succeed' | 'restore'; readonly kept: boolean },
  now: number,
): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `UPDATE replicas SET state = 'AVAILABLE', updated_at = :now, kept = (kept OR CAST(:kept AS boolean)), purge = false,
            tombstone_at = CASE WHEN kept OR CAST(:kept AS boolean) THEN NULL ELSE tombstone_at END
      WHERE state IN (${stateList(statesAccepting(REPLICA_MACHINE, event))}) AND id ${oneOf(executor, 'replicas')}
        AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id
                         AND transfers.state NOT IN (${stateList(ENDED_STATES)}))
      RETURNING id`,
    { now, kept, replicas: encodeRows(replicaIds) },
  )
  const ids = rows.map(row => row.id)
  await endFaults(executor, ids, now)
  return ids
}

/**
 * Somebody said once more that these replicas are there, and they were AVAILABLE already: they stay from now on (`kept`), or have their whole
 * time of grace again. Their rows are locked.
 */
export async function renewAvailable(
  executor: Executor,
  replicaIds: readonly number[],
  kept: boolean,
  now: number,
): Promise<void> {
  await query(
    executor,
    `UPDATE replicas SET kept = (kept OR CAST(:kept AS boolean)), purge = false,
            tombstone_at = CASE WHEN CAST(:kept AS boolean) OR tombstone_at IS NULL THEN NULL ELSE CAST(:now AS bigint) END
      WHERE state = 'AVAILABLE' AND id ${oneOf(executor, 'replicas')} AND (tombstone_at IS NOT NULL OR (CAST(:kept AS boolean) AND NOT kept))`,
    { now, kept, replicas: encodeRows(replicaIds) },
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
