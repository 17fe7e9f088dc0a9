import { LOCK_MACHINE, type LockEvent, type LockState } from '../../shared/domain/rule-state.ts'
import { statesAccepting, stepsOf } from '../../shared/domain/state-machine.ts'
import type { UsageDelta } from '../accounts/usage-store.ts'
import {
  type Executor,
  encodeRows,
  isSqlite,
  keyset,
  lockRows,
  oneOf,
  overtaken,
  query,
  queryOne,
  stateList,
} from '../database/sql.ts'
import { hopeBy } from '../transfers/sources.ts'
import { chosenFor } from './choice-store.ts'
import type { RuleDelta } from './store.ts'

/** What an event at these replicas means for the locks on them; the changes for their rules' counters. */
export async function moveLocks(
  executor: Executor,
  replicaIds: readonly number[],
  event: LockEvent,
): Promise<RuleDelta[]> {
  if (replicaIds.length === 0) return []
  const deltas: RuleDelta[] = []
  for (const step of stepsOf(LOCK_MACHINE, event)) {
    const rows = await query<{ rule_id: number }>(
      executor,
      `UPDATE locks SET state = :to WHERE state = :from AND replica_id ${oneOf(executor, 'replicas')} RETURNING rule_id`,
      { ...step, replicas: encodeRows(replicaIds) },
    )
    deltas.push(...deltasOf(rows, step))
  }
  return summedByRule(deltas)
}

function deltasOf(rows: readonly { rule_id: number }[], { from, to }: { from: LockState; to: LockState }): RuleDelta[] {
  const change = (state: LockState): number => (state === to ? 1 : 0) - (state === from ? 1 : 0)
  const delta = { ok: change('OK'), replicating: change('REPLICATING'), stuck: change('STUCK'), problems: 0 }
  return rows.map(({ rule_id }) => ({ rule_id, ...delta }))
}

/** One for each rule: a set statement takes each row's change once. */
export function summedByRule(deltas: readonly RuleDelta[]): RuleDelta[] {
  const sums = new Map<number, RuleDelta>()
  for (const { rule_id, ok, replicating, stuck, problems } of deltas) {
    const sum = sums.get(rule_id) ?? { rule_id, ok: 0, replicating: 0, stuck: 0, problems: 0 }
    sums.set(rule_id, {
      rule_id,
      ok: sum.ok + ok,
      replicating: sum.replicating + replicating,
      stuck: sum.stuck + stuck,
      problems: sum.problems + problems,
    })
  }
  return [...sums.values()]
}

/** The replicas of some stuck locks of a rule, behind the replica `after`. */
export async function stuckLocks(executor: Executor, ruleId: number, after: number, limit: number): Promise<number[]> {
  const rows = await query<{ replica_id: number }>(
    executor,
    `SELECT replica_id FROM locks WHERE rule_id = :ruleId AND state IN (${stateList(statesAccepting(LOCK_MACHINE, 'repair'))})
        AND replica_id > :after ORDER BY replica_id LIMIT :limit`,
    { ruleId, after, limit },
  )
  return rows.map(row => row.replica_id)
}

/**
 * Stuck locks of a rule on these replicas are tried again: which, and the change for the rule's counters.
 * Those whose file nobody has any more from whom the rule takes it, or whose storage is not written to, stay stuck: a rule must not go to and fro for them
 * (rucio #8743). So do those that are BAD: what lies there must go first (`faults/recover.ts`).
 */
export async function repairLocks(
  executor: Executor,
  { id: ruleId, source_set_id: set }: { readonly id: number; readonly source_set_id: number | null },
  ids: readonly number[],
  now: number,
): Promise<{ readonly replicas: number[]; readonly deltas: RuleDelta[] }> {
  await lockRows(executor, 'replicas', ids)
  const hopeful = await query<{ id: number }>(
    executor,
    `SELECT own.id FROM replicas AS own JOIN rses ON rses.id = own.rse_id AND rses.availability_write
      WHERE own.state <> 'BAD' AND own.id ${oneOf(executor, 'replicas')} AND ${hopeBy('CAST(:set AS bigint)')}`,
    { replicas: encodeRows(ids), set, now },
  )
  const replicas: number[] = []
  const deltas: RuleDelta[] = []
  for (const step of stepsOf(LOCK_MACHINE, 'repair')) {
    const rows = await query<{ rule_id: number; replica_id: number }>(
      executor,
      `UPDATE locks SET state = :to WHERE rule_id = :ruleId AND state = :from
          AND replica_id ${oneOf(executor, 'replicas')} RETURNING rule_id, replica_id`,
      { ...step, ruleId, replicas: encodeRows(hopeful.map(row => row.id)) },
    )
    replicas.push(...rows.map(row => row.replica_id))
    deltas.push(...deltasOf(rows, step))
  }
  return { replicas, deltas: summedByRule(deltas) }
}

