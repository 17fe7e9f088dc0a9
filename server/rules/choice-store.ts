import { type Executor, encodeRows, oneOf, query, queryOne, recordset } from '../database/sql.ts'

/** Where a rule keeps what: a storage that was chosen for a dataset, or for a file that is asked for by itself. */
export interface ChoiceRow {
  id: number
  dataset_id: number
  rse_id: number
}

/** The next that is to be worked off. */
export async function nextChoice(executor: Executor, ruleId: number, after: number): Promise<ChoiceRow | undefined> {
  return queryOne<ChoiceRow>(
    executor,
    'SELECT id, dataset_id, rse_id FROM rule_choices WHERE rule_id = :ruleId AND todo AND id > :after ORDER BY id LIMIT 1',
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
    `SELECT id, dataset_id, rse_id FROM rule_choices WHERE rule_id = :ruleId AND dataset_id ${oneOf(executor, 'datasets')}`,
    { ruleId, datasets: encodeRows(datasetIds) },
  )
}

export async function insertChoices(
  executor: Executor,
  ruleId: number,
  choices: readonly { dataset_id: number; rse_id: number }[],
): Promise<void> {
  const set = recordset(executor, 'rows', { dataset_id: 'bigint', rse_id: 'bigint' })
  await query(
    executor,
    `INSERT INTO rule_choices (rule_id, dataset_id, rse_id, todo) SELECT :ruleId, dataset_id, rse_id, true FROM ${set} AS given
      WHERE true ON CONFLICT (rule_id, dataset_id, rse_id) DO NOTHING`,
    { ruleId, rows: encodeRows(choices) },
  )
}

/** Files may have come to what was chosen for there. */
export async function expandAgain(executor: Executor, choiceIds: readonly number[]): Promise<void> {
  await query(executor, `UPDATE rule_choices SET todo = true WHERE id ${oneOf(executor, 'choices')}`, {
    choices: encodeRows(choiceIds),
  })
}

/** Of what left the rule. Their keys. */
export async function deleteChoices(executor: Executor, ruleId: number, datasetId: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    'DELETE FROM rule_choices WHERE rule_id = :ruleId AND dataset_id = :datasetId RETURNING id',
    { ruleId, datasetId },
  )
  return rows.map(row => row.id)
}

/**
 * A condition: the rule `:ruleId` keeps a file at a storage, since that was chosen for something that holds it. Whatever else a rule
 * has there is to go. `file`, `rse`: columns. In one subselect, so that it is looked up for each row and never made for the whole table.
 */
export function chosenFor(file: string, rse: string): string {
  return `EXISTS (
    SELECT 1 FROM contents JOIN rule_choices AS choices ON choices.dataset_id = contents.parent_id
      WHERE contents.child_id = ${file} AND choices.rule_id = :ruleId AND choices.rse_id = ${rse}
    UNION ALL
    SELECT 1 FROM rule_choices AS choices
      WHERE choices.dataset_id = ${file} AND choices.rule_id = :ruleId AND choices.rse_id = ${rse})`
}

export async function choiceDone(executor: Executor, choiceId: number): Promise<void> {
  await query(executor, 'UPDATE rule_choices SET todo = false WHERE id = :choiceId', { choiceId })
}

export interface Holding {
  dataset_id: number
  rse_id: number
  bytes: number
}

/** Bytes of each dataset (or single file) that storages hold already. */
export async function holdings(executor: Executor, datasetIds: readonly number[]): Promise<Holding[]> {
  const datasets = encodeRows(datasetIds)
  return query<Holding>(
    executor,
    `SELECT contents.parent_id AS dataset_id, replicas.rse_id, sum(dids.bytes) AS bytes
       FROM contents JOIN replicas ON replicas.file_id = contents.child_id AND replicas.state = 'AVAILABLE'
       JOIN dids ON dids.id = replicas.file_id
      WHERE contents.parent_id ${oneOf(executor, 'datasets')} GROUP BY contents.parent_id, replicas.rse_id
     UNION ALL
     SELECT replicas.file_id, replicas.rse_id, dids.bytes FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state = 'AVAILABLE' AND replicas.file_id ${oneOf(executor, 'datasets')}`,
    { datasets },
  )
}
