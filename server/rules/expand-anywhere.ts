import type { SizedFile } from '../catalogue/contents-store.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { Chooser, candidatesOf, shortWords } from './candidates.ts'
import { holdings } from './choice-store.ts'
import { type Collection, datasetOf, type Expanded, type Expansion, type Locked, lockFiles } from './lock-files.ts'
import { holdRuleQuota } from './rule-quota.ts'
import type { LeftOut } from './select.ts'
import type { RuleRow } from './store.ts'

/** Grouping NONE: each of these files by itself goes where it fits, in as many copies as the rule has not got of it yet. */
export async function lockAnywhere(
  executor: Executor,
  rule: RuleRow,
  dataset: Collection,
  files: readonly SizedFile[],
  { rses, rooms, now }: Expansion,
): Promise<Expanded> {
  const ids = files.map(file => file.id)
  const { candidates, error } = candidatesOf(rule.expression, rses)
  const { quota, freeAs } = await holdRuleQuota(executor, rule, rses)
  const chosen = await lockedAt(executor, rule.id, ids)
  const replaced = freeAs === null ? undefined : await lockedAt(executor, freeAs, ids)
  const isFree = replaced && ((fileId: number, rseId: number) => replaced.get(fileId)?.has(rseId) === true)
  const chooser = new Chooser(rule, candidates, { quota, rooms: new Map(rooms), isFree })
  chooser.know(await holdings(executor, ids))
  const places = new Map<number, SizedFile[]>()
  const leftOut: LeftOut[] = []
  let short = 0
  for (const file of files) {
    const before = chosen.get(file.id) ?? new Set()
    const selection = chooser.select(file, before)
    for (const rseId of selection.added) {
      chooser.take(file, rseId)
      const place = places.get(rseId)
      if (place === undefined) places.set(rseId, [file])
      else place.push(file)
    }
    if (before.size + selection.added.length >= rule.copies) continue
    short += 1
    leftOut.push(...selection.leftOut)
  }
  const locked: Locked[] = []
  for (const rse of candidates.filter(({ id }) => places.has(id))) {
    locked.push(await lockFiles(executor, rule, () => datasetOf(dataset), rse, places.get(rse.id) ?? [], { now }))
  }
  return { locked, error: error ?? (short === 0 ? null : shortWords('file', { short, further: true }, leftOut, rses)) }
}

/** Where the rule has locks on these files. */
export async function lockedAt(
  executor: Executor,
  ruleId: number,
  fileIds: readonly number[],
): Promise<Map<number, Set<number>>> {
  const rows = await query<{ file_id: number; rse_id: number }>(
    executor,
    `SELECT replicas.file_id, replicas.rse_id FROM replicas JOIN locks ON locks.replica_id = replicas.id AND locks.rule_id = :ruleId
      WHERE replicas.file_id ${oneOf(executor, 'files')}`,
    { ruleId, files: encodeRows(fileIds) },
  )
  const places = new Map<number, Set<number>>()
  for (const { file_id, rse_id } of rows) places.set(file_id, (places.get(file_id) ?? new Set()).add(rse_id))
  return places
}
