import { writeFile } from 'node:fs/promises'
import type { Knex } from 'knex'
import { WaybillError } from '../../shared/domain/errors.ts'
import { readEpoch } from './epoch.ts'
import type { MovedTable, SourceColumn } from './moved-rows.ts'
import { migrateWith } from './schema.ts'
import { type Executor, query, queryOne } from './sql.ts'
import { alone, exists, OWNER_ONLY, removeDatabase } from './sqlite-file.ts'

/**
 * Runs `use` while nobody else has this SQLite database, and nobody can open it: what a server wrote now would be lost. It is
 * read only. Throws 400 DATABASE_MISSING, DATABASE_IN_USE, DATABASE_UNREADABLE.
 */
export async function holdingSqlite<T>(file: string, use: (held: Knex) => Promise<T>): Promise<T> {
  if (!(await exists(file))) throw refusal('DATABASE_MISSING', `there is no database ${file}`)
  return alone(file, async held => {
    await hold(held, file)
    return use(held)
  })
}

/** In this mode a lock stays until the connection is closed; in WAL none is given while another connection is open. */
async function hold(connection: Knex, file: string): Promise<void> {
  try {
    for (const sql of ['PRAGMA locking_mode = EXCLUSIVE', 'BEGIN EXCLUSIVE', 'COMMIT']) await query(connection, sql)
    await readEpoch(connection)
  } catch (cause) {
    const { code } = cause as { code?: unknown }
    if (code === 'SQLITE_BUSY' || code === 'SQLITE_LOCKED')
      throw refusal('DATABASE_IN_USE', `a server has ${file} open: stop it first`)
    throw refusal(
      'DATABASE_UNREADABLE',
      `${file} is no database of Waybill, or damaged, or not for who runs this to write to (it is locked meanwhile)`,
      cause,
    )
  }
}

/**
 * Runs `use` on a copy of the database in this version's schema, which stands beside it as `FILE.moving` and is removed in
 * the end. Throws 400 DATABASE_UNREADABLE.
 */
export async function inCopy<T>(held: Knex, file: string, use: (copy: Knex) => Promise<T>): Promise<T> {
  const aside = `${file}.moving`
  // A run that was killed may have left one.
  await removeDatabase(aside)
  try {
    await writeFile(aside, '', { mode: OWNER_ONLY })
    await query(held, 'VACUUM INTO :aside', { aside })
    return await alone(aside, async copy => {
      await migrateWith(copy).catch((cause: Error) => {
        throw refusal('DATABASE_UNREADABLE', `${file} cannot be brought to this version: ${cause.message}`, cause)
      })
      return use(copy)
    })
  } finally {
    await removeDatabase(aside)
  }
}

export async function sourceColumns(copy: Executor): Promise<SourceColumn[]> {
  return query<SourceColumn>(
    copy,
    `SELECT tables.name AS "table", columns.name AS "column", columns.pk AS "key"
       FROM sqlite_master AS tables JOIN pragma_table_info(tables.name) AS columns
      WHERE tables.type = 'table' AND substr(tables.name, 1, 7) <> 'sqlite_' ORDER BY tables.name, columns.cid`,
  )
}

/** The highest key that each table ever gave out; also those of rows that are gone are not given out again. */
export async function lastKeys(copy: Executor): Promise<ReadonlyMap<string, number>> {
  const rows = await query<{ name: string; seq: number }>(copy, 'SELECT name, seq FROM sqlite_sequence')
  return new Map(rows.map(({ name, seq }) => [name, seq]))
}

export type SourceRow = Readonly<Record<string, unknown>> & { readonly source_rowid: number }

/** The next rows by SQLite's own key, which every table has, whatever its primary key. */
export async function nextRows(copy: Executor, table: MovedTable, after: number, limit: number): Promise<SourceRow[]> {
  const columns = Object.keys(table.columns).map(name => `"${name}"`)
  return query<SourceRow>(
    copy,
    `SELECT rowid AS source_rowid, ${columns.join(', ')} FROM "${table.name}"
      WHERE rowid > :after ORDER BY rowid LIMIT :limit`,
    { after, limit },
  )
}

export async function countRows(executor: Executor, table: MovedTable): Promise<number> {
  return (await queryOne<{ n: number }>(executor, `SELECT count(*) AS n FROM "${table.name}"`))?.n ?? 0
}

function refusal(code: string, message: string, cause?: unknown): WaybillError {
  return new WaybillError(code, message, { status: 400, cause })
}
