import knex, { type Knex } from 'knex'
import pg from 'pg'
import { parseIntoClientConfig } from 'pg-connection-string'
import type { Secret } from '../../shared/domain/secret.ts'
import type { Database } from './database.ts'
import { readEpoch } from './epoch.ts'
import { Notifications } from './notifications.ts'
import { migrateWith } from './schema.ts'
import { type Executor, OVERTAKEN, queryOne } from './sql.ts'

export interface PostgresOptions {
  readonly kind: 'postgresql'
  /** `postgres://user@host:port/database`, without the password. `sslmode` and `sslrootcert` are understood. */
  readonly url: string
  readonly password?: Secret
  /** For writing; half as many more only read. */
  readonly connections: number
}

/** A transaction that lost a deadlock, or its snapshot, is run again so often (architecture, Database). */
const TRIES = 5
const DEADLOCK = '40P01'
/** Of the advisory lock that migrations are run under; any number will do. */
const MIGRATION_LOCK = 7_929_451

/**
 * PostgreSQL, any number of servers on one database. READ COMMITTED: each statement sees what was committed when it began, so
 * a decision is made by a statement that runs after the rows it is about were locked (`lockRows`).
 */
export function openPostgres(options: PostgresOptions): Database {
  const writer = knex(postgresConfig(options, options.connections))
  const reader = knex(postgresConfig(options, Math.ceil(options.connections / 2)))
  return {
    read: reader,
    write: work => transaction(writer, work),
    migrate: () =>
      writer.transaction(async executor => {
        await executor.raw('SELECT pg_advisory_xact_lock(?)', [MIGRATION_LOCK])
        await migrateWith(writer)
      }),
    epoch: () => readEpoch(reader),
    async time() {
      const sql = 'SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now'
      return (await queryOne<{ now: number }>(reader, sql))?.now ?? 0
    },
    notifications: (heard, clock, log) =>
      new Notifications({ connect: () => new pg.Client(connectionOf(options)), heard, clock, log }),
    async close() {
      await reader.destroy()
      await writer.destroy()
    },
  }
}

async function transaction<T>(writer: Knex, work: (executor: Executor) => Promise<T>): Promise<T> {
  for (let left = TRIES - 1; ; left -= 1) {
    try {
      return await writer.transaction(work)
    } catch (error) {
      if (left === 0 || !isOvertaken(error)) throw error
    }
  }
}

function isOvertaken(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === DEADLOCK || code === OVERTAKEN
}

/** Parsed here: what pg finds in a `connectionString`, the password that is not there too, it puts above all else. */
function connectionOf({ url, password }: PostgresOptions): pg.ClientConfig {
  return {
    ...parseIntoClientConfig(url),
    ...(password === undefined ? {} : { password: password.reveal() }),
    application_name: 'waybill',
  }
}

function postgresConfig(options: PostgresOptions, connections: number): Knex.Config {
  return {
    client: 'pg',
    connection: { ...connectionOf(options), types: { getTypeParser } } as Knex.PgConnectionConfig,
    pool: { min: 0, max: connections },
    // Errors tell the statement without what was bound: that may be anything, sealed tokens too.
    compileSqlOnError: false,
    // What goes wrong is thrown, and logged by whoever meets it: knex would print it besides.
    log: { warn: silent, error: silent, deprecate: silent, debug: silent },
  }
}

const silent = (): void => undefined

/** Keys, times and counts are far below 2^53: they are numbers, as on SQLite. A sum of bigints is numeric. */
function getTypeParser(oid: number, format?: 'text' | 'binary') {
  const { INT8, NUMERIC } = pg.types.builtins
  return oid === INT8 || oid === NUMERIC ? Number : pg.types.getTypeParser(oid, format as 'text')
}
