import { type Did, parseDid } from '../../shared/domain/names.ts'
import type { LockState } from '../../shared/domain/rule-state.ts'
import type { UsageDelta } from '../accounts/usage-store.ts'
import type { SizedFile } from '../catalogue/contents-store.ts'
import { filesWithout, placeFiles } from '../catalogue/place-files.ts'
import { findReplicas } from '../catalogue/replica-store.ts'
import { type Executor, overtaken, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { openTransfers } from '../transfers/open.ts'
import { sourceSetOf } from '../transfers/source-set-store.ts'
import { insertFirstLocks, insertLocks, withoutLock } from './lock-store.ts'
import { cureProblems, insertProblems, type RuleDelta, type RuleRow } from './store.ts'

/** What a step of the expansion goes by. */
export interface Expansion {
  readonly rses: readonly Rse[]
  /** Bytes that may still come to a storage, for grouping NONE; one that is absent has room for anything. */
  readonly rooms: ReadonlyMap<number, number>
  /** Files. */
  readonly limit: number
  readonly now: number
}

/** Of a step: its locks, and why some files have fewer than asked for. */
export interface Expanded {
  readonly locked: readonly Locked[]
  readonly error: string | null
}

/** A dataset, or a file that is asked for by itself. */
export interface Collection {
  readonly id: number
  readonly type: 'FILE' | 'DATASET' | 'CONTAINER'
  readonly did: string
}

/** What the layout of a storage goes by: a file that is asked for by itself is in no dataset. */
export function datasetOf({ type, did }: Collection): Did | undefined {
  return type === 'FILE' ? undefined : parseDid(did)
}

/** The dataset, or file, of a choice. */
export async function collectionOf(executor: Executor, id: number): Promise<Collection> {
  const row = await queryOne<Collection>(
    executor,
    `SELECT dids.id, dids.type, scopes.name || ':' || dids.name AS did FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.id = :id`,
    { id },
  )
  if (row === undefined) throw new Error(`DID ${id} of a choice is gone`)
  return row
}

export interface Locked {
  readonly delta: RuleDelta
  readonly usage: UsageDelta
  /** Files that got no lock, since `mostBytes` were reached. */
  readonly left: number
}

/**
 * Replicas, locks and transfers for these files at a storage, where they have none; what exists is left alone. New locks are of
 * `mostBytes` at most. `datasetOf`: for their paths. What follows for the rule's counters and the account's usage, both for the end of the transaction.
 */
export async function lockFiles(
  executor: Executor,
  rule: RuleRow,
  datasetOf: (file: { readonly id: number }) => Did | undefined,
  rse: Rse,
  files: readonly SizedFile[],
  { now, mostBytes = Infinity }: { readonly now: number; readonly mostBytes?: number },
): Promise<Locked> {
  const ids = files.map(file => file.id)
  const budget = new Budget(mostBytes, files)
  const unplaced = await filesWithout(executor, rse.id, ids)
  const placing = unplaced.filter(file => budget.take(file.id))
  const made = await placeFiles(executor, rse, placing, datasetOf, now, 1)
  const locks: NewLock[] = made.map(({ id, file_id }) => ({ id, file_id, state: 'REPLICATING' }))
  await insertFirstLocks(
    executor,
    rule.id,
    made.map(replica => replica.id),
  )
  let problems = 0
  if (made.length < files.length) {
    const replicas = await findReplicas(executor, rse.id, ids)
    // Deleted between the two looks: the step is run again, and makes it anew.
    const without = new Set(unplaced.map(file => file.id))
    const found = replicas.filter(replica => !without.has(replica.file_id))
    if (found.length < files.length - unplaced.length) throw overtaken('a replica was deleted meanwhile')
    problems = await refused(executor, rule, rse, placing, replicas)
    locks.push(...(await lockFound(executor, rule, replicas, new Set(locks.map(lock => lock.id)), budget)))
  }
  const those = (state: LockState) => locks.filter(lock => lock.state === state).map(lock => lock.id)
  const waiting = those('REPLICATING')
  await openTransfers(executor, waiting, { ...rule, source_set_id: await sourceSetOf(executor, rule) }, now)
  const lockedFiles = locks.map(lock => lock.file_id)
  // Whose path was another's, and is not any more.
  const cured = rule.problems > 0 ? await cureProblems(executor, rule.id, rse.id, lockedFiles) : 0
  const bytes = budget.bytesOf(lockedFiles)
  const counts = {
    ok: those('OK').length,
    replicating: waiting.length,
    stuck: those('STUCK').length,
    problems: problems - cured,
  }
  return {
    delta: { rule_id: rule.id, ...counts },
    usage: { rse_id: rse.id, files: locks.length, bytes, reserved: 0 },
    left: budget.refused,
  }
}

interface NewLock {
  readonly id: number
  readonly file_id: number
  readonly state: LockState
}

/** Locks on replicas that are there without us, or made for somebody else: not for those just made. */
async function lockFound(
  executor: Executor,
  rule: RuleRow,
  replicas: readonly { readonly id: number; readonly file_id: number }[],
  made: ReadonlySet<number>,
  budget: Budget,
): Promise<NewLock[]> {
  const fileOf = new Map(replicas.filter(({ id }) => !made.has(id)).map(({ id, file_id }) => [id, file_id]))
  const unlocked = await withoutLock(executor, rule.id, [...fileOf.keys()])
  const affordable = unlocked.filter(id => budget.take(fileOf.get(id) ?? 0))
  const locks = await insertLocks(executor, rule.id, affordable)
  return locks.map(({ replica_id, state }) => ({
    id: replica_id,
    file_id: fileOf.get(replica_id) ?? 0,
    state,
  }))
}

/** Files that have got no replica: the path that the layout gives them is another file's. How many are new among them. */
async function refused(
  executor: Executor,
  rule: RuleRow,
  rse: Rse,
  files: readonly { readonly id: number }[],
  replicas: readonly { readonly file_id: number }[],
): Promise<number> {
  const placed = new Set(replicas.map(replica => replica.file_id))
  const problems = files
    .filter(file => !placed.has(file.id))
    .map(file => ({
      file_id: file.id,
      rse_id: rse.id,
      code: 'PATH_TAKEN',
      message: `its path at ${rse.name} belongs to another file`,
    }))
  return insertProblems(executor, rule.id, problems)
}

/** Bytes that may be locked. A file takes its bytes once. */
class Budget {
  readonly #sizes: ReadonlyMap<number, number>
  readonly #taken = new Set<number>()
  #left: number
  /** Files that there was too little for. */
  refused = 0

  constructor(bytes: number, files: readonly SizedFile[]) {
    this.#left = bytes
    this.#sizes = new Map(files.map(file => [file.id, file.bytes]))
  }

  take(fileId: number): boolean {
    if (this.#taken.has(fileId)) return true
    const bytes = this.#sizes.get(fileId) ?? 0
    if (bytes > this.#left) {
      this.refused += 1
      return false
    }
    this.#left -= bytes
    this.#taken.add(fileId)
    return true
  }

  bytesOf(fileIds: readonly number[]): number {
    return fileIds.reduce((sum, id) => sum + (this.#sizes.get(id) ?? 0), 0)
  }
}
