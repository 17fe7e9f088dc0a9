import { WaybillError } from '../../shared/domain/errors.ts'
import { keyOf, type MovedTable, type MovedType, type TargetColumn } from './moved-rows.ts'
import { type Binding, type ColumnType, type Executor, query, recordset } from './sql.ts'

/** What the migrations fill themselves. Whatever else holds a row was used. */
const SEEDED: ReadonlySet<string> = new Set(['installation', 'knex_migrations', 'knex_migrations_lock'])

export async function targetColumns(executor: Executor): Promise<TargetColumn[]> {
  return query<TargetColumn>(
    executor,
    `SELECT table_name AS "table", column_name AS "column", data_type AS "type"
       FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
      WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position`,
  )
}

/** Throws 400 DATABASE_NOT_EMPTY. What it finds empty stays so until the transaction is over: nobody else gets at it. */
export async function holdEmpty(executor: Executor): Promise<void> {
  const names = [...new Set((await targetColumns(executor)).map(({ table }) => table))]
  await query(executor, `LOCK TABLE ${names.map(quoted).join(', ')} IN ACCESS EXCLUSIVE MODE`)
  const own = names.filter(name => !SEEDED.has(name))
  const looks = own.map((name, index) => `SELECT ${index} AS index WHERE EXISTS (SELECT 1 FROM ${quoted(name)})`)
  const filled = await query<{ index: number }>(executor, looks.join(' UNION ALL '))
  if (filled.length === 0) return
  const tables = filled.map(({ index }) => own[index]).join(', ')
  throw refusal(
    'DATABASE_NOT_EMPTY',
    `the PostgreSQL database holds something (${tables}): make an empty one, and name that`,
  )
}

/** A constraint or an index that is away while rows come in, and what makes it again. */
interface Put {
  readonly name: string
  readonly table: string
  readonly again: string
}

/**
 * Takes references, keys and indexes away; `putBack` makes them anew. With them 1.2 million rows took 22 s, so 9; and rows may
 * come in any order, those that refer to their own table too.
 */
export async function takeAway(executor: Executor): Promise<Put[]> {
  const constraints = await query<Put>(
    executor,
    `SELECT quote_ident(conname) AS name, CAST(CAST(conrelid AS regclass) AS text) AS "table",
            format('ALTER TABLE %s ADD CONSTRAINT %I %s', CAST(conrelid AS regclass), conname, pg_get_constraintdef(oid)) AS again
       FROM pg_constraint WHERE contype IN ('f', 'p', 'u') AND connamespace = CAST(current_schema() AS regnamespace)
      ORDER BY contype <> 'f', conname`,
  )
  for (const { table, name } of constraints) await query(executor, `ALTER TABLE ${table} DROP CONSTRAINT ${name}`)
  const indexes = await query<Put>(
    executor,
    `SELECT CAST(CAST(indexrelid AS regclass) AS text) AS name, CAST(CAST(indrelid AS regclass) AS text) AS "table",
            pg_get_indexdef(indexrelid) AS again
       FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
      WHERE relnamespace = CAST(current_schema() AS regnamespace) ORDER BY relname`,
  )
  for (const { name } of indexes) await query(executor, `DROP INDEX ${name}`)
  // What is referred to comes back before what refers to it.
  return [...indexes, ...constraints.reverse()]
}

/** Throws 400 ROW_REFUSED for rows that they do not allow. */
export async function putBack(executor: Executor, taken: readonly Put[]): Promise<void> {
  for (const { name, table, again } of taken) {
    await query(executor, again).catch((cause: unknown) => {
      throw refusalOf(cause, `${table} breaks ${name}`)
    })
  }
}

/** `encoded`: by `encodeRows`, of `rows`. Throws 400 ROW_REFUSED. */
export async function insertRows(
  executor: Executor,
  table: MovedTable,
  rows: readonly Readonly<Record<string, Binding>>[],
  encoded: string,
): Promise<void> {
  const types = Object.entries(table.columns).map(([name, type]) => [name, carriedAs(type)] as const)
  const names = types.map(([name]) => quoted(name)).join(', ')
  const records = recordset(executor, 'encoded', Object.fromEntries(types))
  const sql = `INSERT INTO ${quoted(table.name)} (${names}) SELECT ${names} FROM ${records} AS records`
  await query(executor, sql, { encoded }).catch((cause: unknown) => {
    const [first = {}, last = {}] = [rows[0], rows.at(-1)]
    throw refusalOf(cause, `a row of ${table.name}, from ${keyOf(table, first)} to ${keyOf(table, last)}, is refused`)
  })
}

/** References that lead nowhere, and keys that are there twice: their detail names columns and keys. That of others is the row. */
const TELLING: ReadonlySet<string> = new Set(['23503', '23505'])

/**
 * What data are to blame for, by SQLSTATE: data exceptions, integrity violations, and limits, such as that of an index. Anything
 * else is passed on.
 */
function refusalOf(cause: unknown, what: string): unknown {
  const { code = '', detail } = cause as { code?: string; detail?: string }
  if (!/^(2[23]|54)/.test(code)) return cause
  const why = TELLING.has(code) && detail !== undefined ? detail : `PostgreSQL's error ${code}`
  return refusal('ROW_REFUSED', `${what}: ${why}; correct it and repeat`, cause)
}

/** Integers go as bigint, and are checked when they are stored. */
function carriedAs(type: MovedType): ColumnType {
  return type === 'integer' ? 'bigint' : type
}

/** The next rows get keys above all that are there, and above `last` of their table. */
export async function setSequences(executor: Executor, last: ReadonlyMap<string, number>): Promise<void> {
  const found = await query<{ table: string; column: string; sequence: string }>(
    executor,
    `SELECT table_name AS "table", column_name AS "column",
            pg_get_serial_sequence(quote_ident(table_name), column_name) AS sequence
       FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
      WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'
        AND pg_get_serial_sequence(quote_ident(table_name), column_name) IS NOT NULL`,
  )
  for (const { table, column, sequence } of found) {
    // `setval` is not undone with the transaction: so it is said for an empty table too.
    await query(
      executor,
      `SELECT setval(CAST(:sequence AS regclass), greatest(used, 1), used > 0)
         FROM (SELECT greatest((SELECT max(${quoted(column)}) FROM ${quoted(table)}), CAST(:last AS bigint)) AS used) AS keys`,
      { sequence, last: last.get(table) ?? 0 },
    )
  }
}

/** Others' tables may be called anything. */
function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

function refusal(code: string, message: string, cause?: unknown): WaybillError {
  return new WaybillError(code, message, { status: 400, cause })
}
