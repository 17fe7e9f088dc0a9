import type { z } from 'zod'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import type { Routes } from '../../shared/contract/routes.ts'
import type { GrantPurpose } from '../../shared/domain/grant-state.ts'
import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import type { Executor } from '../database/sql.ts'
import { MAX_DIRECTORIES } from '../tokens/scopes.ts'
import type { TaskFile, TaskRow } from './store.ts'

export type Told = z.output<Routes['reportTask']['body']>
type Want = StorageTask['files'][number]['want']

/** What a worker is to do of a task now; files that are not named are left alone. */
export interface Order {
  readonly wants: ReadonlyMap<number, Want>
  readonly request?: string
  readonly last: boolean
}

/** Who reports, and what its failures come to. */
export interface Reporter {
  readonly sessionId: number
  readonly policy: RetryPolicy
  readonly fraction: number
}

/** A task with what is left of its files, by replica. */
export interface HeldTask extends TaskRow {
  readonly files: ReadonlyMap<number, TaskFile>
}

/** So many failures of all of it in a row, an hour or two, and its transfers fail with the reason. */
export const HOPELESS = 8
/** What does not count for that has it looked at again within minutes. */
const MOST_UNCOUNTED = 4

/** Failures in a row, after this one. Pure. */
export function failuresAfter({ failures }: Pick<TaskRow, 'failures'>, error: NonNullable<Told['error']>): number {
  return countsFor(error) ? failures + 1 : Math.min(failures + 1, MOST_UNCOUNTED)
}

/** Whether the storage has failed all of it so often that what waits for it fails. Pure. */
export function isHopeless(task: Pick<TaskRow, 'failures'>, error: Told['error']): error is NonNullable<Told['error']> {
  return error !== undefined && countsFor(error) && failuresAfter(task, error) >= HOPELESS
}

/** Not a storage that asks for rest, nor a token that is not to be had now, nor what went wrong between worker and server. */
function countsFor({ scope, code }: NonNullable<Told['error']>): boolean {
  return scope !== 'TOKEN' && scope !== 'GENERAL' && code !== 'TOO_MANY_REQUESTS' && code !== 'STORAGE_BUSY'
}

/** One kind of bulk work at a storage. All of it runs in the transaction that gives the task, or takes what was done of it. */
export interface TaskKind {
  readonly purpose: GrantPurpose & ('delete' | 'stage' | 'read')
  order(executor: Executor, task: TaskRow, files: readonly TaskFile[], now: number): Promise<Order>
  /** How much was done, for the spacing of failures. */
  take(executor: Executor, task: HeldTask, told: Told, by: Reporter, now: number): Promise<number>
  /** When it goes on, if nothing failed. Epoch ms. */
  next(task: TaskRow, told: Told, now: number): number
}

/** As many of these files as one token opens: those in the first so many directories. Pure. */
export function withinToken<File extends { readonly top: string }>(files: readonly File[]): File[] {
  const tops = new Set([...new Set(files.map(({ top }) => top))].slice(0, MAX_DIRECTORIES))
  return files.filter(({ top }) => tops.has(top))
}
