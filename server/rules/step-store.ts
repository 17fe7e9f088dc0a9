import { type Executor, encodeRows, isSqlite, lockRows, oneOf, query, queryOne } from '../database/sql.ts'
import { insertPart } from './part-store.ts'
import type { RuleRow, RuleStage } from './store.ts'

/** How far the evaluation of a rule got, its repair and its end: one server at a time works at a rule. */

/** Nothing is done for a rule in these states, but taking it away. */
const RESTING = `'SUSPENDED', 'WAITING_APPROVAL'`

/** There is something that a repair can try: stuck locks, files that got none, too few storages. */
export const REPAIRABLE = '(locks_stuck > 0 OR problems > 0 OR error IS NOT NULL)'

/** The rules whose turn it is: those not worked on for the longest first, whatever else becomes of them meanwhile. */
export async function rulesInWork(executor: Executor, limit: number): Promise<RuleRow[]> {
  return query<RuleRow>(
    executor,
    `SELECT * FROM rules WHERE stage <> 'EXPANDED' AND (stage = 'REMOVING' OR state NOT IN (${RESTING}))
      ORDER BY turn_at, id LIMIT :limit`,
    { limit },
  )
}

/** The advisory locks on rules among those of the database: above all others, with room for every key. */
const RULE_LOCKS = 2 ** 50

/**
 * One server at a time works at a rule; false: another is at it. Not the rule's row: whoever brings a file adds to its
 * counters meanwhile, and rows of rules are locked last of all.
 */
export async function tryLockRule(executor: Executor, ruleId: number): Promise<boolean> {
  if (isSqlite(executor)) return true
  const sql = 'SELECT pg_try_advisory_xact_lock(CAST(:key AS bigint)) AS taken'
  const row = await queryOne<{ taken: boolean }>(executor, sql, { key: RULE_LOCKS + ruleId })
  return row?.taken === true
}

/** Waits for the step that is under way. */
export async function lockRule(executor: Executor, ruleId: number): Promise<void> {
  if (isSqlite(executor)) return
  await query(executor, 'SELECT pg_advisory_xact_lock(CAST(:key AS bigint))', { key: RULE_LOCKS + ruleId })
}

/**
 * The guard of one step, at the beginning of its transaction: the rule as it is now (what people change of one is the next step's);
 * undefined when somebody else has taken the step, or takes it now.
 */
export async function takeStep(executor: Executor, rule: RuleRow): Promise<RuleRow | undefined> {
  if (!(await tryLockRule(executor, rule.id))) return undefined
  return queryOne<RuleRow>(
    executor,
    `SELECT * FROM rules WHERE id = :id AND stage = :stage AND pass = :pass AND cursor_choice = :choice AND cursor_file = :file
        AND (stage = 'REMOVING' OR state NOT IN (${RESTING}))`,
    { id: rule.id, stage: rule.stage, pass: rule.pass, choice: rule.cursor_choice, file: rule.cursor_file },
  )
}

/** Likewise for a step that lets go of what was detached, which may come between any two others: the rule as it is now. */
export async function takeRule(executor: Executor, ruleId: number): Promise<RuleRow | undefined> {
  if (!(await tryLockRule(executor, ruleId))) return undefined
  return queryOne<RuleRow>(executor, "SELECT * FROM rules WHERE id = :ruleId AND stage <> 'REMOVING'", { ruleId })
}

/** Behind all others: see `rulesInWork`. */
export async function postpone(executor: Executor, ruleId: number, now: number): Promise<void> {
  await query(executor, 'UPDATE rules SET turn_at = :now WHERE id = :ruleId', { ruleId, now })
}

/** All choices are worked off: the rule lacks what was found in this pass, and is expanded, or begins another pass when something was attached meanwhile. */
export async function endPass(executor: Executor, ruleId: number): Promise<void> {
  // A statement of its own: what is attached while this one waits for the row must be seen by the next.
  await lockRows(executor, 'rules', [ruleId])
  await query(
    executor,
    `UPDATE rules SET cursor_choice = 0, cursor_file = 0, pass = pass + 1, error = found_error,
            stage = CASE WHEN EXISTS (SELECT 1 FROM rule_parts WHERE rule_id = :ruleId) THEN 'CHOOSING' ELSE 'EXPANDED' END
      WHERE id = :ruleId`,
    { ruleId },
  )
  await query(executor, 'UPDATE rule_parts SET later = false WHERE rule_id = :ruleId', { ruleId })
}

export async function moveCursor(
  executor: Executor,
  ruleId: number,
  to: { stage: RuleStage; choice: number; file: number },
  now: number,
): Promise<void> {
  await query(
    executor,
    'UPDATE rules SET stage = :stage, cursor_choice = :choice, cursor_file = :file, turn_at = :now, updated_at = :now WHERE id = :ruleId',
    { ruleId, now, ...to },
  )
}

