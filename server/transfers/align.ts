import { ACTIVE_STATES, ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, oneOf, query, recordset, stateList } from '../database/sql.ts'
import { expirePending } from './hop-store.ts'

/** What a transfer has from the rule that it is for. */
interface Wish {
  readonly replica_id: number
  readonly account_id: number
  readonly activity: string
  readonly priority: number
}

/**
 * The waiting transfers to these replicas, whose rows are locked, follow what the rules that want them say now: of several the one with
 * the highest priority, the oldest on ties. Those that were queued find their new place when they are planned next. A worker's own end
 * as they began.
 */
export async function alignTransfers(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  if (replicaIds.length === 0) return
  const wishes = await query<Wish>(
    executor,
    `SELECT locks.replica_id, rules.account_id, rules.activity, rules.priority
       FROM locks JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED'
      WHERE locks.state = 'REPLICATING' AND locks.replica_id ${oneOf(executor, 'replicas')}
      ORDER BY rules.priority, rules.id DESC`,
    { replicas: encodeRows(replicaIds) },
  )
  // Of a rule that was suspended and goes on before its worker heard of it.
  await query(
    executor,
    `UPDATE transfers SET cancel_requested = false WHERE cancel_requested AND state IN (${stateList(ACTIVE_STATES)})
       AND replica_id ${oneOf(executor, 'wanted')}`,
    { wanted: encodeRows(wishes.map(wish => wish.replica_id)) },
  )
  const columns = { replica_id: 'bigint', account_id: 'bigint', activity: 'text', priority: 'bigint' } as const
  // The last of each is the one that counts.
  const rows = [...new Map(wishes.map(wish => [wish.replica_id, wish])).values()]
  await query(
    executor,
    `UPDATE transfers SET account_id = given.account_id, activity = given.activity, priority = given.priority, updated_at = :now,
            state = CASE state WHEN 'QUEUED' THEN 'WAITING' ELSE state END,
            not_before = CASE state WHEN 'QUEUED' THEN 0 ELSE not_before END
       FROM ${recordset(executor, 'rows', columns)} AS given
      WHERE transfers.replica_id = given.replica_id AND transfers.state IN ('WAITING', 'QUEUED', 'STAGING')
        AND (transfers.activity <> given.activity OR transfers.priority <> given.priority)`,
    { now, rows: encodeRows(rows) },
  )
}

/**
 * A rule that says where its files may come from wants these replicas, whose rows are locked, no more: their transfers go by what the
 * rules that are left say, of several the oldest, unless one takes them from anywhere. What brings a file nearer for others goes on as
 * they need it. A worker's own end as they began.
 */
export async function alignSources(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  if (replicaIds.length === 0) return
  const wishes = await query<{ id: number; set_id: number | null }>(
    executor,
    `SELECT transfers.id, source_sets.id AS set_id FROM transfers
       JOIN locks ON locks.replica_id = transfers.replica_id AND locks.state = 'REPLICATING'
       JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED'
       LEFT JOIN source_sets ON source_sets.vo_id = rules.vo_id AND source_sets.expression = rules.source_expression
      WHERE transfers.source_set_id IS NOT NULL AND transfers.state NOT IN (${stateList(ENDED_STATES)})
        AND transfers.replica_id ${oneOf(executor, 'replicas')}
        AND NOT EXISTS (SELECT 1 FROM hops WHERE hops.carrier_id = transfers.id AND hops.look_at IS NOT NULL)
      ORDER BY rules.source_expression IS NULL, rules.id DESC`,
    { replicas: encodeRows(replicaIds) },
  )
  // The last of each is the one that counts.
  const rows = [...new Map(wishes.map(wish => [wish.id, wish])).values()]
  const changed = await query<{ id: number; source_set_id: number | null }>(
    executor,
    `UPDATE transfers SET source_set_id = given.set_id, updated_at = :now,
            state = CASE WHEN state IN ('QUEUED', 'STAGING') THEN 'WAITING' ELSE state END,
            not_before = CASE WHEN state IN ('QUEUED', 'STAGING') OR reason = 'NO_ALLOWED_SOURCE' THEN 0 ELSE not_before END
       FROM ${recordset(executor, 'rows', { id: 'bigint', set_id: 'bigint' })} AS given
      WHERE transfers.id = given.id AND coalesce(given.set_id, 0) <> transfers.source_set_id RETURNING transfers.id, source_set_id`,
    { now, rows: encodeRows(rows) },
  )
  // What is on its way may be from where it must not be now.
  const narrowed = changed.filter(row => row.source_set_id !== null)
  await expirePending(
    executor,
    narrowed.map(row => row.id),
  )
}
