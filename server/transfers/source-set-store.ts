import { type Executor, encodeRows, isSqlite, lockRows, oneOf, query, queryOne } from '../database/sql.ts'
import { ALLOWED } from './sources.ts'

/** The storages that an expression names, from which the transfers of rules with it may take their files. */

/** The set of an expression; a new one gets these members, of any other the keeper knows better. */
export async function ensureSourceSet(
  executor: Executor,
  voId: number,
  expression: string,
  rseIds: readonly number[],
): Promise<void> {
  const made = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO source_sets (vo_id, expression) VALUES (:voId, :expression)
     ON CONFLICT (vo_id, expression) DO NOTHING RETURNING id`,
    { voId, expression },
  )
  if (made !== undefined) await insertMembers(executor, made.id, rseIds)
}

/** The set of a rule, which was made with it; null: its files may come from anywhere. */
export async function sourceSetOf(
  executor: Executor,
  rule: { readonly vo_id: number; readonly source_expression: string | null },
): Promise<number | null> {
  if (rule.source_expression === null) return null
  const row = await queryOne<{ id: number }>(
    executor,
    'SELECT id FROM source_sets WHERE vo_id = :voId AND expression = :expression',
    { voId: rule.vo_id, expression: rule.source_expression },
  )
  if (row === undefined) throw new Error(`the sources ${rule.source_expression} of a rule have no set`)
  return row.id
}

/**
 * What these sets hold stays so until the transaction is over: who opens transfers by what a set held before would not be seen by
 * those who look after its transfers. Before rows of transfers (docs/decisions/0018).
 */
export async function holdSourceSets(executor: Executor, setIds: readonly (number | null)[]): Promise<void> {
  const ids = [...new Set(setIds.filter(id => id !== null))]
  if (isSqlite(executor) || ids.length === 0) return
  await query(executor, `SELECT id FROM source_sets WHERE id ${oneOf(executor, 'ids')} ORDER BY id FOR SHARE`, {
    ids: encodeRows(ids),
  })
}

export interface SourceSet {
  readonly id: number
  readonly vo_id: number
  readonly expression: string
  readonly members: ReadonlySet<number>
}

/** The next sets behind a key. */
export async function sourceSets(read: Executor, after: number, limit: number): Promise<SourceSet[]> {
  const sets = await query<Omit<SourceSet, 'members'>>(
    read,
    'SELECT id, vo_id, expression FROM source_sets WHERE id > :after ORDER BY id LIMIT :limit',
    { after, limit },
  )
  if (sets.length === 0) return []
  const rows = await query<{ set_id: number; rse_id: number }>(
    read,
    `SELECT set_id, rse_id FROM source_set_members WHERE set_id ${oneOf(read, 'sets')}`,
    { sets: encodeRows(sets.map(set => set.id)) },
  )
  const members = new Map<number, Set<number>>(sets.map(set => [set.id, new Set()]))
  for (const row of rows) members.get(row.set_id)?.add(row.rse_id)
  return sets.map(set => ({ ...set, members: members.get(set.id) ?? new Set() }))
}

/** From now on a set has these members; its transfers are to be looked at. */
export async function putMembers(executor: Executor, setId: number, rseIds: readonly number[]): Promise<void> {
  await query(executor, 'UPDATE source_sets SET look_cursor = 0 WHERE id = :setId', { setId })
  await insertMembers(executor, setId, rseIds)
  await query(
    executor,
    `DELETE FROM source_set_members WHERE set_id = :setId AND NOT rse_id ${oneOf(executor, 'rses')}`,
    { setId, rses: encodeRows(rseIds) },
  )
}

/** Storages that were removed meanwhile are left out. */
async function insertMembers(executor: Executor, setId: number, rseIds: readonly number[]): Promise<void> {
  await query(
    executor,
    `INSERT INTO source_set_members (set_id, rse_id) SELECT CAST(:setId AS bigint), id FROM rses
      WHERE id ${oneOf(executor, 'rses')} ON CONFLICT DO NOTHING`,
    { setId, rses: encodeRows(rseIds) },
  )
}

/** A set whose members have changed, and how far its transfers were looked at since. */
export interface ChangedSet {
  readonly id: number
  readonly look_cursor: number
}

export async function changedSets(read: Executor, limit: number): Promise<ChangedSet[]> {
  const sql = 'SELECT id, look_cursor FROM source_sets WHERE look_cursor IS NOT NULL ORDER BY id LIMIT :limit'
  return query(read, sql, { limit })
}

/**
 * Looks at the next transfers of a set that have not begun: those whose source is not of it any more are planned anew, and those that
 * found none. False when another server has looked at them, or the members have changed again.
 */
export async function lookAtTransfers(
  executor: Executor,
  { id, look_cursor: cursor }: ChangedSet,
  limit: number,
  now: number,
): Promise<boolean> {
  const row = await queryOne(
    executor,
    'UPDATE source_sets SET look_cursor = look_cursor WHERE id = :id AND look_cursor = :cursor RETURNING id',
    { id, cursor },
  )
  if (row === undefined) return false
  const some = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE source_set_id = :id AND id > :cursor AND state IN ('WAITING', 'QUEUED', 'STAGING')
      ORDER BY id LIMIT :limit`,
    { id, cursor, limit },
  )
  const ids = some.map(transfer => transfer.id)
  await lockRows(executor, 'transfers', ids)
  await query(
    executor,
    `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
      WHERE id ${oneOf(executor, 'ids')} AND state IN ('QUEUED', 'STAGING') AND NOT EXISTS
        (SELECT 1 FROM replicas AS source WHERE source.id = transfers.source_replica_id AND ${ALLOWED})`,
    { ids: encodeRows(ids), now },
  )
  await query(
    executor,
    `UPDATE transfers SET not_before = 0
      WHERE id ${oneOf(executor, 'ids')} AND state = 'WAITING' AND reason = 'NO_ALLOWED_SOURCE'`,
    { ids: encodeRows(ids) },
  )
  const next = some.length < limit ? null : (ids.at(-1) ?? null)
  await query(executor, 'UPDATE source_sets SET look_cursor = CAST(:next AS bigint) WHERE id = :id', { id, next })
  return true
}
