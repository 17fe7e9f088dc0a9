import { WaybillError } from '../../shared/domain/errors.ts'
import { beginEpoch, type Epoch } from './epoch.ts'
import { type MovedTable, movedRow, planMove } from './moved-rows.ts'
import { type DatabaseOptions, openDatabase } from './open.ts'
import { holdEmpty, insertRows, putBack, setSequences, takeAway, targetColumns } from './postgres-target.ts'
import { refuseOthers } from './restore.ts'
import { type Executor, encodeRows, query } from './sql.ts'
import { countRows, holdingSqlite, inCopy, lastKeys, nextRows, sourceColumns } from './sqlite-source.ts'

/** Rows go in sets of about this many UTF-16 units as JSON, of at most so many rows, and of few before their size is known. */
const SET_SIZE = 2 ** 21
const SET_ROWS = 10_000
const FIRST_ROWS = 100

export interface Moved {
  readonly epoch: Epoch
  /** Of each table, by its name. */
  readonly rows: Readonly<Record<string, number>>
}

/**
 * Copies all that a SQLite database holds into an empty PostgreSQL database, where it begins a new epoch. The first is read
 * only, and held until the end; the second has all of it, or nothing when anything goes wrong. `now`: epoch milliseconds.
 * Throws 400 DATABASE_NOT_POSTGRESQL, DATABASE_NOT_EMPTY, SCHEMA_DIFFERS, ROW_REFUSED, DATABASE_IN_USE (of either), and what
 * `holdingSqlite` throws.
 */
export async function moveToPostgres(from: string, target: DatabaseOptions, now: number): Promise<Moved> {
  if (target.kind !== 'postgresql') {
    throw new WaybillError(
      'DATABASE_NOT_POSTGRESQL',
      'the configuration names a SQLite file: set `database` to the url of an empty PostgreSQL database (docs/operations.md)',
      { status: 400 },
    )
  }
  return holdingSqlite(from, async held => {
    const db = openDatabase(target)
    try {
      await refuseOthers(db)
      await db.migrate()
      // Said before the copy is made, which may take minutes.
      await db.write(holdEmpty)
      return await inCopy(held, from, copy => db.write(executor => moveAll(copy, executor, now)))
    } finally {
      await db.close()
    }
  })
}

async function moveAll(copy: Executor, executor: Executor, now: number): Promise<Moved> {
  // A server that starts meanwhile waits for the end, and finds everything.
  await holdEmpty(executor)
  const tables = planMove(await sourceColumns(copy), await targetColumns(executor))
  const taken = await takeAway(executor)
  await query(executor, 'DELETE FROM installation')
  for (const table of tables) await moveTable(copy, executor, table)
  await putBack(executor, taken)
  const rows: Record<string, number> = {}
  for (const table of tables) rows[table.name] = await sameCount(copy, executor, table)
  await setSequences(executor, await lastKeys(copy))
  const epoch = await beginEpoch(executor, now)
  await query(executor, `ANALYZE ${tables.map(({ name }) => `"${name}"`).join(', ')}`)
  return { epoch, rows }
}

/** Set by set, in flat memory; the next is read while one is written. */
async function moveTable(copy: Executor, executor: Executor, table: MovedTable): Promise<void> {
  let limit = FIRST_ROWS
  let rows = await nextRows(copy, table, Number.MIN_SAFE_INTEGER, limit)
  for (let last = rows.at(-1); last !== undefined; last = rows.at(-1)) {
    const moved = rows.map(row => movedRow(table, row))
    const encoded = encodeRows(moved)
    limit = setRows(moved.length, encoded.length)
    const { source_rowid: after } = last
    ;[rows] = await Promise.all([nextRows(copy, table, after, limit), insertRows(executor, table, moved, encoded)])
  }
}

/** How many rows the next set may have, after one of `rows` took `size`: at most twice as many, since the next may be longer. */
function setRows(rows: number, size: number): number {
  return Math.max(1, Math.min(Math.floor((rows * SET_SIZE) / size), 2 * rows, SET_ROWS))
}

/** Throws 500 ROWS_LOST. */
async function sameCount(copy: Executor, executor: Executor, table: MovedTable): Promise<number> {
  const [there, here] = [await countRows(copy, table), await countRows(executor, table)]
  if (there === here) return here
  throw new WaybillError('ROWS_LOST', `${table.name} has ${there} rows and ${here} came over: nothing was moved`)
}
