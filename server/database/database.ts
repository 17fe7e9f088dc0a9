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
  /** Counts restored backups; part of every fence. */
  epoch(): Promise<number>
  close(): Promise<void>
}
