import { type Executor, encodeRows, lockRows, oneOf, query, queryOne, recordset } from '../database/sql.ts'
import { chosenFor } from './choice-store.ts'
import { insertPart } from './part-store.ts'

export type Grouping = 'ALL' | 'DATASET' | 'NONE'
export type RuleStage = 'CHOOSING' | 'EXPANDING' | 'EXPANDED' | 'REMOVING'

export interface RuleRow {
  id: number
  vo_id: number
  did_id: number
  account_id: number
  copies: number
  expression: string
  grouping: Grouping
  /** The attribute of storages whose value is their weight. */
  weight: string | null
  /** Which storages its files may come from; null: all. */
  source_expression: string | null
  activity: string
  priority: number
  comment: string | null
  archive: number | boolean
  purge_replicas: number | boolean
  expires_at: number | null
  /** It is not removed, and does not expire. */
  locked: number | boolean
  ignore_quota: number | boolean
  /** The rule that goes when this one is OK. */
  replaces: number | null
  state: 'REPLICATING' | 'OK' | 'STUCK' | 'SUSPENDED' | 'WAITING_APPROVAL' | 'INJECT'
  stage: RuleStage
  pass: number
  cursor_choice: number
  cursor_file: number
  locks_ok: number
  locks_replicating: number
  locks_stuck: number
  problems: number
  error: string | null
  /** What the pass that is under way has found so far; `error` when it is over. */
  found_error: string | null
  created_at: number
  updated_at: number
}

export interface NewRule {
  voId: number
  didId: number
  accountId: number
  copies: number
  expression: string
  grouping: Grouping
  weight: string | null
  sourceExpression: string | null
  activity: string
  priority: number
  comment: string | null
  archive: boolean
  purgeReplicas: boolean
  expiresAt: number | null
  state: 'REPLICATING' | 'WAITING_APPROVAL'
  ignoreQuota: boolean
  replaces: number | null
  now: number
}

