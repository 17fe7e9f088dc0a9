import type { Knex } from 'knex'
import { migrationSource } from '../../migrations/index.ts'

/**
 * Runs the migrations that are missing. knex keeps a lock in a table, which a process that was killed leaves behind: whoever
 * comes here is alone (PostgreSQL), or finds what the other has made when it is done (SQLite), so a lock that is there is dead.
 */
export async function migrateWith(connection: Knex): Promise<void> {
  await connection.migrate.forceFreeMigrationsLock({ migrationSource })
  await connection.migrate.latest({ migrationSource })
}
