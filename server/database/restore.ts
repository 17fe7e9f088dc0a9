import { WaybillError } from '../../shared/domain/errors.ts'
import { restoreSqlite } from './backup.ts'
import type { Database } from './database.ts'
import { beginEpoch } from './epoch.ts'
import { type DatabaseOptions, openDatabase } from './open.ts'
import { queryOne } from './sql.ts'

/**
 * Ends the drill of `docs/operations.md`: the data of a backup are in place, in a new epoch. Answers what was done, in words.
 * Throws 400 BACKUP_UNNAMED or BACKUP_ELSEWHERE, and what `restoreSqlite` throws.
 */
export async function restore(database: DatabaseOptions, from: string | undefined, now: number): Promise<string> {
  if (database.kind === 'sqlite') {
    if (from === undefined) throw refusal('BACKUP_UNNAMED', 'name the backup: --from FILE')
    const { epoch, kept } = await restoreSqlite(from, database.file, now)
    const before = kept === undefined ? '' : `; what was there is ${kept}`
    return `${database.file} is ${from}, in epoch ${epoch}${before}`
  }
  if (from !== undefined) {
    throw refusal('BACKUP_ELSEWHERE', 'PostgreSQL is restored by its own means, then: waybill restore, without --from')
  }
  const db = openDatabase(database)
  try {
    await refuseOthers(db)
    await db.migrate()
    return `the database is in epoch ${await db.write(executor => beginEpoch(executor, now))}`
  } finally {
    await db.close()
  }
}

/** The first that is done with a PostgreSQL database which no server may have. Throws 400 DATABASE_IN_USE. */
export async function refuseOthers(db: Database): Promise<void> {
  const others = await db.write(executor => queryOne<{ count: number }>(executor, OTHERS))
  if ((others?.count ?? 0) > 0)
    throw refusal('DATABASE_IN_USE', 'a server has the database open: stop all of them first')
}

/** This is the first connection of ours. */
const OTHERS = `SELECT count(*) AS count FROM pg_stat_activity
  WHERE datname = current_database() AND application_name = 'waybill' AND pid <> pg_backend_pid()`

function refusal(code: string, message: string): WaybillError {
  return new WaybillError(code, message, { status: 400 })
}
