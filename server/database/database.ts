import knex, { type Knex } from 'knex'
import { migrationSource } from '../../migrations/index.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { type Executor, queryOne } from './sql.ts'

/**
 * Two sets of connections: some that read, and on SQLite exactly one that writes, so that writers queue here instead of
 * failing with SQLITE_BUSY. A write transaction holds the lock from its first statement on (docs/decisions/0002).
 */
export interface Database {
  readonly read: Executor
  write<T>(work: (executor: Executor) => Promise<T>): Promise<T>
  migrate(): Promise<void>
  /** Counts restored backups; part of every fence. */
  epoch(): Promise<number>
  close(): Promise<void>
}

const READERS = 3

export function openSqlite(filename: string): Database {
  const writer = knex(sqliteConfig(filename, 1))
  const reader = knex(sqliteConfig(filename, READERS))
  return {
    read: reader,
    write: work =>
      writer.transaction(async executor => {
        // knex begins deferred: a write takes the lock at once, so that nothing read here can be stale when it is written.
        await executor.raw('UPDATE installation SET epoch = epoch WHERE id = 0')
        return work(executor)
      }),
    async migrate() {
      await writer.migrate.latest({ migrationSource })
    },
    async epoch() {
      const row = await queryOne<{ epoch: number }>(reader, 'SELECT epoch FROM installation')
      if (row === undefined)
        throw new WaybillError('DATABASE_EMPTY', 'the database has no schema: run `waybill migrate`')
      return row.epoch
    },
    async close() {
      await reader.destroy()
      await writer.destroy()
    },
  }
}

function sqliteConfig(filename: string, connections: number): Knex.Config {
  return {
    client: 'sqlite3',
    connection: { filename },
    useNullAsDefault: true,
    pool: {
      min: 1,
      max: connections,
      afterCreate: (
        connection: { exec(sql: string, done: (error: Error | null) => void): void },
        done: (error: Error | null, connection: unknown) => void,
      ) => {
        const pragmas = [
          'PRAGMA busy_timeout = 5000',
          'PRAGMA journal_mode = WAL',
          'PRAGMA synchronous = FULL',
          'PRAGMA foreign_keys = ON',
          'PRAGMA cache_size = -32768',
        ]
        connection.exec(pragmas.join(';'), error => done(error, connection))
      },
    },
  }
}
