import { chmod, chown, copyFile, link, open, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { WaybillError } from '../../shared/domain/errors.ts'
import { beginEpoch, type Epoch, readEpoch } from './epoch.ts'
import { migrateWith } from './schema.ts'
import { query } from './sql.ts'
import { alone, exists, OWNER_ONLY, removeDatabase, removeJournals, sync } from './sqlite-file.ts'

/**
 * Writes a consistent copy of a SQLite database, also while the server works on it. Throws 400 DATABASE_MISSING,
 * BACKUP_EXISTS, and DATABASE_EMPTY where there is nothing to copy: no backup is better than one that holds nothing.
 */
export async function backupSqlite(file: string, to: string): Promise<void> {
  if (!(await exists(file))) throw refusal('DATABASE_MISSING', `there is no database ${file}`)
  if (await exists(to)) throw refusal('BACKUP_EXISTS', `${to} is there already: name a new file`)
  const aside = `${to}.part`
  await rm(aside, { force: true })
  await alone(file, async connection => {
    await readEpoch(connection)
    await query(connection, 'VACUUM INTO :aside', { aside })
  })
  await chmod(aside, OWNER_ONLY)
  await sync(aside)
  await rename(aside, to)
  await sync(dirname(to))
}

/**
 * Puts a backup in the place of a SQLite database, in this version's schema and in a new epoch. What was there, damaged or
 * not, is kept beside it as `FILE.replaced-EPOCH`. Throws 400 BACKUP_MISSING, BACKUP_UNREADABLE, DATABASE_NEWER, DATABASE_IN_USE,
 * RESTORE_UNDER_WAY.
 */
export async function restoreSqlite(from: string, file: string, now: number): Promise<{ epoch: Epoch; kept?: string }> {
  if (!(await exists(from))) throw refusal('BACKUP_MISSING', `there is no file ${from}`)
  const last = (await exists(file)) ? await epochOfUnused(file) : 0
  const aside = `${file}.restoring`
  await takeName(aside)
  let restored: { epoch: Epoch; kept?: string }
  try {
    await removeJournals(aside)
    await copyFile(from, aside)
    restored = await putInPlace(aside, from, file, Math.max(now, (last + 1) * 1000))
  } catch (error) {
    // Only then: once it is in place the name is free, and may be another restore's.
    await removeDatabase(aside)
    throw error
  }
  await sync(dirname(file))
  return restored
}

/** One restore at a time: whoever makes the file has it. */
async function takeName(aside: string): Promise<void> {
  const made = await open(aside, 'wx', OWNER_ONLY).catch((error: { code?: unknown }) => {
    if (error.code !== 'EEXIST') throw error
    const what = `${aside} is there: another restore is under way; if one was interrupted, remove that file and repeat`
    throw refusal('RESTORE_UNDER_WAY', what)
  })
  await made.close()
}

/** Its last step puts it there: what throws has not. */
async function putInPlace(
  aside: string,
  from: string,
  file: string,
  now: number,
): Promise<{ epoch: Epoch; kept?: string }> {
  const isThere = await exists(file)
  const epoch = await inNewEpoch(aside, from, now)
  // Whoever runs the server owns what was there, or the directory.
  const { uid, gid } = await stat(isThere ? file : dirname(file))
  await chown(aside, uid, gid)
  await chmod(aside, OWNER_ONLY)
  await sync(aside)
  const kept = `${file}.replaced-${epoch}`
  // A server may have been started since it was looked at first, and have made it; what one does from here on is lost.
  if (isThere && (await epochOfUnused(file)) >= epoch)
    throw refusal('DATABASE_IN_USE', `a server had ${file} open meanwhile: stop it, and repeat`)
  // At no time is nothing there: a server that is started meanwhile would make an empty database.
  if (isThere) await link(file, kept)
  for (const part of ['-wal', '-shm']) if (await exists(file + part)) await rename(file + part, kept + part)
  await rename(aside, file)
  return { epoch, ...(isThere ? { kept } : {}) }
}

async function inNewEpoch(file: string, from: string, now: number): Promise<Epoch> {
  try {
    return await alone(file, async connection => {
      await readEpoch(connection)
      await migrateWith(connection)
      return beginEpoch(connection, now)
    })
  } catch (cause) {
    if (cause instanceof WaybillError) throw cause
    throw new WaybillError('BACKUP_UNREADABLE', `${from} is no backup of Waybill's database`, { status: 400, cause })
  }
}

/** The epoch of a database that no server has open; all of it is in the one file then. 0: it has none. */
async function epochOfUnused(file: string): Promise<Epoch> {
  return alone(file, async connection => {
    // Leaving WAL needs the file for oneself, and brings what is in the log into it.
    const left = await query<{ journal_mode: string }>(connection, 'PRAGMA journal_mode = DELETE').then(
      ([row]) => row?.journal_mode === 'delete',
      // A damaged database is what a backup is for.
      (error: { code?: unknown }) => error.code !== 'SQLITE_BUSY' && error.code !== 'SQLITE_LOCKED',
    )
    if (!left) throw refusal('DATABASE_IN_USE', `a server has ${file} open, or another restore: stop it first`)
    return readEpoch(connection).catch(() => 0)
  })
}

function refusal(code: string, message: string): WaybillError {
  return new WaybillError(code, message, { status: 400 })
}
