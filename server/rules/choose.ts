import type { Quota } from '../accounts/quota.ts'
import { addUsage, type UsageDelta } from '../accounts/usage-store.ts'
import { datasetsBelow, keptBelow, totalsBelow } from '../catalogue/contents-store.ts'
import type { Context } from '../context.ts'
import { type Executor, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { Chooser, candidatesOf, type Holding, shortWords, type Unit } from './candidates.ts'
import {
  type ChoiceAgain,
  type ChoiceRow,
  choicesOf,
  chosenRses,
  expandAgain,
  holdings,
  holdingsBelow,
  insertChoices,
  type NewChoice,
} from './choice-store.ts'
import { deletePart, type Part, partInWork } from './part-store.ts'
import type { Rooms } from './room.ts'
import { holdRuleQuota, placesChosen } from './rule-quota.ts'
import type { LeftOut } from './select.ts'
import { moveCursor, takeStep } from './step-store.ts'
import { forgetFound, type RuleRow, setError } from './store.ts'

/** What storages hold of the files is counted for each step; the tree is walked for each, so that small datasets come many at a time. */
const MOST_PER_STEP = { datasets: 500, files: 100_000 }

/**
 * Storages for the next datasets of the next part; `cursor_file` is the last dataset that was looked at. What they hold is
 * counted outside the transaction: it may take a while, and a choice is as good as what was known when it was made. How many datasets;
 * undefined when another server is at this rule.
 */
export async function chooseStep(
  { db, clock }: Context,
  rule: RuleRow,
  rses: readonly Rse[],
  rooms: Rooms,
): Promise<number | undefined> {
  const part = await partInWork(db.read, rule)
  // Another server has finished it since the rule was read.
  if (part === undefined) return undefined
  const { looked, further } = await unitsOf(db.read, part, rule.cursor_file)
  const view = await lookAt(db.read, rule, looked)
  const { candidates, error } = candidatesOf(rule.expression, rses)
  const left = await rooms.left(candidates)
  return db.write(async executor => {
    const taken = await takeStep(executor, rule)
    if (taken === undefined) return undefined
    const { quota, freeAs } = await holdRuleQuota(executor, taken, rses)
    // What was detached since is not chosen for; what was attached again may have lost its choices: the next look counts what it has.
    const kept = await keptBelow(executor, rule.did_id, [part.id, ...looked.map(unit => unit.id)])
    const units = looked.filter(unit => kept.has(unit.id))
    const task = await taskOf(executor, rule, units)
    if (!task.short.every(id => view.counted.has(id))) return undefined
    const ids = units.map(unit => unit.id)
    const isFree = await placesChosen(executor, freeAs, ids, view.whole?.id)
    const chooser = new Chooser(rule, candidates, { quota, rooms: new Map(left), isFree })
    chooser.know(view.holdings)
    const outcome = decide(rule, units, task, view.whole, { chooser, quota }, part)
    await insertChoices(executor, rule.id, outcome.choices)
    await expandAgain(executor, outcome.again)
    const counted = { short: outcome.short, further: further || rule.cursor_file > 0 }
    const reason = error ?? (outcome.short === 0 ? null : shortWords('dataset', counted, outcome.leftOut, rses))
    const first = part.id === rule.did_id && rule.cursor_file === 0
    if (first) await forgetFound(executor, rule.id)
    if (reason !== null) await setError(executor, rule.id, reason, clock.now())
    const more = further && kept.has(part.id)
    if (!more) await deletePart(executor, rule.id, part.id)
    const last = !more && (await partInWork(executor, { ...rule, cursor_file: 0 })) === undefined
    const next = last
      ? { stage: 'EXPANDING' as const, choice: 0, file: 0 }
      : { stage: 'CHOOSING' as const, choice: part.id, file: more ? (looked.at(-1)?.id ?? 0) : 0 }
    await moveCursor(executor, rule.id, next, clock.now())
    await addUsage(executor, rule.account_id, [...outcome.choices.flatMap(reservation), ...outcome.reserved])
    return looked.length
  })
}

/** The next of a part, and whether there are further ones. A file that is asked for by itself is a dataset of its own. */
async function unitsOf(read: Executor, part: Part, after: number): Promise<{ looked: Unit[]; further: boolean }> {
  if (part.type === 'FILE') {
    const row = await queryOne<Unit>(read, 'SELECT id, bytes FROM dids WHERE id = :id', { id: part.id })
    return { looked: row === undefined ? [] : [row], further: false }
  }
  const datasets = await datasetsBelow(read, part.id, after, MOST_PER_STEP.datasets + 1)
  let files = 0
  const fit = datasets.findIndex((dataset, i) => {
    files += dataset.files
    return i > 0 && (i === MOST_PER_STEP.datasets || files > MOST_PER_STEP.files)
  })
  return fit === -1 ? { looked: datasets, further: false } : { looked: datasets.slice(0, fit), further: true }
}

/** What is to be chosen for. */
interface Task {
  /** What was chosen for these datasets before. */
  readonly before: readonly ChoiceRow[]
  /** Of grouping ALL: the storages of the whole rule so far. */
  readonly chosen: readonly number[]
  /** What has fewer storages than the rule wants copies: datasets, or the rule's DID where it is kept together. */
  readonly short: readonly number[]
}

async function taskOf(executor: Executor, rule: RuleRow, units: readonly Unit[]): Promise<Task> {
  const before = await choicesOf(
    executor,
    rule.id,
    units.map(unit => unit.id),
  )
  if (rule.grouping === 'NONE') return { before, chosen: [], short: [] }
  if (rule.grouping === 'ALL') {
    const chosen = await chosenRses(executor, rule.id)
    // Looked for once in a pass over a part: it reads all of the rule's files.
    const looks = rule.cursor_file === 0 && chosen.length < rule.copies
    return { before, chosen, short: looks ? [rule.did_id] : [] }
  }
  const counts = new Map<number, number>()
  for (const { dataset_id } of before) counts.set(dataset_id, (counts.get(dataset_id) ?? 0) + 1)
  const short = units.filter(({ id }) => (counts.get(id) ?? 0) < rule.copies)
  return { before, chosen: [], short: short.map(({ id }) => id) }
}

/** What was counted before the transaction. */
interface View {
  /** The units that storages were asked for. */
  readonly counted: ReadonlySet<number>
  readonly holdings: readonly Holding[]
  /** Of grouping ALL: all that is below the rule's DID. */
  readonly whole: Unit | undefined
}

async function lookAt(read: Executor, rule: RuleRow, units: readonly Unit[]): Promise<View> {
  const { short } = await taskOf(read, rule, units)
  const counted = new Set(short)
  if (short.length === 0) return { counted, holdings: [], whole: undefined }
  if (rule.grouping !== 'ALL') return { counted, holdings: await holdings(read, short), whole: undefined }
  return { counted, holdings: await holdingsBelow(read, rule.did_id), whole: await wholeOf(read, rule.did_id) }
}

/** All that is below a DID, or it is. */
async function wholeOf(read: Executor, didId: number): Promise<Unit> {
  const total = (await totalsBelow(read, [didId])).get(didId)
  if (total !== undefined) return { id: didId, bytes: total.bytes }
  const row = await queryOne<Unit>(read, 'SELECT id, bytes FROM dids WHERE id = :didId', { didId })
  return row ?? { id: didId, bytes: 0 }
}

interface Outcome {
  readonly choices: NewChoice[]
  /** Chosen before, to be worked off again. */
  readonly again: ChoiceAgain[]
  /** For them, beyond what was. */
  readonly reserved: UsageDelta[]
  readonly leftOut: LeftOut[]
  /** Datasets that have fewer copies than asked for. */
  short: number
}

function decide(
  rule: RuleRow,
  units: readonly Unit[],
  task: Task,
  whole: Unit | undefined,
  { chooser, quota }: { readonly chooser: Chooser; readonly quota: Quota },
  part: Part,
): Outcome {
  const outcome: Outcome = { choices: [], again: [], reserved: [], leftOut: [], short: 0 }
  const common = new Set(task.chosen)
  if (whole !== undefined) {
    const { added, leftOut } = chooser.select(whole, common)
    for (const rseId of added) common.add(rseId)
    outcome.leftOut.push(...leftOut)
  }
  for (const unit of units) {
    const own = task.before.filter(choice => choice.dataset_id === unit.id)
    for (const choice of own) lookAgain(unit, choice, Boolean(part.grown), { chooser, quota }, outcome)
    if (rule.grouping === 'NONE') {
      if (own.length === 0) outcome.choices.push({ dataset_id: unit.id, rse_id: null, bytes: 0 })
      continue
    }
    const chosen = new Set(own.flatMap(choice => choice.rse_id ?? []))
    const wanted = rule.grouping === 'ALL' ? affordable(unit, common, chosen, chooser) : chooser.select(unit, chosen)
    for (const rseId of wanted.added) {
      chooser.take(unit, rseId)
      outcome.choices.push({ dataset_id: unit.id, rse_id: rseId, bytes: unit.bytes })
    }
    outcome.leftOut.push(...wanted.leftOut)
    // What is kept together is looked for once: the steps after that have nothing to add to what it found.
    const looked = rule.grouping !== 'ALL' || whole !== undefined || wanted.leftOut.length > 0
    if (looked && chosen.size + wanted.added.length < rule.copies) outcome.short += 1
  }
  return outcome
}

/** Of the storages of a rule that keeps all of its DID together, those that have not got this dataset and can take it. */
function affordable(unit: Unit, common: ReadonlySet<number>, chosen: ReadonlySet<number>, chooser: Chooser) {
  const missing = [...common].filter(rseId => !chosen.has(rseId))
  const added: number[] = []
  for (const rseId of missing) if (chooser.mayTake([...added, rseId], unit)) added.push(rseId)
  const leftOut = missing.filter(rseId => !added.includes(rseId)).map(rseId => ({ rseId, why: 'QUOTA' as const }))
  return { added, leftOut }
}

/**
 * What came to a dataset since it was chosen for goes where the dataset is. How much of it the account may have is seen file by file
 * (`expandStep`); so much is reserved, if it may have all.
 */
function lookAgain(
  unit: Unit,
  choice: ChoiceRow,
  grown: boolean,
  { chooser, quota }: { readonly chooser: Chooser; readonly quota: Quota },
  outcome: Outcome,
): void {
  const { id, rse_id, bytes, wanting } = choice
  if (rse_id === null) {
    if (grown) outcome.again.push({ id, bytes, more: 0 })
    return
  }
  const more = Math.max(0, unit.bytes - bytes)
  if (!grown && !wanting && more === 0) return
  const reserved = quota.allows([rse_id], more) ? more : 0
  chooser.take({ id: unit.id, bytes: reserved }, rse_id)
  outcome.again.push({ id, bytes: unit.bytes, more: reserved })
  outcome.reserved.push({ rse_id, files: 0, bytes: 0, reserved })
}

function reservation({ rse_id, bytes }: NewChoice): UsageDelta[] {
  return rse_id === null ? [] : [{ rse_id, files: 0, bytes: 0, reserved: bytes }]
}
