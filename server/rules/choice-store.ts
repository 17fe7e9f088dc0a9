import { type Executor, encodeRows, oneOf, query, queryOne, recordset } from '../database/sql.ts'
import type { Holding } from './candidates.ts'

/** Where a rule keeps what: a storage that was chosen for a dataset, or for a file that is asked for by itself. */
export interface ChoiceRow {
  id: number
  dataset_id: number
  /** Null: each file of it anywhere (grouping NONE). */
  rse_id: number | null
  /** Of the dataset, when they were reserved. */
  bytes: number
  /** Of them, what is not locked yet. */
  reserved: number
  /** Some of its files have no lock: there was too little quota. */
  wanting: number | boolean
}

const COLUMNS = 'id, dataset_id, rse_id, bytes, reserved, wanting'

/** The next that is to be worked off. */
export async function nextChoice(executor: Executor, ruleId: number, after: number): Promise<ChoiceRow | undefined> {
  return queryOne<ChoiceRow>(
    executor,
    `SELECT ${COLUMNS} FROM rule_choices WHERE rule_id = :ruleId AND todo AND id > :after ORDER BY id LIMIT 1`,
    { ruleId, after },
  )
}

export async function choicesOf(
  executor: Executor,
  ruleId: number,
  datasetIds: readonly number[],
): Promise<ChoiceRow[]> {
  return query<ChoiceRow>(
    executor,
    `SELECT ${COLUMNS} FROM rule_choices WHERE rule_id = :ruleId AND dataset_id ${oneOf(executor, 'datasets')}`,
    { ruleId, datasets: encodeRows(datasetIds) },
  )
}

/** The storages that a rule has chosen so far. */
export async function chosenRses(executor: Executor, ruleId: number): Promise<number[]> {
  const sql = 'SELECT DISTINCT rse_id FROM rule_choices WHERE rule_id = :ruleId AND rse_id IS NOT NULL ORDER BY rse_id'
  return (await query<{ rse_id: number }>(executor, sql, { ruleId })).map(row => row.rse_id)
}

export interface NewChoice {
  readonly dataset_id: number
  readonly rse_id: number | null
  /** To be reserved. */
  readonly bytes: number
}

export async function insertChoices(executor: Executor, ruleId: number, choices: readonly NewChoice[]): Promise<void> {
  if (choices.length === 0) return
  const set = recordset(executor, 'rows', { dataset_id: 'bigint', rse_id: 'bigint', bytes: 'bigint' })
  await query(
    executor,
    `INSERT INTO rule_choices (rule_id, dataset_id, rse_id, todo, bytes, reserved)
     SELECT :ruleId, dataset_id, rse_id, true, bytes, bytes FROM ${set} AS given`,
    { ruleId, rows: encodeRows(choices) },
  )
}

/** A choice that is to be worked off again: its dataset has so many bytes now, and `more` are reserved. */
export interface ChoiceAgain {
  readonly id: number
  readonly bytes: number
  readonly more: number
}

/** Files may have come to what was chosen for there. */
export async function expandAgain(executor: Executor, choices: readonly ChoiceAgain[]): Promise<void> {
  if (choices.length === 0) return
  const set = recordset(executor, 'rows', { id: 'bigint', bytes: 'bigint', more: 'bigint' })
  await query(
    executor,
    `UPDATE rule_choices SET todo = true, wanting = false, bytes = given.bytes, reserved = reserved + given.more
       FROM ${set} AS given WHERE rule_choices.id = given.id`,
    { rows: encodeRows(choices) },
  )
}

/** So much of what was reserved for it is locked now. */
export async function spendReserved(executor: Executor, choiceId: number, bytes: number): Promise<void> {
  await query(executor, 'UPDATE rule_choices SET reserved = reserved - :bytes WHERE id = :choiceId', {
    choiceId,
    bytes,
  })
}

/** Of what left the rule. Those that went. */
export async function deleteChoices(executor: Executor, ruleId: number, datasetId: number): Promise<ChoiceRow[]> {
  return query<ChoiceRow>(
    executor,
    `DELETE FROM rule_choices WHERE rule_id = :ruleId AND dataset_id = :datasetId RETURNING ${COLUMNS}`,
    { ruleId, datasetId },
  )
}

/**
 * A condition: the rule `:ruleId` keeps a file at a storage, since that was chosen for something that holds it. Whatever else a rule
 * has there is to go. `file`, `rse`: columns. In one subselect, so that it is looked up for each row and never made for the whole table.
 */
export function chosenFor(file: string, rse: string): string {
  const at = `(choices.rse_id = ${rse} OR choices.rse_id IS NULL)`
  return `EXISTS (
    SELECT 1 FROM contents JOIN rule_choices AS choices ON choices.dataset_id = contents.parent_id
      WHERE contents.child_id = ${file} AND choices.rule_id = :ruleId AND ${at}
    UNION ALL
    SELECT 1 FROM rule_choices AS choices
      WHERE choices.dataset_id = ${file} AND choices.rule_id = :ruleId AND ${at})`
}

/** Some of its files could not be locked: who looks at the choice next has it worked off again. */
export async function leaveWanting(executor: Executor, choiceId: number): Promise<void> {
  await query(executor, 'UPDATE rule_choices SET wanting = true WHERE id = :choiceId', { choiceId })
}

/** It is worked off: what it reserved and did not need is free. */
export async function choiceDone(executor: Executor, choiceId: number): Promise<void> {
  await query(executor, 'UPDATE rule_choices SET todo = false, reserved = 0 WHERE id = :choiceId', { choiceId })
}

const HELD = `CAST(sum(CASE replicas.state WHEN 'AVAILABLE' THEN dids.bytes ELSE 0 END) AS bigint) AS held,
  CAST(sum(CASE replicas.state WHEN 'COPYING' THEN dids.bytes ELSE 0 END) AS bigint) AS coming`

/** Bytes of each dataset (or single file) that storages hold already, or are getting. */
export async function holdings(executor: Executor, datasetIds: readonly number[]): Promise<Holding[]> {
  return query<Holding>(
    executor,
    `SELECT contents.parent_id AS unit_id, replicas.rse_id, ${HELD}
       FROM contents JOIN replicas ON replicas.file_id = contents.child_id AND replicas.state IN ('AVAILABLE', 'COPYING')
       JOIN dids ON dids.id = replicas.file_id
      WHERE contents.parent_id ${oneOf(executor, 'datasets')} GROUP BY contents.parent_id, replicas.rse_id
     UNION ALL
     SELECT replicas.file_id, replicas.rse_id, ${HELD}
       FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state IN ('AVAILABLE', 'COPYING') AND replicas.file_id ${oneOf(executor, 'datasets')}
      GROUP BY replicas.file_id, replicas.rse_id`,
    { datasets: encodeRows(datasetIds) },
  )
}

/** The same of all files below a DID together, as of the unit `didId`. Reads all of them. */
export async function holdingsBelow(executor: Executor, didId: number): Promise<Holding[]> {
  return query<Holding>(
    executor,
    `WITH RECURSIVE below(id) AS (
       SELECT CAST(:didId AS bigint) AS id UNION SELECT contents.child_id FROM contents JOIN below ON contents.parent_id = below.id
     ) SELECT CAST(:didId AS bigint) AS unit_id, replicas.rse_id, ${HELD}
         FROM below JOIN replicas ON replicas.file_id = below.id AND replicas.state IN ('AVAILABLE', 'COPYING')
         JOIN dids ON dids.id = replicas.file_id GROUP BY replicas.rse_id`,
    { didId },
  )
}