/** The new key, or `undefined` when the account has such a rule already. */
export async function insertRule(executor: Executor, rule: NewRule): Promise<number | undefined> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO rules (vo_id, did_id, account_id, copies, expression, grouping, weight, source_expression, activity, priority, comment, archive, purge_replicas, expires_at, state, noted_state, ignore_quota, replaces, stage,
                        cursor_choice, cursor_file, locks_ok, locks_replicating, locks_stuck, problems, repairs,
                        created_at, updated_at, turn_at)
     VALUES (:voId, :didId, :accountId, :copies, :expression, :grouping, :weight, :sourceExpression, :activity, :priority, :comment, :archive, :purgeReplicas, :expiresAt, :state, :state, :ignoreQuota, CAST(:replaces AS bigint),
             'CHOOSING', 0, 0, 0, 0, 0, 0, 0, :now, :now, :now)
     ON CONFLICT (did_id, account_id, expression, copies) WHERE stage <> 'REMOVING' DO NOTHING RETURNING id`,
    { ...rule },
  )
  if (row !== undefined) await insertPart(executor, { id: row.id, did_id: rule.didId })
  return row?.id
}

/** Why it has too few storages; its state follows. */
export async function setError(executor: Executor, ruleId: number, error: string, now: number): Promise<void> {
  await query(executor, 'UPDATE rules SET error = :error, found_error = :error WHERE id = :ruleId', { ruleId, error })
  await deriveState(executor, ruleId, now)
}

/**
 * All of the rule is looked at anew. What was said before is said until that is over (`endPass`): a rule must not go to and fro between
 * STUCK and REPLICATING with each look (rucio #8743).
 */
export async function forgetFound(executor: Executor, ruleId: number): Promise<void> {
  await query(executor, 'UPDATE rules SET found_error = NULL WHERE id = :ruleId', { ruleId })
}

export interface RuleDelta {
  readonly rule_id: number
  readonly ok: number
  readonly replicating: number
  readonly stuck: number
  readonly problems: number
}

/** The rule's state follows from its counters: the same decision as `ruleState`, proved equal by a test. */
const STATE_OF_COUNTERS = `CASE
  WHEN rules.state IN ('SUSPENDED', 'WAITING_APPROVAL', 'INJECT') THEN rules.state
  WHEN rules.locks_stuck + given.stuck > 0 OR rules.problems + given.problems > 0 OR rules.error IS NOT NULL THEN 'STUCK'
  WHEN rules.stage = 'EXPANDED' AND rules.locks_replicating + given.replicating = 0 THEN 'OK'
  ELSE 'REPLICATING' END`

/** Adds to the counters of rules, and derives their states: at the end of a transaction, since these rows are everybody's. */
export async function addToRules(executor: Executor, deltas: readonly RuleDelta[], now: number): Promise<void> {
  if (deltas.length === 0) return
  await lockRows(
    executor,
    'rules',
    deltas.map(delta => delta.rule_id),
  )
  const set = recordset(executor, 'rows', {
    rule_id: 'bigint',
    ok: 'bigint',
    replicating: 'bigint',
    stuck: 'bigint',
    problems: 'bigint',
  })
  await query(
    executor,
    `UPDATE rules SET locks_ok = rules.locks_ok + given.ok,
            locks_replicating = rules.locks_replicating + given.replicating,
            locks_stuck = rules.locks_stuck + given.stuck,
            problems = rules.problems + given.problems,
            state = ${STATE_OF_COUNTERS}, updated_at = :now,
            repairs = CASE WHEN ${STATE_OF_COUNTERS} = 'OK' THEN 0 ELSE rules.repairs END,
            repair_at = CASE WHEN ${STATE_OF_COUNTERS} = 'OK' THEN NULL ELSE rules.repair_at END
       FROM ${set} AS given WHERE rules.id = given.rule_id`,
    { rows: encodeRows(deltas), now },
  )
}

/** What its state follows from has changed, but for its counters. */
export async function deriveState(executor: Executor, ruleId: number, now: number): Promise<void> {
  await addToRules(executor, [{ rule_id: ruleId, ok: 0, replicating: 0, stuck: 0, problems: 0 }], now)
}

/** What a rule has beside its locks, and a key of each. */
const KEPT = [
  ['rule_problems', 'file_id'],
  ['rule_parts', 'did_id'],
  ['detached', 'id'],
] as const

/** Takes away what a rule without locks still has, or the first of it where it is much; what its choices had reserved is free. */
export async function emptyRule(
  executor: Executor,
  ruleId: number,
  limit: number,
): Promise<{ readonly empty: boolean; readonly freed: readonly { rse_id: number; reserved: number }[] }> {
  const some = (table: string, key: string): string =>
    `DELETE FROM ${table} WHERE rule_id = :ruleId AND ${key} IN
       (SELECT ${key} FROM ${table} WHERE rule_id = :ruleId ORDER BY ${key} LIMIT :limit)`
  let empty = true
  for (const [table, key] of KEPT) {
    const rows = await query(executor, `${some(table, key)} RETURNING ${key}`, { ruleId, limit })
    if (rows.length >= limit) empty = false
  }
  const choices = await query<{ rse_id: number | null; reserved: number }>(
    executor,
    `${some('rule_choices', 'id')} RETURNING rse_id, reserved`,
    { ruleId, limit },
  )
  if (choices.length >= limit) empty = false
  return { empty, freed: choices.flatMap(({ rse_id, reserved }) => (rse_id === null ? [] : [{ rse_id, reserved }])) }
}

export async function deleteRule(executor: Executor, ruleId: number): Promise<void> {
  await query(executor, 'DELETE FROM rules WHERE id = :ruleId', { ruleId })
}

/** Of these files, at storages that were chosen for nothing that the rule still has. How many went. */
export async function deleteProblems(executor: Executor, ruleId: number, fileIds: readonly number[]): Promise<number> {
  const rows = await query(
    executor,
    `DELETE FROM rule_problems WHERE rule_id = :ruleId AND file_id ${oneOf(executor, 'files')}
        AND NOT ${chosenFor('rule_problems.file_id', 'rule_problems.rse_id')} RETURNING file_id`,
    { ruleId, files: encodeRows(fileIds) },
  )
  return rows.length
}

/** These files have a lock at a storage now. How many problems that ends. */
export async function cureProblems(
  executor: Executor,
  ruleId: number,
  rseId: number,
  fileIds: readonly number[],
): Promise<number> {
  const rows = await query(
    executor,
    `DELETE FROM rule_problems WHERE rule_id = :ruleId AND rse_id = :rseId AND file_id ${oneOf(executor, 'files')}
     RETURNING file_id`,
    { ruleId, rseId, files: encodeRows(fileIds) },
  )
  return rows.length
}

/** Files that could get no lock. How many of them are new. */
export async function insertProblems(
  executor: Executor,
  ruleId: number,
  problems: readonly { file_id: number; rse_id: number; code: string; message: string }[],
): Promise<number> {
  if (problems.length === 0) return 0
  const set = recordset(executor, 'rows', { file_id: 'bigint', rse_id: 'bigint', code: 'text', message: 'text' })
  const rows = await query(
    executor,
    `INSERT INTO rule_problems (rule_id, file_id, rse_id, code, message)
     SELECT :ruleId, file_id, rse_id, code, message FROM ${set} AS given
      WHERE true ON CONFLICT (rule_id, file_id, rse_id) DO NOTHING RETURNING file_id`,
    { ruleId, rows: encodeRows(problems) },
  )
  return rows.length
}
