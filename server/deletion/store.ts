import { REPLICA_MACHINE } from '../../shared/domain/rule-state.ts'
import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import {
  type Executor,
  encodeRows,
  isSqlite,
  keyset,
  lockRows,
  oneOf,
  query,
  queryOne,
  stateList,
} from '../database/sql.ts'
import { moveLocks } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import { removeItems } from '../tasks/store.ts'

const REAPABLE = stateList(statesAccepting(REPLICA_MACHINE, 'reap'))
const OPEN_TRANSFER = `transfers.state NOT IN (${stateList(ENDED_STATES)})`

export interface Tombstone {
  id: number
  file_id: number
  bytes: number
  top_id: number
}

/** Replicas of a VO at a storage that lost their last lock before then, the longest first: from a look without locks. */
export async function tombstones(
  read: Executor,
  { voId, rseId }: { voId: number; rseId: number },
  before: number,
  limit: number,
): Promise<Tombstone[]> {
  return query<Tombstone>(
    read,
    `SELECT replicas.id, replicas.file_id, dids.bytes, coalesce(directories.top_id, directories.id) AS top_id
       FROM replicas JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id AND scopes.vo_id = :voId
       JOIN directories ON directories.id = replicas.directory_id
      WHERE replicas.rse_id = :rseId AND replicas.tombstone_at <= :before AND replicas.lock_count = 0
        AND replicas.state IN (${REAPABLE})
      ORDER BY replicas.tombstone_at LIMIT :limit`,
    { voId, rseId, before, limit },
  )
}

/** Bytes of what lies at a storage, or comes to. Reads all of its replicas. */
export async function usedBytes(read: Executor, rseId: number): Promise<number> {
  const row = await queryOne<{ bytes: number }>(
    read,
    `SELECT CAST(coalesce(sum(dids.bytes), 0) AS bigint) AS bytes FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.rse_id = :rseId AND replicas.state IN ('AVAILABLE', 'BAD', 'COPYING')`,
    { rseId },
  )
  return row?.bytes ?? 0
}

export interface Reaped {
  readonly toDelete: readonly number[]
  readonly forgotten: readonly number[]
}

/**
 * Of these replicas those that may be deleted become BEING_DELETED, or are forgotten at once where no attempt of ours can have left
 * anything: what lies there is somebody else's (docs/decisions/0008). Answers those to delete. Never one that is locked; nor of a file that is being copied,
 * which may come from there; nor the last good copy of a file that any rule asks for. Whoever asks for a file locks one of its
 * replicas, or makes one, which holds the file's row (a foreign key does that): both wait until this is over, and see it. Nor one where
 * a person may be putting the file, or that is in another task.
 */
export async function reapReplicas(
  executor: Executor,
  candidates: readonly Tombstone[],
  before: number,
  now: number,
): Promise<Reaped> {
  const files = encodeRows([...new Set(candidates.map(({ file_id }) => file_id))])
  if (!isSqlite(executor)) {
    await query(executor, `SELECT id FROM dids WHERE id ${oneOf(executor, 'files')} ORDER BY id FOR UPDATE`, { files })
  }
  const all = await query<{ id: number }>(
    executor,
    `SELECT id FROM replicas WHERE file_id ${oneOf(executor, 'files')}`,
    {
      files,
    },
  )
  await lockRows(
    executor,
    'replicas',
    all.map(row => row.id),
  )
  const asked = await filesAskedFor(executor, files)
  const rows = await query<{ id: number; file_id: number; is_last: number | boolean; is_ours: number | boolean }>(
    executor,
    `SELECT replicas.id, replicas.file_id, (replicas.state = 'AVAILABLE' AND NOT EXISTS (SELECT 1 FROM replicas AS other
              WHERE other.file_id = replicas.file_id AND other.id <> replicas.id AND other.state = 'AVAILABLE')) AS is_last,
            (replicas.state <> 'UNAVAILABLE' OR EXISTS (SELECT 1 FROM transfers
              WHERE transfers.replica_id = replicas.id AND transfers.written_fence IS NOT NULL)) AS is_ours
       FROM replicas
      WHERE replicas.id ${oneOf(executor, 'candidates')} AND replicas.lock_count = 0 AND replicas.tombstone_at <= :before
        AND replicas.state IN (${REAPABLE})
        AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = replicas.id AND uploads.until > :now)
        AND NOT EXISTS (SELECT 1 FROM task_items WHERE task_items.replica_id = replicas.id)
        AND NOT EXISTS (SELECT 1 FROM replicas AS any_of
          JOIN transfers ON transfers.replica_id = any_of.id AND ${OPEN_TRANSFER} WHERE any_of.file_id = replicas.file_id)`,
    { candidates: encodeRows(candidates.map(({ id }) => id)), before, now },
  )
  const reaped = rows.filter(row => !row.is_last || !asked.has(row.file_id))
  const free = reaped.map(row => row.id)
  await moveReplicas(executor, free, 'reap', now)
  await query(executor, `UPDATE replicas SET tombstone_at = NULL WHERE id ${oneOf(executor, 'free')}`, {
    free: encodeRows(free),
  })
  const forgotten = reaped.filter(row => !row.is_ours).map(row => row.id)
  await forgetReplicas(executor, forgotten, now)
  return { toDelete: reaped.filter(row => row.is_ours).map(row => row.id), forgotten }
}

