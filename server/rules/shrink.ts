import { addUsage, type UsageDelta } from '../accounts/usage-store.ts'
import { contentsOf, keptBelow } from '../catalogue/contents-store.ts'
import type { Executor } from '../database/sql.ts'
import { alignSources } from '../transfers/align.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { deleteChoices, nextChoice } from './choice-store.ts'
import {
  type Detached,
  deleteDetached,
  insertDetached,
  moveDetached,
  nextDetached,
  nextDetachedFiles,
} from './detached-store.ts'
import { lockedInVain, removeLocks, summedByRule } from './lock-store.ts'
import { chooseAgain, moveCursor, takeRule } from './step-store.ts'
import { addToRules, deleteProblems, type RuleRow } from './store.ts'

/**
 * One step of a rule that lets go of what was detached: decided by what the collections hold now, since it may be below the rule's
 * DID in another way, or again. What is attached while the step runs is a part of the rule (`reevaluateRules`), whose evaluation
 * waits for its end and brings back what it took. How many files and collections it looked at; undefined: another server is at
 * this rule, or there is nothing to do.
 */
export async function shrinkStep(
  executor: Executor,
  ruleId: number,
  limit: number,
  now: number,
): Promise<number | undefined> {
  const rule = await takeRule(executor, ruleId)
  if (rule === undefined) return undefined
  const next = await nextDetached(executor, ruleId)
  if (next === undefined) return undefined
  const looked = await lookAt(executor, rule, next, limit, now)
  // A rule that found too few storages may have found enough for what is left.
  if ((await nextDetached(executor, ruleId)) === undefined) await chooseAgain(executor, rule)
  return looked
}

async function lookAt(executor: Executor, rule: RuleRow, next: Detached, limit: number, now: number): Promise<number> {
  if (next.type === 'FILE') {
    const files = await nextDetachedFiles(executor, rule.id, next.id, limit)
    const usage = await letGo(
      executor,
      rule,
      files.map(row => row.did_id),
      now,
    )
    await deleteDetached(
      executor,
      files.map(row => row.id),
    )
    await addUsage(executor, rule.account_id, usage)
    return files.length
  }
  const kept = (await keptBelow(executor, rule.did_id, [next.did_id])).size > 0
  if (kept && next.cursor === 0) {
    await deleteDetached(executor, [next.id])
    return 1
  }
  return next.type === 'DATASET'
    ? leaveDataset(executor, rule, next, kept, limit, now)
    : leaveContainer(executor, rule, next, limit)
}

/**
 * Its choices go first: from then on nothing is locked for them. Once some are gone all its files are looked at, also when it is
 * attached again meanwhile: other storages may be chosen for it then.
 */
async function leaveDataset(
  executor: Executor,
  rule: RuleRow,
  { id, did_id, cursor }: Detached,
  kept: boolean,
  limit: number,
  now: number,
): Promise<number> {
  const inWork = rule.stage === 'EXPANDING' ? await nextChoice(executor, rule.id, rule.cursor_choice) : undefined
  const choices = kept ? [] : await deleteChoices(executor, rule.id, did_id)
  const after = choices.length > 0 ? 0 : cursor
  const files = await contentsOf(executor, did_id, after, limit)
  const usage = await letGo(executor, rule, files, now)
  if (inWork !== undefined && choices.some(choice => choice.id === inWork.id)) {
    // The cursor stood in this dataset: the next choice is worked off from its first file.
    await moveCursor(executor, rule.id, { stage: 'EXPANDING', choice: rule.cursor_choice, file: 0 }, now)
  }
  await goOn(executor, id, files, limit)
  const freed = choices.flatMap(({ rse_id, reserved }) =>
    rse_id === null ? [] : [{ rse_id, files: 0, bytes: 0, reserved: -reserved }],
  )
  await addUsage(executor, rule.account_id, [...usage, ...freed])
  return files.length
}

/** What it holds is looked at one by one. */
async function leaveContainer(
  executor: Executor,
  rule: RuleRow,
  { id, did_id, cursor }: Detached,
  limit: number,
): Promise<number> {
  const contents = await contentsOf(executor, did_id, cursor, limit)
  await insertDetached(executor, [rule.id], contents)
  await goOn(executor, id, contents, limit)
  return contents.length
}

async function goOn(executor: Executor, id: number, seen: readonly number[], limit: number): Promise<void> {
  const last = seen.at(-1)
  if (seen.length < limit || last === undefined) await deleteDetached(executor, [id])
  else await moveDetached(executor, id, last)
}

/** Takes away what the rule has of these files at storages that were chosen for nothing that it still has. What its account gets back. */
async function letGo(
  executor: Executor,
  rule: RuleRow,
  fileIds: readonly number[],
  now: number,
): Promise<readonly UsageDelta[]> {
  const replicas = await lockedInVain(executor, rule.id, fileIds)
  const { delta, usage } = await removeLocks(executor, rule, replicas, now)
  const unwanted = await cancelTransfers(executor, replicas, now)
  if (rule.source_expression !== null) await alignSources(executor, replicas, now)
  const problems = await deleteProblems(executor, rule.id, fileIds)
  await addToRules(executor, summedByRule([{ ...delta, problems: -problems }, ...unwanted]), now)
  return usage
}
