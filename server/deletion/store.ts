import { REPLICA_MACHINE, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { holdFilesOf } from '../catalogue/hold-files.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, keyset, lockRows, oneOf, query, queryOne, stateList } from '../database/sql.ts'
import { recopy } from '../rules/recopy.ts'
import { addToRules } from '../rules/store.ts'
import { removeItems } from '../tasks/store.ts'
import { staysFor, type UnlockedFacts } from './stays.ts'

const REAPABLE = stateList(statesAccepting(REPLICA_MACHINE, 'reap'))
const OPEN_TRANSFER = `transfers.state NOT IN (${stateList(ENDED_STATES)})`

export interface Tombstone {
  id: number
  file_id: number
  bytes: number
  top_id: number
  /** It goes, however much is free. */
  purge: number | boolean
}

/**
 * Replicas of a VO at a storage whose tombstone is of before then, but for those that are put off: what goes at once, and then the oldest.
 * From a look without locks.
 */
export async function tombstones(
  read: Executor,
  where: { readonly voId: number; readonly rseId: number },
  { before, now }: { readonly before: number; readonly now: number },
  limit: number,
): Promise<Tombstone[]> {
  const bindings = { ...where, before, now }
  const purged = await tombstonesWhere(read, 'replicas.purge', { ...bindings, limit })
  return [
    ...purged,
    ...(await tombstonesWhere(read, 'NOT replicas.purge', { ...bindings, limit: limit - purged.length })),
  ]
}

function tombstonesWhere(
  read: Executor,
  condition: string,
  bindings: { voId: number; rseId: number; before: number; now: number; limit: number },
): Promise<Tombstone[]> {
  return query<Tombstone>(
    read,
    `SELECT replicas.id, replicas.file_id, dids.bytes, coalesce(directories.top_id, directories.id) AS top_id, replicas.purge
       FROM replicas JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id AND scopes.vo_id = :voId
       JOIN directories ON directories.id = replicas.directory_id
      WHERE replicas.rse_id = :rseId AND replicas.tombstone_at <= :before AND ${condition} AND replicas.lock_count = 0
        AND (replicas.reap_after IS NULL OR replicas.reap_after <= :now) AND replicas.state IN (${REAPABLE})
      ORDER BY replicas.tombstone_at LIMIT :limit`,
    bindings,
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
  /** Of them what failed attempts left: it is deleted, whoever asks for the file meanwhile. */
  readonly remains: readonly number[]
  readonly forgotten: readonly number[]
}

/**
 * Of these replicas those that may be deleted become BEING_DELETED, or are forgotten at once where no attempt of ours can have left
 * anything: what lies there is somebody else's (docs/decisions/0008). Never one that is locked, nor one that stays for another reason
 * (`staysFor`). Whoever asks for a file locks one of its replicas, or makes one, which holds the file's row (a foreign key does that): both
 * wait until this is over, and see it.
 */
export async function reapReplicas(
  executor: Executor,
  candidates: readonly Tombstone[],
  before: number,
  now: number,
): Promise<Reaped> {
  const ids = candidates.map(({ id }) => id)
  await holdFilesOf(executor, ids)
  const found = await factsOfUnlocked(executor, ids, now)
  const reaped = found.filter(row => row.tombstoneAt <= before && staysFor(row) === undefined)
  const free = reaped.map(row => row.id)
  await moveReplicas(executor, free, 'reap', now)
  await query(executor, `UPDATE replicas SET tombstone_at = NULL WHERE id ${oneOf(executor, 'free')}`, {
    free: encodeRows(free),
  })
  const forgotten = reaped.filter(row => !row.isOurs).map(row => row.id)
  await forgetReplicas(executor, forgotten, now)
  const toDelete = reaped.filter(row => row.isOurs)
  const remains = toDelete.filter(({ state }) => state === 'UNAVAILABLE')
  return { toDelete: toDelete.map(row => row.id), remains: remains.map(row => row.id), forgotten }
}

/** The state of a replica (an alias of `replicas`), or the one that it comes back to when it is not deleted after all. */
export function stateOf(alias: string): string {
  return `CASE WHEN ${alias}.state <> 'BEING_DELETED' THEN ${alias}.state WHEN EXISTS (SELECT 1 FROM replica_faults
    WHERE replica_faults.replica_id = ${alias}.id AND replica_faults.over_at IS NULL) THEN 'BAD' ELSE 'AVAILABLE' END`
}

export interface UnlockedReplica extends UnlockedFacts {
  readonly id: number
  /** 0 for one that is to be deleted. */
  readonly tombstoneAt: number
  /** What lies there was put there by us, or was registered. */
  readonly isOurs: boolean
}

type UnlockedRow = { id: number; file_id: number; state: ReplicaState; tombstone_at: number | null } & Record<
  'kept' | 'is_ours' | 'good' | 'expendable' | 'unconfirmed' | 'uploading' | 'in_task' | 'copying' | 'wanting',
  number | boolean
>

/** Those of these replicas that have a tombstone and no lock, with all that decides whether they stay. */
export async function factsOfUnlocked(
  executor: Executor,
  replicaIds: readonly number[],
  now: number,
): Promise<UnlockedReplica[]> {
  return factsWhere(executor, `replicas.tombstone_at IS NOT NULL AND replicas.state IN (${REAPABLE})`, replicaIds, now)
}

/** The same of those that are to be deleted, as they were before: a BAD one is still at fault. */
export async function factsOfReaped(
  executor: Executor,
  replicaIds: readonly number[],
  now: number,
): Promise<UnlockedReplica[]> {
  return factsWhere(executor, "replicas.state = 'BEING_DELETED'", replicaIds, now)
}

/** `condition`: on `replicas`. */
async function factsWhere(
  executor: Executor,
  condition: string,
  replicaIds: readonly number[],
  now: number,
): Promise<UnlockedReplica[]> {
  if (replicaIds.length === 0) return []
  const rows = await query<UnlockedRow>(
    executor,
    `SELECT replicas.id, replicas.file_id, ${stateOf('replicas')} AS state, replicas.tombstone_at, replicas.kept,
            (replicas.state <> 'UNAVAILABLE' OR EXISTS (SELECT 1 FROM transfers
              WHERE transfers.replica_id = replicas.id AND transfers.written_fence IS NOT NULL)) AS is_ours,
            EXISTS (SELECT 1 FROM replicas AS other WHERE other.file_id = replicas.file_id
              AND other.id <> replicas.id AND other.state = 'AVAILABLE') AS good,
            EXISTS (SELECT 1 FROM replica_faults AS fault WHERE fault.replica_id = replicas.id
              AND fault.over_at IS NULL AND fault.expendable) AS expendable,
            EXISTS (SELECT 1 FROM replica_faults AS fault WHERE fault.replica_id = replicas.id
              AND fault.over_at IS NULL AND fault.account_id IS NULL) AS unconfirmed,
            EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = replicas.id AND uploads.until > :now) AS uploading,
            (replicas.state <> 'BEING_DELETED' AND EXISTS (SELECT 1 FROM task_items WHERE task_items.replica_id = replicas.id)) AS in_task,
            EXISTS (SELECT 1 FROM replicas AS any_of JOIN transfers ON transfers.replica_id = any_of.id AND ${OPEN_TRANSFER}
              WHERE any_of.file_id = replicas.file_id) AS copying,
            EXISTS (SELECT 1 FROM replicas AS any_of JOIN locks ON locks.replica_id = any_of.id AND locks.state <> 'OK'
              WHERE any_of.file_id = replicas.file_id) AS wanting
       FROM replicas WHERE replicas.id ${oneOf(executor, 'replicas')} AND replicas.lock_count = 0 AND ${condition}`,
    { now, replicas: encodeRows(replicaIds) },
  )
  const asked = await filesAskedFor(executor, encodeRows([...new Set(rows.map(row => row.file_id))]))
  return rows.map(row => ({
    id: row.id,
    tombstoneAt: row.tombstone_at ?? 0,
    isOurs: Boolean(row.is_ours),
    state: row.state,
    kept: Boolean(row.kept),
    goodElsewhere: Boolean(row.good),
    expendable: Boolean(row.expendable),
    unconfirmed: Boolean(row.unconfirmed),
    asked: asked.has(row.file_id),
    undecided: asked.get(row.file_id) === true,
    wanting: Boolean(row.wanting),
    copying: Boolean(row.copying),
    uploading: Boolean(row.uploading),
    inTask: Boolean(row.in_task),
  }))
}

/**
 * Those of these files that a rule asks for, on the file itself or on anything that holds it; true: one that is still worked out.
 * `files`: their keys, encoded.
 */
async function filesAskedFor(executor: Executor, files: string): Promise<Map<number, boolean>> {
  const rows = await query<{ file_id: number; undecided: number }>(
    executor,
    `WITH RECURSIVE above (file_id, did_id) AS (
       SELECT value, value FROM ${keyset(executor, 'files')} AS given
       UNION SELECT above.file_id, contents.parent_id FROM above JOIN contents ON contents.child_id = above.did_id)
     SELECT above.file_id, max(CASE WHEN rules.stage = 'EXPANDED' THEN 0 ELSE 1 END) AS undecided
       FROM above JOIN rules ON rules.did_id = above.did_id AND rules.stage <> 'REMOVING' GROUP BY above.file_id`,
    { files },
  )
  return new Map(rows.map(row => [row.file_id, row.undecided > 0]))
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
    `UPDATE replicas SET reap_after = :at WHERE tombstone_at <= :before AND id ${oneOf(executor, 'replicas')}`,
    { before, at, replicas: encodeRows(replicaIds) },
  )
}

/**
 * These files are gone from their storage. What nobody asks for is no replica any more, and its transfers go with it; what is locked,
 * since it was BAD or has been asked for meanwhile, is copied there again.
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
  await addToRules(executor, await recopy(executor, wanted, now), now)
}