/** Those of these files that a rule asks for, on the file itself or on anything that holds it. `files`: their keys, encoded. */
async function filesAskedFor(executor: Executor, files: string): Promise<Set<number>> {
  const rows = await query<{ file_id: number }>(
    executor,
    `WITH RECURSIVE above (file_id, did_id) AS (
       SELECT value, value FROM ${keyset(executor, 'files')} AS given
       UNION SELECT above.file_id, contents.parent_id FROM above JOIN contents ON contents.child_id = above.did_id)
     SELECT DISTINCT above.file_id FROM above JOIN rules ON rules.did_id = above.did_id AND rules.stage <> 'REMOVING'`,
    { files },
  )
  return new Set(rows.map(row => row.file_id))
}

/**
 * What may not be deleted now is not looked at before then, so that it does not stand in the way of others. One that was locked
 * and let go of since it was found has its whole grace.
 */
export async function postponeTombstones(
  executor: Executor,
  replicaIds: readonly number[],
  before: number,
  at: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE replicas SET tombstone_at = :at WHERE tombstone_at <= :before AND id ${oneOf(executor, 'replicas')}`,
    { before, at, replicas: encodeRows(replicaIds) },
  )
}

/**
 * These files are gone from their storage. What nobody asks for is no replica any more, and its transfers go with it; what was
 * locked meanwhile is UNAVAILABLE, and the repair of its rules brings it back.
 */
export async function forgetReplicas(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  if (replicaIds.length === 0) return
  await lockRows(executor, 'replicas', replicaIds)
  await removeItems(executor, replicaIds)
  const deleted = await query<{ id: number; lock_count: number }>(
    executor,
    `SELECT id, lock_count FROM replicas WHERE state = 'BEING_DELETED' AND id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  const wanted = deleted.filter(row => row.lock_count > 0).map(row => row.id)
  const gone = encodeRows(deleted.filter(row => row.lock_count === 0).map(row => row.id))
  await moveReplicas(executor, wanted, 'vanish', now)
  const ofGone = `SELECT id FROM transfers WHERE replica_id ${oneOf(executor, 'gone')}`
  for (const sql of [
    `DELETE FROM hops WHERE transfer_id IN (${ofGone})`,
    `DELETE FROM hops WHERE carrier_id IN (${ofGone})`,
    `DELETE FROM attempts WHERE transfer_id IN (${ofGone})`,
    `DELETE FROM transfers WHERE replica_id ${oneOf(executor, 'gone')}`,
    `DELETE FROM uploads WHERE replica_id ${oneOf(executor, 'gone')}`,
    `DELETE FROM replica_faults WHERE replica_id ${oneOf(executor, 'gone')}`,
    `DELETE FROM replicas WHERE id ${oneOf(executor, 'gone')}`,
  ]) {
    await query(executor, sql, { gone })
  }
  await addToRules(executor, await moveLocks(executor, wanted, 'fail'), now)
}