/** Stuck rules without a date for their repair. */
export async function unscheduledRepairs(read: Executor, limit: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    read,
    `SELECT id FROM rules WHERE state = 'STUCK' AND stage <> 'REMOVING' AND repair_at IS NULL
        AND ${REPAIRABLE} LIMIT :limit`,
    { limit },
  )
  return rows.map(row => row.id)
}

/** Those of them that still have none get one. */
export async function scheduleRepairs(executor: Executor, ruleIds: readonly number[], at: number): Promise<void> {
  await lockRows(executor, 'rules', ruleIds)
  await query(
    executor,
    `UPDATE rules SET repair_at = :at WHERE state = 'STUCK' AND stage <> 'REMOVING' AND repair_at IS NULL
        AND id ${oneOf(executor, 'rules')}`,
    { at, rules: encodeRows(ruleIds) },
  )
}

/** A rule whose repair is due. */
export interface RuleToRepair extends RuleRow {
  readonly repairs: number
  readonly repair_cursor: number
}

/**
 * The guard of one repair, at the beginning of its transaction: the rule as it is now, and whether there is something to repair;
 * undefined when another server has taken it, or takes it now.
 */
export async function takeRepair(
  executor: Executor,
  rule: RuleToRepair,
): Promise<(RuleToRepair & { readonly repairable: number | boolean }) | undefined> {
  if (!(await tryLockRule(executor, rule.id))) return undefined
  return queryOne(
    executor,
    `SELECT rules.*, ${REPAIRABLE} AS repairable FROM rules
      WHERE id = :ruleId AND repairs = :repairs AND repair_cursor = :cursor AND repair_at IS NOT NULL`,
    { ruleId: rule.id, repairs: rule.repairs, cursor: rule.repair_cursor },
  )
}

/** One repair is done; the next is due at `next`. A rule that had nothing to repair loses its date. */
export async function endRepair(executor: Executor, ruleId: number, next: number | null): Promise<void> {
  await query(
    executor,
    'UPDATE rules SET repairs = repairs + 1, repair_cursor = 0, repair_at = CAST(:next AS bigint) WHERE id = :ruleId',
    { ruleId, next },
  )
}

/** A repair that failed is tried again then; the others are first. */
export async function putOffRepair(executor: Executor, ruleId: number, until: number): Promise<void> {
  await query(executor, 'UPDATE rules SET repair_at = :until WHERE id = :ruleId AND repair_at < :until', {
    ruleId,
    until,
  })
}

/** More locks of this rule are stuck than one round takes: the repair goes on at once, behind this replica. */
export async function repairOn(executor: Executor, ruleId: number, cursor: number, now: number): Promise<void> {
  await query(executor, 'UPDATE rules SET repair_at = :now, repair_cursor = :cursor WHERE id = :ruleId', {
    ruleId,
    cursor,
    now,
  })
}

/** Its repair is not due, or has no date yet. */
const NOT_DUE = '(repair_at IS NULL OR repair_at > :now)'

/** An account may lock more, or less: its rules that found too little quota are repaired at once; without an account those of all of the VO. */
export async function repairQuota(
  executor: Executor,
  { voId, accountId }: { readonly voId: number; readonly accountId: number | undefined },
  now: number,
): Promise<void> {
  const waiting = `state = 'STUCK' AND stage <> 'REMOVING' AND error LIKE 'QUOTA_EXCEEDED%' AND ${NOT_DUE}`
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE ${waiting} AND vo_id = :voId AND (:accountId = 0 OR account_id = :accountId)`,
    { voId, accountId: accountId ?? 0, now },
  )
  const rules = rows.map(row => row.id)
  await lockRows(executor, 'rules', rules)
  await query(executor, `UPDATE rules SET repair_at = :now WHERE ${waiting} AND id ${oneOf(executor, 'rules')}`, {
    now,
    rules: encodeRows(rules),
  })
}

/** A storage may be written to again: the rules that are stuck there are repaired at once. */
export async function repairAt(executor: Executor, rseId: number, now: number): Promise<void> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE state = 'STUCK' AND stage <> 'REMOVING' AND ${NOT_DUE}
        AND EXISTS (SELECT 1 FROM locks JOIN replicas ON replicas.id = locks.replica_id AND replicas.rse_id = :rseId
                     WHERE locks.rule_id = rules.id AND locks.state = 'STUCK')`,
    { now, rseId },
  )
  await repairSoon(
    executor,
    rows.map(row => row.id),
    now,
  )
}

