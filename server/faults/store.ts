import { REPLICA_MACHINE, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { endFaults, moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, queryOne, recordset, stateList } from '../database/sql.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { recopy } from '../rules/recopy.ts'
import type { RuleDelta } from '../rules/store.ts'
import { bringOnline, sendBack } from '../tape/staging.ts'
import { dropItems } from '../tasks/items.ts'
import { markHopsOver } from '../transfers/hop-store.ts'

/** What was found of a replica, or said: it is not the file, or is not there. */
export interface Fault {
  readonly replica_id: number
  /** That found it. */
  readonly transfer_id: number | null
  /** Of who declared it. */
  readonly account_id: number | null
  readonly code: string
  readonly message: string
  /** It may be deleted though no storage have a good copy. */
  readonly expendable: boolean
  /** When the attempt began that found it. Of what came there later it says nothing. */
  readonly since?: number
}

/** Of what a worker has found. */
export const FOUND = { account_id: null, expendable: false } as const

/**
 * These replicas are BAD from now on: nothing is copied from them, and rules that hold them are stuck until they are recovered
 * (`recover.ts`). Those in a state that does not allow it stay as they are. Their files are held (`holdFilesOf`); the changes for the rules'
 * counters.
 */
export async function condemnReplicas(executor: Executor, faults: readonly Fault[], now: number): Promise<RuleDelta[]> {
  const ids = await recordFaults(executor, faults, 'condemn', now)
  return moveLocks(executor, ids, 'lose')
}

/**
 * The files of these replicas do not lie there: what rules hold of them is copied there again at once, if anybody has it. Otherwise
 * as `condemnReplicas`.
 */
export async function loseReplicas(executor: Executor, faults: readonly Fault[], now: number): Promise<RuleDelta[]> {
  const ids = await recordFaults(executor, faults, 'lose', now)
  const lost = await moveLocks(executor, ids, 'lose')
  return summedByRule([...lost, ...(await recopy(executor, ids, now))])
}

/** Those that it happened to. What nobody holds gets a tombstone. */
async function recordFaults(
  executor: Executor,
  faults: readonly Fault[],
  event: 'condemn' | 'lose',
  now: number,
): Promise<number[]> {
  if (faults.length === 0) return []
  const given = new Map(faults.map(fault => [fault.replica_id, fault]))
  const found = await query<{ id: number; state: ReplicaState; updated_at: number }>(
    executor,
    `SELECT id, state, updated_at FROM replicas WHERE state IN (${stateList(statesAccepting(REPLICA_MACHINE, event))})
        AND id ${oneOf(executor, 'replicas')}
        AND (state <> 'UNAVAILABLE' OR EXISTS (SELECT 1 FROM replica_faults WHERE replica_id = replicas.id AND over_at IS NULL))`,
    { replicas: encodeRows([...given.keys()]) },
  )
  const ids = found.filter(row => isOf(given.get(row.id), row)).map(row => row.id)
  if (ids.length === 0) return []
  await endFaults(executor, ids, now)
  const columns = {
    replica_id: 'bigint',
    transfer_id: 'bigint',
    account_id: 'bigint',
    code: 'text',
    message: 'text',
    expendable: 'boolean',
  } as const
  const names = Object.keys(columns).join(', ')
  await query(
    executor,
    `INSERT INTO replica_faults (at, ${names}) SELECT :now, ${names} FROM ${recordset(executor, 'rows', columns)} AS given WHERE true`,
    { now, rows: encodeRows(ids.flatMap(id => given.get(id) ?? [])) },
  )
  await moveReplicas(executor, ids, event, now)
  await dropItems(executor, ids, 'look')
  // What nobody has let go of is not let go of by being found: it is kept as long as no storage has a good copy.
  await query(
    executor,
    `UPDATE replicas SET kept = (kept OR tombstone_at IS NULL), purge = true, tombstone_at = coalesce(tombstone_at, CAST(:now AS bigint))
      WHERE lock_count = 0 AND id ${oneOf(executor, 'replicas')}`,
    { now, replicas: encodeRows(ids) },
  )
  await markHopsOver(executor, ids)
  // No worker has these yet: they find another source, or wait for one. What is just being planned from here is waited for.
  await holdTransfersOf(executor, ids)
  await sendBack(executor, ids, now)
  await bringOnline(executor, ids, now)
  return ids
}

/** Whether what was found is of the file that the replica has now. */
function isOf(fault: Fault | undefined, { state, updated_at }: { state: ReplicaState; updated_at: number }): boolean {
  return fault?.since === undefined || (state !== 'UNAVAILABLE' && updated_at <= fault.since)
}

/** Locks the open transfers of the files of these replicas. */
async function holdTransfersOf(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT transfers.id FROM replicas AS found JOIN replicas AS any_of ON any_of.file_id = found.file_id
       JOIN transfers ON transfers.replica_id = any_of.id AND transfers.state NOT IN (${stateList(ENDED_STATES)})
      WHERE found.id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  await lockRows(
    executor,
    'transfers',
    rows.map(row => row.id),
  )
}

/** Somebody says that these BAD replicas may be deleted, though they may be all that is left. Their rows are locked. */
export async function giveUpReplicas(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE replica_faults SET expendable = :yes WHERE over_at IS NULL AND replica_id ${oneOf(executor, 'replicas')}`,
    { yes: true, replicas: encodeRows(replicaIds) },
  )
}

/** Somebody says so too of these BAD replicas: of which only a worker had. Their rows are locked. */
export async function confirmFaults(
  executor: Executor,
  replicaIds: readonly number[],
  accountId: number,
): Promise<Set<number>> {
  if (replicaIds.length === 0) return new Set()
  const rows = await query<{ replica_id: number }>(
    executor,
    `UPDATE replica_faults SET account_id = :accountId
      WHERE over_at IS NULL AND account_id IS NULL AND replica_id ${oneOf(executor, 'replicas')} RETURNING replica_id`,
    { accountId, replicas: encodeRows(replicaIds) },
  )
  return new Set(rows.map(row => row.replica_id))
}

/** Whether any replica is at fault now: a look that costs nothing where none is. */
export async function isAnyAtFault(read: Executor): Promise<boolean> {
  return (await queryOne(read, 'SELECT 1 AS one FROM replica_faults WHERE over_at IS NULL LIMIT 1')) !== undefined
}

/**
 * Whether the BAD replica `own`, with its open fault `fault`, may be deleted to be copied anew: some storage that can be read has a
 * good copy, or somebody said that it may go without one. What was registered, imported or uploaded waits for a person to say that it is BAD.
 */
const MAY_GO = `NOT (own.kept AND fault.account_id IS NULL) AND EXISTS (SELECT 1 FROM locks JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED' WHERE locks.replica_id = own.id)
  AND EXISTS (SELECT 1 FROM rses WHERE rses.id = own.rse_id AND rses.availability_write AND rses.availability_delete)
  AND (fault.expendable OR EXISTS (SELECT 1 FROM replicas AS other JOIN rses ON rses.id = other.rse_id AND rses.availability_read
         WHERE other.file_id = own.file_id AND other.id <> own.id AND other.state = 'AVAILABLE'))`
/** And nobody is at it. Binds `now`. */
const RECOVERABLE = `own.state = 'BAD' AND ${MAY_GO}
  AND NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = own.id AND uploads.until > :now)
  AND NOT EXISTS (SELECT 1 FROM task_items WHERE task_items.replica_id = own.id)`

export interface BadReplica {
  readonly id: number
  readonly rse_id: number
  readonly vo_id: number
  readonly top_id: number
}

/** Those of these replicas that can be recovered now, in order of directories. */
export async function recoverable(
  executor: Executor,
  replicaIds: readonly number[],
  now: number,
): Promise<BadReplica[]> {
  return query<BadReplica>(
    executor,
    `SELECT own.id, own.rse_id, scopes.vo_id, coalesce(directories.top_id, directories.id) AS top_id
       FROM replica_faults AS fault JOIN replicas AS own ON own.id = fault.replica_id
       JOIN directories ON directories.id = own.directory_id
       JOIN dids ON dids.id = own.file_id JOIN scopes ON scopes.id = dids.scope_id
      WHERE fault.over_at IS NULL AND fault.replica_id ${oneOf(executor, 'replicas')} AND ${RECOVERABLE}
      ORDER BY top_id, own.id`,
    { now, replicas: encodeRows(replicaIds) },
  )
}

/** Those of these replicas, which are to be deleted so that they are copied anew, of which that is still right. */
export async function stillToRecover(executor: Executor, replicaIds: readonly number[]): Promise<Set<number>> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT own.id FROM replica_faults AS fault JOIN replicas AS own ON own.id = fault.replica_id
      WHERE fault.over_at IS NULL AND fault.replica_id ${oneOf(executor, 'replicas')} AND own.state = 'BEING_DELETED' AND ${MAY_GO}`,
    { replicas: encodeRows(replicaIds) },
  )
  return new Set(rows.map(row => row.id))
}

/** Replicas at fault, behind `after`, in order of their keys. */
export async function atFault(read: Executor, after: number, limit: number): Promise<number[]> {
  const rows = await query<{ replica_id: number }>(
    read,
    'SELECT replica_id FROM replica_faults WHERE over_at IS NULL AND replica_id > :after ORDER BY replica_id LIMIT :limit',
    { after, limit },
  )
  return rows.map(row => row.replica_id)
}
