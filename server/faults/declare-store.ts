import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { findReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, recordset } from '../database/sql.ts'

/** A file as somebody names it: by its DID, or by where it lies. */
export interface NamedFile {
  readonly position: number
  readonly scope: string
  readonly name: string
  readonly directory: string
  readonly file: string
}

export interface NamedReplica {
  readonly position: number
  readonly scope: string
  /** Whose DID it is. */
  readonly owner_id: number
  readonly id: number
  readonly state: ReplicaState
  /** It was found, or said, to be BAD or lost. */
  readonly at_fault: number | boolean
}

const AT_FAULT = `EXISTS (SELECT 1 FROM replica_faults WHERE replica_faults.replica_id = replicas.id AND replica_faults.over_at IS NULL)`

/** The replicas of these files at a storage, of the VO: those that are there. */
export async function replicasNamed(
  executor: Executor,
  { rseId, voId }: { readonly rseId: number; readonly voId: number },
  files: readonly NamedFile[],
): Promise<NamedReplica[]> {
  const columns = { position: 'bigint', scope: 'text', name: 'text', directory: 'text', file: 'text' } as const
  const bindings = { rseId, voId, rows: encodeRows(files) }
  const byDid = await query<NamedReplica>(
    executor,
    `SELECT given.position, scopes.name AS scope, dids.account_id AS owner_id, replicas.id, replicas.state, ${AT_FAULT} AS at_fault FROM ${recordset(executor, 'rows', columns)} AS given
       JOIN scopes ON scopes.name = given.scope AND scopes.vo_id = :voId
       JOIN dids ON dids.scope_id = scopes.id AND dids.name = given.name
       JOIN replicas ON replicas.file_id = dids.id AND replicas.rse_id = :rseId`,
    bindings,
  )
  const byPath = await query<NamedReplica>(
    executor,
    `SELECT given.position, scopes.name AS scope, dids.account_id AS owner_id, replicas.id, replicas.state, ${AT_FAULT} AS at_fault FROM ${recordset(executor, 'rows', columns)} AS given
       JOIN directories ON directories.rse_id = :rseId AND directories.path = given.directory
       JOIN replicas ON replicas.directory_id = directories.id AND replicas.name = given.file
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id AND scopes.vo_id = :voId`,
    bindings,
  )
  return [...byDid, ...byPath]
}

/** The scopes of these files, and whose they are. */
export async function scopesOf(
  executor: Executor,
  fileIds: readonly number[],
): Promise<{ scope: string; owner_id: number }[]> {
  return query(
    executor,
    `SELECT DISTINCT scopes.name AS scope, dids.account_id AS owner_id FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.id ${oneOf(executor, 'files')}`,
    { files: encodeRows(fileIds) },
  )
}

export async function statesOf(executor: Executor, replicaIds: readonly number[]): Promise<Map<number, ReplicaState>> {
  const rows = await query<{ id: number; state: ReplicaState }>(
    executor,
    `SELECT id, state FROM replicas WHERE id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  return new Map(rows.map(row => [row.id, row.state]))
}

export interface ListedFault {
  id: number
  did: string
  rse_id: number
  state: ReplicaState
  lock_count: number
  code: string
  message: string
  at: number
  account: string | null
  transfer_id: number | null
  /** It is BAD, and only goes when a person says so. */
  unconfirmed: number | boolean
}

/** Replicas at fault, in the order in which that was found. */
export async function listFaultsOf(
  read: Executor,
  sight: Sight,
  filter: { readonly rseId: number | undefined; readonly after: number; readonly limit: number },
): Promise<ListedFault[]> {
  return query<ListedFault>(
    read,
    `SELECT replica_faults.id, scopes.name || ':' || dids.name AS did, replicas.rse_id, replicas.state, replicas.lock_count,
            replica_faults.code, replica_faults.message, replica_faults.at, accounts.name AS account, replica_faults.transfer_id,
            (replicas.state = 'BAD' AND replicas.kept AND replica_faults.account_id IS NULL) AS unconfirmed
       FROM replica_faults JOIN replicas ON replicas.id = replica_faults.replica_id
       JOIN dids ON dids.id = replicas.file_id JOIN scopes ON scopes.id = dids.scope_id
       LEFT JOIN accounts ON accounts.id = replica_faults.account_id
      WHERE replica_faults.over_at IS NULL AND replica_faults.id > :after AND (:rseId = 0 OR replicas.rse_id = :rseId)
        ${withinReach(read, sight, { vo: 'scopes.vo_id' })}
      ORDER BY replica_faults.id LIMIT :limit`,
    { after: filter.after, limit: filter.limit, rseId: filter.rseId ?? 0, ...reachBindings(sight) },
  )
}

/**
 * Keeps replicas of these files at a storage, or lets go of them: what no lock holds has a tombstone then. How many were otherwise
 * before.
 */
export async function setKept(
  executor: Executor,
  rseId: number,
  fileIds: readonly number[],
  kept: boolean,
  now: number,
): Promise<number> {
  const replicas = (await findReplicas(executor, rseId, fileIds)).map(row => row.id)
  await lockRows(executor, 'replicas', replicas)
  const rows = await query(
    executor,
    `UPDATE replicas SET kept = CAST(:kept AS boolean),
            tombstone_at = CASE WHEN lock_count > 0 OR (CAST(:kept AS boolean) AND state = 'AVAILABLE') THEN NULL
              ELSE coalesce(tombstone_at, CAST(:now AS bigint)) END
      WHERE id ${oneOf(executor, 'replicas')} AND kept <> CAST(:kept AS boolean)
        AND state <> 'BEING_DELETED' RETURNING id`,
    { kept, now, replicas: encodeRows(replicas) },
  )
  return rows.length
}
