import type { LockState } from '../../shared/domain/rule-state.ts'
import { type Executor, encodeRows, keyset, query } from '../database/sql.ts'
import type { RuleDelta } from './store.ts'

/** Moves the locks on these replicas from one state to another, and counts for their rules. */
export async function moveLocks(
  executor: Executor,
  replicaIds: readonly number[],
  from: LockState,
  to: LockState,
): Promise<RuleDelta[]> {
  if (replicaIds.length === 0) return []
  const rows = await query<{ rule_id: number }>(
    executor,
    `UPDATE locks SET state = :to WHERE state = :from AND replica_id IN ${keyset(executor, 'replicas')} RETURNING rule_id`,
    { from, to, replicas: encodeRows(replicaIds) },
  )
  const counts = new Map<number, number>()
  for (const row of rows) counts.set(row.rule_id, (counts.get(row.rule_id) ?? 0) + 1)
  const change = (state: LockState, count: number): number => (state === to ? count : 0) - (state === from ? count : 0)
  return [...counts].map(([rule_id, count]) => ({
    rule_id,
    ok: change('OK', count),
    replicating: change('REPLICATING', count),
    stuck: change('STUCK', count),
    problems: 0,
  }))
}

/** Stuck locks of a rule that are tried again; their replicas. */
export async function moveRuleLocks(executor: Executor, ruleId: number, limit: number): Promise<number[]> {
  const rows = await query<{ replica_id: number }>(
    executor,
    `UPDATE locks SET state = 'REPLICATING' WHERE rule_id = :ruleId AND state = 'STUCK' AND replica_id IN
       (SELECT replica_id FROM locks WHERE rule_id = :ruleId AND state = 'STUCK' ORDER BY replica_id LIMIT :limit)
     RETURNING replica_id`,
    { ruleId, limit },
  )
  return rows.map(row => row.replica_id)
}

/** New locks of a rule: OK where the replica is there, else REPLICATING. Those that exist are left alone. */
export async function insertLocks(
  executor: Executor,
  ruleId: number,
  replicaIds: readonly number[],
): Promise<{ replica_id: number; state: LockState }[]> {
  const inserted = await query<{ replica_id: number; state: LockState }>(
    executor,
    `INSERT INTO locks (rule_id, replica_id, state)
     SELECT :ruleId, id, CASE state WHEN 'AVAILABLE' THEN 'OK' ELSE 'REPLICATING' END FROM replicas
      WHERE id IN ${keyset(executor, 'replicas')} ON CONFLICT (rule_id, replica_id) DO NOTHING
     RETURNING replica_id, state`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
  await query(
    executor,
    `UPDATE replicas SET lock_count = lock_count + 1, tombstone_at = NULL WHERE id IN ${keyset(executor, 'locked')}`,
    { locked: encodeRows(inserted.map(row => row.replica_id)) },
  )
  return inserted
}

/** Takes away up to `limit` locks of a rule; replicas left without a lock get a tombstone. How many went. */
export async function removeLocks(
  executor: Executor,
  ruleId: number,
  limit: number,
  now: number,
): Promise<{ removed: number; unlocked: number[] }> {
  const gone = await query<{ replica_id: number }>(
    executor,
    `DELETE FROM locks WHERE rule_id = :ruleId AND replica_id IN
       (SELECT replica_id FROM locks WHERE rule_id = :ruleId ORDER BY replica_id LIMIT :limit) RETURNING replica_id`,
    { ruleId, limit },
  )
  const unlocked = await query<{ id: number; lock_count: number }>(
    executor,
    `UPDATE replicas SET lock_count = lock_count - 1,
            tombstone_at = CASE WHEN lock_count = 1 THEN :now ELSE tombstone_at END
      WHERE id IN ${keyset(executor, 'replicas')} RETURNING id, lock_count`,
    { now, replicas: encodeRows(gone.map(row => row.replica_id)) },
  )
  return { removed: gone.length, unlocked: unlocked.filter(row => row.lock_count === 0).map(row => row.id) }
}
