import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { openTransfers } from '../transfers/open.ts'
import { HOPE } from '../transfers/sources.ts'
import { moveLocks, summedByRule } from './lock-store.ts'
import type { RuleDelta } from './store.ts'

interface Wish {
  readonly replica_id: number
  readonly vo_id: number
  readonly account_id: number
  readonly activity: string
  readonly priority: number
  readonly archive: number | boolean
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

/** Of each replica that somebody has, or is bringing, what the most urgent rule on it wants; on tape, where any rule does. */
async function wishesFor(executor: Executor, replicaIds: readonly number[], now: number): Promise<Wish[]> {
  const rows = await query<Wish>(
    executor,
    `SELECT own.id AS replica_id, rules.vo_id, rules.account_id, rules.activity, rules.priority, rules.archive
       FROM replicas AS own JOIN locks ON locks.replica_id = own.id JOIN rules ON rules.id = locks.rule_id AND rules.state <> 'SUSPENDED'
      WHERE own.state = 'UNAVAILABLE' AND own.id ${oneOf(executor, 'replicas')} AND ${HOPE}
      ORDER BY own.id, rules.priority DESC, rules.id`,
    { replicas: encodeRows(replicaIds), now },
  )
  const archived = new Set(rows.filter(row => row.archive).map(row => row.replica_id))
  const first = rows.filter((row, i) => row.replica_id !== rows[i - 1]?.replica_id)
  return first.map(row => ({ ...row, archive: archived.has(row.replica_id) }))
}

/** Wishes that are alike in all that a transfer takes from them. */
function sameWish(wishes: readonly Wish[]): Wish[][] {
  const groups = new Map<string, Wish[]>()
  for (const wish of wishes) {
    const { vo_id, account_id, activity, priority, archive } = wish
    const key = JSON.stringify([vo_id, account_id, activity, priority, Boolean(archive)])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [wish])
    else group.push(wish)
  }
  return [...groups.values()]
}
