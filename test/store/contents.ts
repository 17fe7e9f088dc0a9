import { type Executor, query } from '../../server/database/sql.ts'

/** What stands in a database, to be compared with another. */

type Row = Readonly<Record<string, unknown>>

/** The tables of our own in a SQLite database. */
export async function tablesOf(executor: Executor): Promise<string[]> {
  const sql = `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'knex%'`
  return (await query<{ name: string }>(executor, sql)).map(({ name }) => name).sort()
}

/** Every row of a table; what SQLite and PostgreSQL have for true and false is made alike. */
export async function rowsOf(executor: Executor, table: string): Promise<string[]> {
  const alike = (value: unknown): unknown => (typeof value === 'boolean' ? Number(value) : value)
  const inOrder = (row: Row): unknown =>
    Object.keys(row)
      .sort()
      .map(column => [column, alike(row[column])])
  const rows = await query<Row>(executor, `SELECT * FROM ${table}`)
  return rows.map(row => JSON.stringify(inOrder(row))).sort()
}

/** The indexes and constraints of a PostgreSQL database. */
export async function schemaOf(executor: Executor): Promise<Row[]> {
  return query(
    executor,
    `SELECT indexname AS name, indexdef AS definition FROM pg_indexes WHERE schemaname = 'public' UNION ALL
     SELECT conname, CAST(conrelid AS regclass) || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
      WHERE connamespace = CAST('public' AS regnamespace) ORDER BY name, definition`,
  )
}
