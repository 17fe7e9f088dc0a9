import type { Did } from '../../shared/domain/names.ts'
import type { UsageDelta } from '../accounts/usage-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query } from '../database/sql.ts'
import { alignSources } from '../transfers/align.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { Chooser, candidatesOf } from './candidates.ts'
import { holdings } from './choice-store.ts'
import { lockedAt } from './expand-anywhere.ts'
import { type Expansion, type Locked, lockFiles } from './lock-files.ts'
import { removeLocks } from './lock-store.ts'
import { holdRuleQuota } from './rule-quota.ts'
import type { RuleDelta, RuleRow } from './store.ts'

export interface MovedElsewhere {
  /** That the rule has left. */
  readonly replicas: ReadonlySet<number>
  readonly deltas: readonly RuleDelta[]
  readonly usage: readonly UsageDelta[]
}

interface StuckFile {
  readonly replica_id: number
  readonly file_id: number
  readonly rse_id: number
  readonly bytes: number
  /** What holds the file for the rule: a dataset, or the file itself. */
  readonly dataset_id: number
}

/**
 * Grouping NONE: files that are stuck at a storage, by its fault or nobody's, go to another one that has not failed them; those that
 * none can take are left to be tried again where they are. What follows is for the end of the transaction.
 */
export async function moveElsewhere(
  executor: Executor,
  rule: RuleRow,
  replicaIds: readonly number[],
  { rses, rooms, now }: Expansion,
): Promise<MovedElsewhere> {
  const { quota } = await holdRuleQuota(executor, rule, rses)
  // One that arrives meanwhile stays.
  await lockRows(executor, 'replicas', replicaIds)
  const files = await movableFiles(executor, rule.id, replicaIds)
  const ids = files.map(file => file.file_id)
  const { candidates } = candidatesOf(rule.expression, rses)
  const chooser = new Chooser(rule, candidates, { quota, rooms: new Map(rooms) })
  chooser.know(await holdings(executor, ids))
  const locked = await lockedAt(executor, rule.id, ids)
  const failed = await failedAt(executor, ids)
  const moves = files.flatMap(file => {
    const unit = { id: file.file_id, bytes: file.bytes }
    const others = locked.get(file.file_id) ?? new Set()
    others.delete(file.rse_id)
    const except = new Set([file.rse_id, ...(failed.get(file.file_id) ?? [])])
    // What it has where it is stuck it may have elsewhere.
    chooser.take({ ...unit, bytes: -file.bytes }, file.rse_id)
    const [to] = chooser.select(unit, others, except).added
    chooser.take(unit, to ?? file.rse_id)
    // Another of its copies that is stuck goes to none of these.
    others.add(to ?? file.rse_id)
    return to === undefined ? [] : { ...file, to }
  })
  const left = moves.map(move => move.replica_id)
  const { delta, usage } = await removeLocks(executor, rule, left, now)
  const unwanted = await cancelTransfers(executor, left, now)
  if (rule.source_expression !== null) await alignSources(executor, left, now)
  const datasets = await datasetsNamed(executor, moves)
  const made: Locked[] = []
  for (const rse of candidates) {
    const some = moves.filter(move => move.to === rse.id).map(({ file_id, bytes }) => ({ id: file_id, bytes }))
    if (some.length > 0) made.push(await lockFiles(executor, rule, file => datasets.get(file.id), rse, some, { now }))
  }
  return {
    replicas: new Set(left),
    deltas: [delta, ...unwanted, ...made.map(one => one.delta)],
    usage: [...usage, ...made.map(one => one.usage)],
  }
}

/** By file, the dataset that holds it for the rule; none of one that is asked for by itself. */
async function datasetsNamed(executor: Executor, files: readonly StuckFile[]): Promise<Map<number, Did>> {
  const rows = await query<Did & { id: number }>(
    executor,
    `SELECT dids.id, scopes.name AS scope, dids.name FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.type = 'DATASET' AND dids.id ${oneOf(executor, 'datasets')}`,
    { datasets: encodeRows([...new Set(files.map(file => file.dataset_id))]) },
  )
  const names = new Map(rows.map(({ id, ...did }) => [id, did]))
  return new Map(
    files.flatMap(({ file_id, dataset_id }) => {
      const did = names.get(dataset_id)
      return did === undefined ? [] : [[file_id, did] as const]
    }),
  )
}

/**
 * Of these stuck replicas those that are not BAD and whose file another storage has: where nothing may be written, or the last attempt did
 * not fail at its source.
 */
async function movableFiles(executor: Executor, ruleId: number, replicaIds: readonly number[]): Promise<StuckFile[]> {
  return query<StuckFile>(
    executor,
    `SELECT own.id AS replica_id, own.file_id, own.rse_id, dids.bytes, coalesce((SELECT min(choices.dataset_id) FROM contents
         JOIN rule_choices AS choices ON choices.dataset_id = contents.parent_id AND choices.rule_id = :ruleId
        WHERE contents.child_id = own.file_id), own.file_id) AS dataset_id
       FROM replicas AS own JOIN dids ON dids.id = own.file_id JOIN rses ON rses.id = own.rse_id
       JOIN locks ON locks.replica_id = own.id AND locks.rule_id = :ruleId AND locks.state = 'STUCK'
      WHERE own.id ${oneOf(executor, 'replicas')} AND own.state <> 'BAD'
        AND EXISTS (SELECT 1 FROM replicas AS other WHERE other.file_id = own.file_id AND other.state = 'AVAILABLE')
        AND (NOT rses.availability_write OR coalesce((SELECT attempts.scope FROM attempts WHERE attempts.id = (SELECT max(last.id) FROM attempts AS last
            JOIN transfers ON transfers.id = last.transfer_id WHERE transfers.replica_id = own.id)), '') <> 'SOURCE')
      ORDER BY own.id`,
    { ruleId, replicas: encodeRows(replicaIds) },
  )
}

/** Where transfers of these files have failed for good, as far as that is known still; a storage that was closed may be open again. */
async function failedAt(executor: Executor, fileIds: readonly number[]): Promise<Map<number, Set<number>>> {
  const rows = await query<{ file_id: number; rse_id: number }>(
    executor,
    `SELECT DISTINCT replicas.file_id, replicas.rse_id FROM replicas
       JOIN transfers ON transfers.replica_id = replicas.id AND transfers.state = 'FAILED'
        AND coalesce(transfers.reason, '') <> 'DESTINATION_CLOSED'
      WHERE replicas.file_id ${oneOf(executor, 'files')}`,
    { files: encodeRows(fileIds) },
  )
  const places = new Map<number, Set<number>>()
  for (const { file_id, rse_id } of rows) places.set(file_id, (places.get(file_id) ?? new Set()).add(rse_id))
  return places
}
