import type { DidType } from '../catalogue/did-store.ts'
import { type Executor, encodeRows, keyset, oneOf, query, queryOne } from '../database/sql.ts'

/** What a rule still has to let go of. Each detaching has rows of its own: one that is being worked off says nothing of the next. */
export interface Detached {
  readonly id: number
  readonly did_id: number
  readonly type: DidType
  /** Of what it holds, those up to this one were looked at. */
  readonly cursor: number
}

/** For rules whose rows are locked; those that are being removed let go of everything anyway. */
export async function insertDetached(
  executor: Executor,
  ruleIds: readonly number[],
  didIds: readonly number[],
): Promise<void> {
  await query(
    executor,
    `INSERT INTO detached (rule_id, did_id, cursor)
     SELECT rules.id, given.value, 0 FROM rules, ${keyset(executor, 'dids')} AS given
      WHERE rules.stage <> 'REMOVING' AND rules.id ${oneOf(executor, 'rules')}`,
    { rules: encodeRows(ruleIds), dids: encodeRows(didIds) },
  )
}

/** The rules that still have to let go of one of these. */
export async function rulesLettingGo(executor: Executor, didIds: readonly number[]): Promise<number[]> {
  const rows = await query<{ rule_id: number }>(
    executor,
    `SELECT DISTINCT rule_id FROM detached WHERE did_id ${oneOf(executor, 'dids')}`,
    { dids: encodeRows(didIds) },
  )
  return rows.map(row => row.rule_id)
}

/** Rules behind this one that have something to let go of: from key to key, however much each has. */
export async function rulesToShrink(read: Executor, after: number, limit: number): Promise<number[]> {
  const rows = await query<{ rule_id: number }>(
    read,
    `WITH RECURSIVE found (rule_id) AS (
       SELECT min(rule_id) FROM detached WHERE rule_id > :after
       UNION ALL SELECT (SELECT min(rule_id) FROM detached WHERE rule_id > found.rule_id) FROM found WHERE found.rule_id IS NOT NULL
     ) SELECT rule_id FROM found WHERE rule_id IS NOT NULL LIMIT :limit`,
    { after, limit },
  )
  return rows.map(row => row.rule_id)
}

const COLUMNS = 'detached.id, detached.did_id, dids.type, detached.cursor'

/** What the rule is to let go of next. */
export async function nextDetached(executor: Executor, ruleId: number): Promise<Detached | undefined> {
  return queryOne<Detached>(
    executor,
    `SELECT ${COLUMNS} FROM detached JOIN dids ON dids.id = detached.did_id
      WHERE detached.rule_id = :ruleId ORDER BY detached.id LIMIT 1`,
    { ruleId },
  )
}

/** Files among what comes next, from this row on. */
export async function nextDetachedFiles(
  executor: Executor,
  ruleId: number,
  from: number,
  limit: number,
): Promise<Detached[]> {
  return query<Detached>(
    executor,
    `SELECT ${COLUMNS} FROM (SELECT id, did_id, cursor FROM detached WHERE rule_id = :ruleId AND id >= :from ORDER BY id LIMIT :limit)
         AS detached JOIN dids ON dids.id = detached.did_id AND dids.type = 'FILE'`,
    { ruleId, from, limit },
  )
}

export async function moveDetached(executor: Executor, id: number, cursor: number): Promise<void> {
  await query(executor, 'UPDATE detached SET cursor = :cursor WHERE id = :id', { id, cursor })
}

export async function deleteDetached(executor: Executor, ids: readonly number[]): Promise<void> {
  await query(executor, `DELETE FROM detached WHERE id ${oneOf(executor, 'ids')}`, { ids: encodeRows(ids) })
}
