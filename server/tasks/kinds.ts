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

/** So many failures of all of it in a row, some hours, and its transfers fail with the reason. */
export const HOPELESS = 8

/** One kind of bulk work at a storage. All of it runs in the transaction that gives the task, or takes what was done of it. */
export interface TaskKind {
  readonly purpose: GrantPurpose & ('delete' | 'stage')
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