async function repairSoon(executor: Executor, rules: readonly number[], now: number): Promise<void> {
  await lockRows(executor, 'rules', rules)
  await query(
    executor,
    `UPDATE rules SET repair_at = :now WHERE state = 'STUCK' AND stage <> 'REMOVING' AND ${NOT_DUE} AND id ${oneOf(executor, 'rules')}`,
    { now, rules: encodeRows(rules) },
  )
}

/** Other storages than before may give the files of the rules with these sources: those that are stuck are repaired at once. */
export async function repairForSources(
  executor: Executor,
  sources: { readonly vo_id: number; readonly expression: string },
  now: number,
): Promise<void> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE state = 'STUCK' AND stage <> 'REMOVING' AND ${NOT_DUE}
        AND vo_id = :voId AND source_expression = :expression`,
    { now, voId: sources.vo_id, expression: sources.expression },
  )
  await repairSoon(
    executor,
    rows.map(row => row.id),
    now,
  )
}

/** Somebody says that it is worth trying, and as often as in the beginning: false when nothing is stuck. */
export async function repairNow(executor: Executor, ruleId: number, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    `UPDATE rules SET repairs = 0, repair_at = CASE WHEN repair_at < :now THEN repair_at ELSE CAST(:now AS bigint) END
      WHERE id = :ruleId AND state = 'STUCK' AND stage <> 'REMOVING' AND ${REPAIRABLE} RETURNING id`,
    { ruleId, now },
  )
  return rows.length > 0
}

/** A rule that found too few storages, or too little quota, looks again; where each file has storages of its own, at all of them. */
export async function chooseAgain(executor: Executor, rule: Looking): Promise<void> {
  await lookAgain(executor, rule, 'error IS NOT NULL', rule.grouping === 'NONE')
}

/** Likewise one with files that could get no lock: at all of its files. */
export async function lockAgain(executor: Executor, rule: Looking): Promise<void> {
  await lookAgain(executor, rule, 'problems > 0', true)
}

type Looking = Pick<RuleRow, 'id' | 'did_id' | 'grouping'>

async function lookAgain(executor: Executor, rule: Looking, condition: string, grown: boolean): Promise<void> {
  const rows = await query(
    executor,
    `UPDATE rules SET stage = 'CHOOSING', cursor_choice = 0, cursor_file = 0
      WHERE id = :ruleId AND stage = 'EXPANDED' AND ${condition} RETURNING id`,
    { ruleId: rule.id },
  )
  if (rows.length > 0) await insertPart(executor, rule, grown)
}

/** From here on the rule only loses its locks. What it was to replace is left to the one that replaces it, if there is one. */
export async function startRemoval(executor: Executor, ruleId: number, now: number): Promise<void> {
  await lockRule(executor, ruleId)
  await query(
    executor,
    `UPDATE rules SET stage = 'REMOVING', cursor_choice = 0, cursor_file = 0, expires_at = NULL, repair_at = NULL, updated_at = :now
      WHERE id = :ruleId`,
    { ruleId, now },
  )
  await query(
    executor,
    `UPDATE rules SET replaces = (SELECT own.replaces FROM rules AS own WHERE own.id = :ruleId)
      WHERE replaces = :ruleId AND stage <> 'REMOVING'
        AND EXISTS (SELECT 1 FROM rules AS own WHERE own.id = :ruleId AND own.replaces IS NOT NULL)`,
    { ruleId },
  )
}

/** What is being replaced stays until the other is OK, as its copies do. */
const DUE = `expires_at <= :now AND NOT locked
  AND NOT EXISTS (SELECT 1 FROM rules AS other WHERE other.replaces = rules.id AND other.stage <> 'REMOVING')`

export interface DueRule {
  readonly id: number
  readonly expires_at: number
}

/** Rules whose lifetime is over, in that order, behind this one. */
export async function dueRules(
  read: Executor,
  now: number,
  last: DueRule | undefined,
  limit: number,
): Promise<DueRule[]> {
  const sql = `SELECT id, expires_at FROM rules WHERE ${DUE} AND (expires_at, id) > (:at, :id) ORDER BY expires_at, id LIMIT :limit`
  return query(read, sql, { now, at: last?.expires_at ?? 0, id: last?.id ?? 0, limit })
}

/** The guard of its end, at the beginning of the transaction: false when it has begun already, or somebody has prolonged, locked or replaced the rule. */
export async function takeDue(executor: Executor, ruleId: number, now: number): Promise<boolean> {
  await lockRule(executor, ruleId)
  const row = await queryOne(executor, `SELECT id FROM rules WHERE id = :ruleId AND ${DUE}`, { ruleId, now })
  return row !== undefined
}
