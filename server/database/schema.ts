import type { Knex } from 'knex'
import { migrationSource } from '../../migrations/index.ts'
import { WaybillError } from '../../shared/domain/errors.ts'

/**
 * Runs the migrations that are missing. knex keeps a lock in a table, which a process that was killed leaves behind: whoever
 * comes here is alone (PostgreSQL), or finds what the other has made when it is done (SQLite), so a lock that is there is dead.
 * Throws 400 DATABASE_NEWER.
 */
export async function migrateWith(connection: Knex): Promise<void> {
  await refuseNewer(connection)
  await connection.migrate.forceFreeMigrationsLock({ migrationSource })
  await connection.migrate.latest({ migrationSource })
}

/** A database that a newer version has migrated holds what this one knows nothing of. */
async function refuseNewer(connection: Knex): Promise<void> {
  if (!(await connection.schema.hasTable('knex_migrations'))) return
  const known = new Set((await migrationSource.getMigrations([])).map(({ name }) => name))
  const made: { name: string }[] = await connection('knex_migrations').select('name')
  const unknown = made.find(({ name }) => !known.has(name))
  if (unknown === undefined) return
  const message = `a newer version of Waybill has made this database (${unknown.name}): update this one`
  throw new WaybillError('DATABASE_NEWER', message, { status: 400 })
}
