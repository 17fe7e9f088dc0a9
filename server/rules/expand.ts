import { addUsage, type UsageDelta } from '../accounts/usage-store.ts'
import { filesOf, type SizedFile } from '../catalogue/contents-store.ts'
import type { Executor } from '../database/sql.ts'
import { shortWords } from './candidates.ts'
import { type ChoiceRow, choiceDone, leaveWanting, nextChoice, spendReserved } from './choice-store.ts'
import { lockAnywhere } from './expand-anywhere.ts'
import {
  type Collection,
  collectionOf,
  datasetOf,
  type Expanded,
  type Expansion,
  type Locked,
  lockFiles,
} from './lock-files.ts'
import { summedByRule } from './lock-store.ts'
import { holdRuleQuota } from './rule-quota.ts'
import { endPass, moveCursor } from './step-store.ts'
import { addToRules, deriveState, type RuleRow, setError } from './store.ts'

/** Replicas, locks and transfers for the next files of the next choice. How many files it took. */
export async function expandStep(executor: Executor, rule: RuleRow, expansion: Expansion): Promise<number> {
  const { limit, now } = expansion
  const choice = await nextChoice(executor, rule.id, rule.cursor_choice)
  if (choice === undefined) {
    await endPass(executor, rule.id)
    await deriveState(executor, rule.id, now)
    return 0
  }
  const dataset = await collectionOf(executor, choice.dataset_id)
  const files = await filesOf(executor, dataset, rule.cursor_file, limit)
  const { locked, error } =
    choice.rse_id === null
      ? await lockAnywhere(executor, rule, dataset, files, expansion)
      : await lockAt(executor, rule, { ...choice, rse_id: choice.rse_id }, dataset, files, expansion)
  // What the account cannot have is looked at again when the rule is repaired.
  if (error !== null) await setError(executor, rule.id, error, now)
  await addToRules(executor, summedByRule(locked.map(({ delta }) => delta)), now)
  const done = dataset.type === 'FILE' || files.length < limit
  const next = { choice: done ? choice.id : rule.cursor_choice, file: done ? 0 : (files.at(-1)?.id ?? 0) }
  await moveCursor(executor, rule.id, { stage: 'EXPANDING', ...next }, now)
  const freed = await spend(executor, choice, locked, done)
  await addUsage(executor, rule.account_id, [...locked.map(({ usage }) => usage), ...freed])
  return files.length
}

/** At the storage that was chosen for the dataset. */
async function lockAt(
  executor: Executor,
  rule: RuleRow,
  choice: ChoiceRow & { readonly rse_id: number },
  dataset: Collection,
  files: readonly SizedFile[],
  { rses, now }: Expansion,
): Promise<Expanded> {
  const rse = rses.find(candidate => candidate.id === choice.rse_id)
  // Another server has chosen a storage that this one has not heard of yet: the step is tried again.
  if (rse === undefined) throw new Error(`storage ${choice.rse_id} of rule ${rule.id} is not known here`)
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  // Files came since the bytes were reserved, or most of these are locked already. No more is locked than the account may have.
  const quota = bytes > choice.reserved ? (await holdRuleQuota(executor, rule, rses)).quota : undefined
  const mostBytes = quota === undefined ? Infinity : choice.reserved + Math.max(0, quota.left(rse.id))
  const locked = await lockFiles(executor, rule, () => datasetOf(dataset), rse, files, { now, mostBytes })
  if (locked.left === 0) return { locked: [locked], error: null }
  await leaveWanting(executor, choice.id)
  const short = { short: locked.left, further: true }
  return { locked: [locked], error: shortWords('file', short, [{ rseId: rse.id, why: 'QUOTA' }], rses) }
}

/** What of the bytes that were reserved for a choice is locked now; all of them when it is done. */
async function spend(
  executor: Executor,
  choice: ChoiceRow,
  locked: readonly Locked[],
  done: boolean,
): Promise<UsageDelta[]> {
  const bytes = locked.reduce((sum, { usage }) => sum + usage.bytes, 0)
  const spent = done ? choice.reserved : Math.min(choice.reserved, bytes)
  if (done) await choiceDone(executor, choice.id)
  else if (spent > 0 && choice.rse_id !== null) await spendReserved(executor, choice.id, spent)
  if (choice.rse_id === null || spent === 0) return []
  return [{ rse_id: choice.rse_id, files: 0, bytes: 0, reserved: -spent }]
}