/** Those of these replicas that the rule has no lock for: most have one where a file came to a dataset that is kept already. */
export async function withoutLock(
  executor: Executor,
  ruleId: number,
  replicaIds: readonly number[],
): Promise<number[]> {
  if (replicaIds.length === 0) return []
  const rows = await query<{ value: number }>(
    executor,
    `SELECT value FROM ${keyset(executor, 'replicas')} AS given
      WHERE NOT EXISTS (SELECT 1 FROM locks WHERE locks.rule_id = :ruleId AND locks.replica_id = given.value)`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
  return rows.map(row => row.value)
}

/** New locks of a rule: OK where the replica is there, STUCK where it is BAD, else REPLICATING. Those that exist are left alone. */
export async function insertLocks(
  executor: Executor,
  ruleId: number,
  replicaIds: readonly number[],
): Promise<{ replica_id: number; state: LockState }[]> {
  if (replicaIds.length === 0) return []
  // A replica that arrives meanwhile must not miss its new lock, nor the lock the arrival.
  await lockRows(executor, 'replicas', replicaIds)
  await demandReplicas(executor, replicaIds)
  const inserted = await query<{ replica_id: number; state: LockState }>(
    executor,
    `INSERT INTO locks (rule_id, replica_id, state)
     SELECT :ruleId, id, CASE state WHEN 'AVAILABLE' THEN 'OK' WHEN 'BAD' THEN 'STUCK' ELSE 'REPLICATING' END FROM replicas
      WHERE id ${oneOf(executor, 'replicas')} ON CONFLICT (rule_id, replica_id) DO NOTHING
     RETURNING replica_id, state`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
  await query(
    executor,
    `UPDATE replicas SET lock_count = lock_count + 1, tombstone_at = NULL, purge = false WHERE id ${oneOf(executor, 'locked')}`,
    { locked: encodeRows(inserted.map(row => row.replica_id)) },
  )
  return inserted
}

/** One of them may have been deleted between the look and the lock: the step is run again, and makes it anew. */
async function demandReplicas(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (isSqlite(executor) || replicaIds.length === 0) return
  const row = await queryOne<{ count: number }>(
    executor,
    `SELECT count(*) AS count FROM replicas WHERE id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  if (row?.count !== replicaIds.length) throw overtaken('a replica was deleted meanwhile')
}

/** The locks of replicas that were made with one (`insertReplicas`) in this transaction: nobody else knows them yet. */
export async function insertFirstLocks(
  executor: Executor,
  ruleId: number,
  replicaIds: readonly number[],
): Promise<void> {
  await query(
    executor,
    `INSERT INTO locks (rule_id, replica_id, state) SELECT :ruleId, value, 'REPLICATING' FROM ${keyset(executor, 'replicas')} AS given`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
}

/** The replicas that some locks of a rule are on. */
export async function lockedBy(executor: Executor, ruleId: number, limit: number): Promise<number[]> {
  const rows = await query<{ replica_id: number }>(
    executor,
    'SELECT replica_id FROM locks WHERE rule_id = :ruleId ORDER BY replica_id LIMIT :limit',
    { ruleId, limit },
  )
  return rows.map(row => row.replica_id)
}

/** Of the replicas of these files those that the rule has a lock on and that were chosen for nothing that it still has. */
export async function lockedInVain(executor: Executor, ruleId: number, fileIds: readonly number[]): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT replicas.id FROM replicas JOIN locks ON locks.replica_id = replicas.id AND locks.rule_id = :ruleId
      WHERE replicas.file_id ${oneOf(executor, 'files')} AND NOT ${chosenFor('replicas.file_id', 'replicas.rse_id')}`,
    { ruleId, files: encodeRows(fileIds) },
  )
  return rows.map(row => row.id)
}

export interface RemovedLocks {
  /** For the rule's counters. */
  readonly delta: RuleDelta
  /** What its account gets back. */
  readonly usage: UsageDelta[]
}

/**
 * Takes a rule's locks on these replicas away. Those left without a lock get a tombstone, but for those that are kept while they are
 * there; one of the epoch where the rule says that they go at once.
 */
export async function removeLocks(
  executor: Executor,
  { id: ruleId, purge_replicas }: { readonly id: number; readonly purge_replicas: number | boolean },
  replicaIds: readonly number[],
  now: number,
): Promise<RemovedLocks> {
  const purge = Boolean(purge_replicas)
  await lockRows(executor, 'replicas', replicaIds)
  const gone = await query<{ replica_id: number; state: LockState }>(
    executor,
    `DELETE FROM locks WHERE rule_id = :ruleId AND replica_id ${oneOf(executor, 'replicas')} RETURNING replica_id, state`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
  const ids = encodeRows(gone.map(row => row.replica_id))
  const usage = await query<UsageDelta>(
    executor,
    `SELECT replicas.rse_id, -count(*) AS files, CAST(-sum(dids.bytes) AS bigint) AS bytes, 0 AS reserved
       FROM replicas JOIN dids ON dids.id = replicas.file_id WHERE replicas.id ${oneOf(executor, 'replicas')} GROUP BY replicas.rse_id`,
    { replicas: ids },
  )
  await query(
    executor,
    `UPDATE replicas SET lock_count = lock_count - 1, purge = (lock_count = 1 AND CAST(:purge AS boolean)),
            tombstone_at = CASE WHEN lock_count > 1 OR (kept AND state = 'AVAILABLE') THEN NULL ELSE CAST(:at AS bigint) END
      WHERE id ${oneOf(executor, 'replicas')}`,
    { at: purge ? 0 : now, purge, replicas: ids },
  )
  const fewer = (state: LockState): number => 0 - gone.filter(row => row.state === state).length
  const counters = { ok: fewer('OK'), replicating: fewer('REPLICATING'), stuck: fewer('STUCK'), problems: 0 }
  return { delta: { rule_id: ruleId, ...counters }, usage }
}
