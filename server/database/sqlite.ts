import knex, { type Knex } from 'knex'
import type { Database } from './database.ts'
import { readEpoch } from './epoch.ts'
import { migrateWith } from './schema.ts'

const READERS = 3

/**
 * Two sets of connections: some that read, and exactly one that writes, so that writers queue here instead of failing with
 * SQLITE_BUSY. A write transaction holds the lock from its first statement on (docs/decisions/0002).
 */
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
    migrate: () => migrateWith(writer),
    epoch: () => readEpoch(reader),
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
    // Errors tell the statement without what was bound: that may be anything, sealed tokens too.
    compileSqlOnError: false,
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
