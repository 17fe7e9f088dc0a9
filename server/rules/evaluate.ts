import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { datasetsBelow, filesOf } from '../catalogue/contents-store.ts'
import { filesWithout, placeFiles } from '../catalogue/place-files.ts'
import { findReplicas } from '../catalogue/replica-store.ts'
import type { Context } from '../context.ts'
import { type Executor, isSqlite, queryOne } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { resolveExpression } from '../storages/expression.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { openTransfers } from '../transfers/open.ts'
import { choiceDone, choicesOf, expandAgain, holdings, insertChoices, nextChoice } from './choice-store.ts'
import { insertFirstLocks, insertLocks, removeLocks, withoutLock } from './lock-store.ts'
import { deletePart, type Part, partInWork } from './part-store.ts'
import { selectRses } from './select.ts'
import { endPass, moveCursor, postpone, rulesInWork, takeStep } from './step-store.ts'
import { addToRules, deleteRule, insertProblems, type RuleRow, setError } from './store.ts'

const DATASETS_PER_STEP = 100
/**
 * Files per step adapt so that its transaction takes about this long, milliseconds. On SQLite all who write wait for it; on
 * PostgreSQL only who wants the same rows, and a step's thirty statements have to pay.
 */
const STEP_MS = { sqlite: 25, postgresql: 100 }
/** Rules that are looked at until one is found that no other server works at. */
const RULES_TRIED = 20
const FILES_PER_STEP = { least: 100, most: 5_000 }

/**
 * Works off rules: choose storages for each dataset, then make replicas, locks and transfers, a step at a time. A step is one
 * transaction guarded by the rule's cursor, and leaves alone what exists: a crash between any two does nothing twice.
 */
export function ruleEvaluator(context: Context): Service {
  const stepMs = isSqlite(context.db.read) ? STEP_MS.sqlite : STEP_MS.postgresql
  let filesPerStep = 500

  /** How many files it took, or datasets when choosing; undefined when another server is at this rule. */
  async function step(rule: RuleRow, rses: readonly Rse[]): Promise<number | undefined> {
    const now = context.clock.now()
    if (rule.stage === 'CHOOSING') return chooseStep(context, rule, rses)
    const limit = filesPerStep
    let began = 0
    const files = await context.db.write(async executor => {
      // Not before: it may have waited for other writers.
      began = context.clock.monotonic()
      if (!(await takeStep(executor, rule))) return undefined
      if (rule.stage === 'REMOVING') return removeStep(executor, rule, limit, now)
      return expandStep(executor, rule, rses, limit, now)
    })
    if (files === limit) adapt(context.clock.monotonic() - began)
    return files
  }

  function adapt(tookMs: number): void {
    const fit = Math.round((filesPerStep * stepMs) / Math.max(1, tookMs))
    filesPerStep = Math.min(FILES_PER_STEP.most, Math.max(FILES_PER_STEP.least, fit))
  }

  return periodic({
    ...context,
    name: 'evaluate rules',
    interval: 1_000,
    topic: 'rules',
    async round() {
      for (const rule of await rulesInWork(context.db.read, RULES_TRIED)) {
        if (await evaluated(rule)) return true
      }
      return false
    },
  })

  /** False: another server is at it, or it failed. */
  async function evaluated(rule: RuleRow): Promise<boolean> {
    try {
      const rses = await context.storages.ofVo(rule.vo_id)
      if ((await step(rule, rses)) === undefined) return false
    } catch (error) {
      context.storages.forget()
      // The rule goes to the end of the queue: one that cannot be evaluated holds up no other.
      context.log.error({ err: error, rule: rule.id }, 'a step of a rule failed; it is tried again')
      await context.db.write(executor => postpone(executor, rule.id, context.clock.now()))
      return false
    }
    if (rule.stage === 'EXPANDING') {
      context.wake.notify('grants')
      context.wake.notify('queue')
    }
    return true
  }
}

