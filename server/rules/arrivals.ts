import { holdReplicasOf } from '../catalogue/hold-files.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { holdSourceSets } from '../transfers/source-set-store.ts'

/**
 * Files are somewhere again: what is stuck for want of them is copied at once (`recopy`), in the transaction in which they arrive. Not by
 * the repair of their rules: that may be past them, tries all that is stuck, and what fails otherwise keeps its spacing.
 */

/** Replicas that rules wait for, and none is bringing. */
const STUCK = `replicas JOIN rses ON rses.id = replicas.rse_id AND rses.availability_write
       JOIN locks ON locks.replica_id = replicas.id AND locks.state = 'STUCK' AND replicas.state = 'UNAVAILABLE'`

/** Holds all replicas of these files, and what opening transfers to them needs: before rows of transfers. Whether any is stuck. */
export async function holdForArrival(executor: Executor, fileIds: readonly number[]): Promise<boolean> {
  await holdReplicasOf(executor, fileIds)
  const rows = await query<{ id: number }>(
    executor,
    `SELECT DISTINCT replicas.id FROM ${STUCK} WHERE replicas.file_id ${oneOf(executor, 'files')}`,
    { files: encodeRows(fileIds) },
  )
  if (rows.length === 0) return false
  const sets = await query<{ id: number }>(
    executor,
    `SELECT DISTINCT source_sets.id FROM locks JOIN rules ON rules.id = locks.rule_id
       JOIN source_sets ON source_sets.vo_id = rules.vo_id AND source_sets.expression = rules.source_expression
      WHERE locks.replica_id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(rows.map(({ id }) => id)) },
  )
  await holdSourceSets(
    executor,
    sets.map(({ id }) => id),
  )
  return true
}

/** By replica that arrives, those of its file that are stuck. Who asks locks them, or holds them already. */
export async function stuckBeside(
  executor: Executor,
  replicaIds: readonly number[],
): Promise<{ readonly arriving: number; readonly id: number }[]> {
  if (replicaIds.length === 0) return []
  return query(
    executor,
    `SELECT DISTINCT arriving.id AS arriving, replicas.id FROM ${STUCK}
       JOIN replicas AS arriving ON arriving.file_id = replicas.file_id AND arriving.id <> replicas.id
      WHERE arriving.id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
}
