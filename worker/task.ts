import type { z } from 'zod'
import type { taskResult } from '../shared/contract/routes/worker.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { StorageAccess } from './access.ts'
import type { AttemptFailure } from './failure.ts'
import type { Moment } from './remove.ts'
import type { Storages } from './storages.ts'

/** What tasks at storages work with. */
export interface TaskWorkshop {
  readonly access: StorageAccess
  readonly storages: Storages
  readonly clock: Clock
  /** Before the claim that gave the task was asked for. */
  readonly askedAt: Moment
  /** Another worker goes on. */
  readonly signal: AbortSignal
}

export type TaskResult = z.input<typeof taskResult>

/** What was done of a task, and what ended it before all was tried. */
export interface Done {
  readonly results: TaskResult[]
  readonly request?: string
  readonly forgotten?: boolean
  readonly error?: AttemptFailure
}
