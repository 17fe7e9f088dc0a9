import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { openTransfers } from '../transfers/open.ts'
import { hopeBy } from '../transfers/sources.ts'
import { moveLocks, summedByRule } from './lock-store.ts'
import type { RuleDelta } from './store.ts'

interface Wish {
  readonly replica_id: number
  readonly vo_id: number
  readonly account_id: number
  readonly activity: string
  readonly priority: number
  readonly archive: number | boolean
  /** Where its file may come from; null: from anywhere. */
  readonly source_set_id: number | null
}

/**
 * These replicas, which are UNAVAILABLE and whose rows are locked, are copied to anew where rules hold them and their file can be had.
 * Of the others the locks are STUCK: the repair of their rules looks again. The changes for the rules' counters.
 */
export async function recopy(executor: Executor, replicaIds: readonly number[], now: number): Promise<RuleDelta[]> {
  if (replicaIds.length === 0) return []
  const wishes = await wishesFor(executor, replicaIds, now)
  const hopeful = new Set(wishes.map(wish => wish.replica_id))
  const repaired = await moveLocks(executor, [...hopeful], 'repair')
  const stuck = await moveLocks(
    executor,
    replicaIds.filter(id => !hopeful.has(id)),
    'fail',
  )
  for (const alike of sameWish(wishes)) {
    const [first] = alike
    const ids = alike.map(wish => wish.replica_id)
    if (first !== undefined) await openTransfers(executor, ids, first, now)
  }
  return summedByRule([...repaired, ...stuck])
}

/**
 * Of each replica whose file can be had, what the most urgent rule on it wants; on tape, where any rule does, and from anywhere, unless
 * all say from where: then as the oldest says.
 */
async function wishesFor(executor: Executor, replicaIds: readonly number[], now: number): Promise<Wish[]> {
  const rows = await query<Wish & { rule_id: number }>(
    executor,
    `SELECT own.id AS replica_id, rules.vo_id, rules.account_id, rules.activity, rules.priority, rules.archive, rules.id AS rule_id,
            source_sets.id AS source_set_id
       FROM replicas AS own JOIN locks ON locks.replica_id = own.id JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED'
       LEFT JOIN source_sets ON source_sets.vo_id = rules.vo_id AND source_sets.expression = rules.source_expression
      WHERE own.state = 'UNAVAILABLE' AND own.id ${oneOf(executor, 'replicas')} AND ${hopeBy('source_sets.id')}
      ORDER BY own.id, rules.priority DESC, rules.id`,
    { replicas: encodeRows(replicaIds), now },
  )
  const archived = new Set(rows.filter(row => row.archive).map(row => row.replica_id))
  const first = rows.filter((row, i) => row.replica_id !== rows[i - 1]?.replica_id)
  const sets = new Map<number, number | null>()
  for (const row of [...rows].sort((a, b) => b.rule_id - a.rule_id)) {
    if (sets.get(row.replica_id) !== null) sets.set(row.replica_id, row.source_set_id)
  }
  return first.map(row => ({
    ...row,
    archive: archived.has(row.replica_id),
    source_set_id: sets.get(row.replica_id) ?? null,
  }))
}

/** Wishes that are alike in all that a transfer takes from them. */
function sameWish(wishes: readonly Wish[]): Wish[][] {
  const groups = new Map<string, Wish[]>()
  for (const wish of wishes) {
    const { vo_id, account_id, activity, priority, archive, source_set_id } = wish
    const key = JSON.stringify([vo_id, account_id, activity, priority, Boolean(archive), source_set_id])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [wish])
    else group.push(wish)
  }
  return [...groups.values()]
}
