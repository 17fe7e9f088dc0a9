import { holdFilesOf } from '../catalogue/hold-files.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { stillToRecover } from '../faults/store.ts'
import { stuckBeside } from '../rules/arrivals.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { recopy } from '../rules/recopy.ts'
import { addToRules, type RuleDelta } from '../rules/store.ts'
import { removeItems } from '../tasks/store.ts'
import { staysFor } from './stays.ts'
import { factsOfReaped, stateOf } from './store.ts'

/** Replicas that are not deleted after all, and what their rules are to be told of it. */
export interface Spared {
  readonly replicas: ReadonlySet<number>
  readonly good: readonly number[]
  readonly deltas: readonly RuleDelta[]
}

/**
 * Decides once more of these replicas that are to be deleted, and of which no worker was told yet: days may have passed since. What stays
 * now is as it was, and in no task; its rules hear of it at the end of the transaction (`tellRules`), and what is stuck for want of it is copied.
 */
export async function spareWanted(executor: Executor, replicaIds: readonly number[], now: number): Promise<Spared> {
  if (replicaIds.length === 0) return { replicas: new Set(), good: [], deltas: [] }
  await holdFilesOf(executor, replicaIds)
  const unlocked = await factsOfReaped(executor, replicaIds, now)
  const going = await stillToRecover(executor, replicaIds)
  for (const facts of unlocked) {
    if (staysFor(facts) === undefined) going.add(facts.id)
  }
  const staying = replicaIds.filter(id => !going.has(id))
  const rows = await query<{ id: number; state: 'AVAILABLE' | 'BAD' }>(
    executor,
    `UPDATE replicas SET state = ${stateOf('replicas')}, updated_at = :now,
            tombstone_at = CASE WHEN lock_count > 0 THEN NULL ELSE CAST(:now AS bigint) END
      WHERE state = 'BEING_DELETED' AND id ${oneOf(executor, 'replicas')} RETURNING id, state`,
    { now, replicas: encodeRows(staying) },
  )
  await removeItems(executor, staying)
  const those = (state: string): number[] => rows.filter(row => row.state === state).map(row => row.id)
  const good = those('AVAILABLE')
  const deltas = [...(await moveLocks(executor, good, 'succeed')), ...(await moveLocks(executor, those('BAD'), 'fail'))]
  return { replicas: new Set(staying), good, deltas }
}

/** Rows of rules come last. */
export async function tellRules(executor: Executor, { deltas, good }: Spared, now: number): Promise<void> {
  const stuck = new Set((await stuckBeside(executor, good)).map(({ id }) => id))
  const copied = await recopy(executor, [...stuck], now)
  await addToRules(executor, summedByRule([...deltas, ...copied]), now)
}
