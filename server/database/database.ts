import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import type { Epoch } from './epoch.ts'
import type { Notifications } from './notifications.ts'
import type { Executor } from './sql.ts'

/**
 * What stands behind all stores. Reading never waits for writing. What is read in a write transaction, after the rows it is
 * about were locked, is true until the transaction is over: on SQLite since there is one writer (docs/decisions/0002), on
 * PostgreSQL since whoever changes rows locks them first, in one order (docs/decisions/0007).
 */
export interface Database {
  readonly read: Executor
  /** Runs `work` in a transaction, again when the database broke a deadlock: it changes nothing outside of the database. */
  write<T>(work: (executor: Executor) => Promise<T>): Promise<T>
  /** Brings the schema to this version. Safe when several servers start at once. */
  migrate(): Promise<void>
  epoch(): Promise<Epoch>
  /** Of the database's own clock, epoch milliseconds; undefined where that is this machine's. */
  readonly time?: () => Promise<number>
  /** Words between the servers on one database; undefined where there is one server. */
  readonly notifications?: (heard: (word: string) => void, clock: Clock, log: Logger) => Notifications
  close(): Promise<void>
}