/**
 * Storages for the next datasets of the next part; `cursor_file` is the last dataset that was looked at. What they hold is
 * counted outside the transaction: it may take a while, and a choice is as good as what was known when it was made.
 */
async function chooseStep({ db, clock }: Context, rule: RuleRow, rses: readonly Rse[]): Promise<number | undefined> {
  const part = await partInWork(db.read, rule)
  // Another server has finished it since the rule was read.
  if (part === undefined) return undefined
  const datasets = await datasetsOf(db.read, part, rule.cursor_file)
  const before = await choicesOf(db.read, rule.id, datasets)
  const short = datasets.filter(id => before.filter(choice => choice.dataset_id === id).length < rule.copies)
  const held = await holdings(db.read, short)
  const { candidates, error } = candidatesOf(rule, rses)
  return db.write(async executor => {
    if (!(await takeStep(executor, rule))) return undefined
    const choices = short.flatMap(datasetId => {
      const chosen = new Set(before.filter(choice => choice.dataset_id === datasetId).map(choice => choice.rse_id))
      const holding = held.filter(holding => holding.dataset_id === datasetId)
      const options = candidates.map(rse => ({
        writable: rse.availabilityWrite,
        rseId: rse.id,
        bytesHeld: holding.find(({ rse_id }) => rse_id === rse.id)?.bytes ?? 0,
      }))
      // A storage that cannot be written to may still keep what it holds.
      const possible = options.filter(option => option.writable || option.bytesHeld > 0)
      const added = selectRses(possible, chosen, rule.copies, { ruleId: rule.id, datasetId })
      return added.map(rseId => ({ dataset_id: datasetId, rse_id: rseId }))
    })
    await insertChoices(executor, rule.id, choices)
    if (part.grown) {
      await expandAgain(
        executor,
        before.map(choice => choice.id),
      )
    }
    const few = before.length + choices.length < datasets.length * rule.copies
    const reason = error ?? (few ? 'fewer storages than copies can be written to now' : null)
    const first = part.id === rule.did_id && rule.cursor_file === 0
    if (reason !== null || first) await setError(executor, rule.id, reason)
    const more = datasets.length === DATASETS_PER_STEP
    if (!more) await deletePart(executor, rule.id, part.id)
    const last = !more && (await partInWork(executor, { ...rule, cursor_file: 0 })) === undefined
    const next = last
      ? { stage: 'EXPANDING' as const, choice: 0, file: 0 }
      : { stage: 'CHOOSING' as const, choice: part.id, file: more ? (datasets.at(-1) ?? 0) : 0 }
    await moveCursor(executor, rule.id, next, clock.now())
    return datasets.length
  })
}

/** A file that is asked for by itself is a dataset of its own. */
async function datasetsOf(read: Executor, part: Part, after: number): Promise<number[]> {
  return part.type === 'FILE' ? [part.id] : datasetsBelow(read, part.id, after, DATASETS_PER_STEP)
}

/** A storage may have left the expression since the rule was taken in: the rule says so, and keeps what it has. */
function candidatesOf(rule: RuleRow, rses: readonly Rse[]): { candidates: Rse[]; error: string | null } {
  try {
    const names = new Set(resolveExpression(rule.expression, [...rses]))
    return { candidates: rses.filter(rse => names.has(rse.name)), error: null }
  } catch (error) {
    if (error instanceof WaybillError) return { candidates: [], error: `${error.code}: ${error.message}` }
    throw error
  }
}

