import type { Knex } from 'knex'

/** A connection or a transaction: stores take the one they run in, since a call on the pool inside a transaction of a pool of one hangs. */
export type Executor = Knex

export type Binding = string | number | boolean | null

/** Rows of one statement, written for both databases: `RETURNING`, `ON CONFLICT` and `UPDATE ... FROM` are alike in them. */
export async function query<Row>(
  executor: Executor,
  sql: string,
  bindings: Readonly<Record<string, Binding>> = {},
): Promise<Row[]> {
  const answer: unknown = await executor.raw(sql, bindings)
  return (isSqlite(executor) ? answer : (answer as { rows: unknown }).rows) as Row[]
}

export async function queryOne<Row>(
  executor: Executor,
  sql: string,
  bindings: Readonly<Record<string, Binding>> = {},
): Promise<Row | undefined> {
  return (await query<Row>(executor, sql, bindings))[0]
}

export type ColumnType = 'bigint' | 'text' | 'boolean' | 'double precision'

/**
 * A set of rows as a table expression: `json_each` on SQLite, `jsonb_to_recordset` on PostgreSQL. `binding` names the
 * parameter that must be bound to `encodeRows(rows)`. Row by row, outcomes were applied at 900 a second; in sets at 36,000.
 */
export function recordset(executor: Executor, binding: string, columns: Readonly<Record<string, ColumnType>>): string {
  const names = Object.keys(columns)
  if (isSqlite(executor)) {
    const extracted = names.map(name => `json_extract(value, '$.${name}') AS ${name}`)
    return `(SELECT ${extracted.join(', ')} FROM json_each(:${binding}))`
  }
  const typed = names.map(name => `${name} ${columns[name]}`)
  return `(SELECT * FROM jsonb_to_recordset(CAST(:${binding} AS jsonb)) AS record(${typed.join(', ')}))`
}

/**
 * Ends a condition `column ...`: the column is one of these keys, bound to `encodeRows(keys)`. On PostgreSQL an array and no
 * subselect: a join with a set of unknown size reads the whole table, when its statistics are old once for each key.
 */
export function oneOf(executor: Executor, binding: string, type: ColumnType = 'bigint'): string {
  const keys = keyset(executor, binding, type)
  return isSqlite(executor) ? `IN ${keys}` : `= ANY (ARRAY ${keys})`
}

/** A list of keys as a subselect of one column `value`, bound to `encodeRows(keys)`. */
export function keyset(executor: Executor, binding: string, type: ColumnType = 'bigint'): string {
  if (isSqlite(executor)) return `(SELECT value FROM json_each(:${binding}))`
  return `(SELECT CAST(value AS ${type}) AS value FROM jsonb_array_elements_text(CAST(:${binding} AS jsonb)))`
}

export function encodeRows(rows: readonly unknown[]): string {
  return JSON.stringify(rows)
}

/**
 * Locks these rows until the transaction is over, in the order of their keys, so that two who lock some of the same wait
 * instead of deadlocking. What the next statement reads of them is true until then. On SQLite the writer is alone anyway.
 * `table`: a constant of ours. The rooms' order is that of docs/decisions/0007.
 */
export async function lockRows(executor: Executor, table: LockedTable, ids: readonly number[]): Promise<void> {
  if (isSqlite(executor) || ids.length === 0) return
  await query(executor, `SELECT id FROM ${table} WHERE id ${oneOf(executor, 'ids')} ORDER BY id FOR NO KEY UPDATE`, {
    ids: encodeRows(ids),
  })
}

export type LockedTable =
  | 'accounts'
  | 'replicas'
  | 'transfers'
  | 'links'
  | 'rses'
  | 'bundles'
  | 'rules'
  | 'imports'
  | 'issuers'
  | 'tasks'
  | 'mappings'
  | 'account_pools'
  | 'scopes'

/** Ends a SELECT whose rows are to be changed next; those that somebody else is changing are left to them. */
export function skippingLocked(executor: Executor, table: LockedTable): string {
  return isSqlite(executor) ? '' : `FOR NO KEY UPDATE OF ${table} SKIP LOCKED`
}

/** PostgreSQL's own code for it. */
export const OVERTAKEN = '40001'

/** What a transaction throws that finds changed what it saw before it had the locks: it is run again from its beginning. */
export function overtaken(how: string): Error {
  return Object.assign(new Error(how), { code: OVERTAKEN })
}

/** State names from the tables of `shared/domain`, quoted for an `IN (...)`: constants of ours, never input. */
export function stateList(states: readonly string[]): string {
  for (const state of states) {
    if (!/^[A-Z_]+$/.test(state)) throw new Error(`not a state: ${state}`)
  }
  return states.length === 0 ? `''` : states.map(state => `'${state}'`).join(', ')
}

export function isSqlite(executor: Executor): boolean {
  return String(executor.client.config.client).includes('sqlite')
}