/** Replicas, locks and transfers for the next files of the next choice. How many files it took. */
async function expandStep(
  executor: Executor,
  rule: RuleRow,
  rses: readonly Rse[],
  limit: number,
  now: number,
): Promise<number> {
  const choice = await nextChoice(executor, rule.id, rule.cursor_choice)
  if (choice === undefined) {
    await endPass(executor, rule.id)
    await addToRules(executor, [{ rule_id: rule.id, ok: 0, replicating: 0, stuck: 0, problems: 0 }], now)
    return 0
  }
  const dataset = await collectionOf(executor, choice.dataset_id)
  const files = await filesOf(executor, dataset, rule.cursor_file, limit)
  const rse = rses.find(candidate => candidate.id === choice.rse_id)
  // Another server has chosen a storage that this one has not heard of yet: the step is tried again.
  if (rse === undefined) throw new Error(`storage ${choice.rse_id} of rule ${rule.id} is not known here`)
  if (files.length > 0) await lockFiles(executor, rule, dataset, rse, files, now)
  const done = dataset.type === 'FILE' || files.length < limit
  if (done) await choiceDone(executor, choice.id)
  const next = { choice: done ? choice.id : rule.cursor_choice, file: done ? 0 : (files.at(-1) ?? 0) }
  await moveCursor(executor, rule.id, { stage: 'EXPANDING', ...next }, now)
  return files.length
}

interface Collection {
  id: number
  type: 'FILE' | 'DATASET' | 'CONTAINER'
  did: string
}

async function collectionOf(executor: Executor, id: number): Promise<Collection> {
  const row = await queryOne<Collection>(
    executor,
    `SELECT dids.id, dids.type, scopes.name || ':' || dids.name AS did FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.id = :id`,
    { id },
  )
  if (row === undefined) throw new Error(`DID ${id} of a choice is gone`)
  return row
}

async function lockFiles(
  executor: Executor,
  rule: RuleRow,
  dataset: Collection,
  rse: Rse,
  fileIds: readonly number[],
  now: number,
): Promise<void> {
  const made = await placeMissing(executor, dataset, rse, fileIds, now)
  await insertFirstLocks(executor, rule.id, made)
  const replicas = made.length === fileIds.length ? [] : await findReplicas(executor, rse.id, fileIds)
  const problems = made.length === fileIds.length ? 0 : await refused(executor, rule, rse, fileIds, replicas)
  const fresh = new Set(made)
  const found = replicas.map(replica => replica.id).filter(id => !fresh.has(id))
  const locks = await insertLocks(executor, rule.id, await withoutLock(executor, rule.id, found))
  const waiting = [...made, ...locks.filter(lock => lock.state === 'REPLICATING').map(lock => lock.replica_id)]
  await openTransfers(executor, waiting, rule, now)
  const stuck = locks.filter(lock => lock.state === 'STUCK').length
  const ok = made.length + locks.length - waiting.length - stuck
  await addToRules(executor, [{ rule_id: rule.id, ok, replicating: waiting.length, stuck, problems }], now)
}

/** Files that have got no replica: the path that the layout gives them is another file's. How many are new among them. */
function refused(
  executor: Executor,
  rule: RuleRow,
  rse: Rse,
  fileIds: readonly number[],
  replicas: readonly { file_id: number }[],
): Promise<number> {
  const placed = new Set(replicas.map(replica => replica.file_id))
  const problems = fileIds
    .filter(file => !placed.has(file))
    .map(file_id => ({
      file_id,
      rse_id: rse.id,
      code: 'PATH_TAKEN',
      message: `its path at ${rse.name} belongs to another file`,
    }))
  return insertProblems(executor, rule.id, problems)
}

/** Replicas of files that have none at this storage: those made, each with a lock. */
async function placeMissing(
  executor: Executor,
  dataset: Collection,
  rse: Rse,
  fileIds: readonly number[],
  now: number,
): Promise<number[]> {
  const parent = dataset.type === 'FILE' ? undefined : parseDid(dataset.did)
  return placeFiles(executor, rse, await filesWithout(executor, rse.id, fileIds), () => parent, now, 1)
}

/** Takes locks away; what nobody waits for any more is not copied. The rule goes with its last lock. */
async function removeStep(executor: Executor, rule: RuleRow, limit: number, now: number): Promise<number> {
  const { removed, unlocked } = await removeLocks(
    executor,
    { id: rule.id, purge: Boolean(rule.purge_replicas) },
    limit,
    now,
  )
  await cancelTransfers(executor, unlocked, now)
  if (removed < limit) await deleteRule(executor, rule.id)
  else await postpone(executor, rule.id, now)
  return removed
}
