import { lacking } from '../accounts/permission-store.ts'
import { type Executor, encodeRows, keyset, query, recordset } from '../database/sql.ts'
import type { NameRange } from '../storages/paths.ts'

/** A range and what it was made from: its position in what is asked about. */
export interface AskedRange extends NameRange {
  readonly position: number
}

export interface FoundScope {
  readonly position: number
  readonly name: string
}

/** Who somebody asks for, of the accounts of one VO. */
interface Asking {
  readonly id: number
  readonly voId: number
}

// SQLite keeps the order of a CROSS JOIN: each range is looked up by its index, where it would go through all that a storage has.
const RANGE = { position: 'bigint', low: 'text', high: 'text' } as const

/** Somebody said that files of this scope lie in these directories, which the layout may have given to none. */
export async function noteScope(executor: Executor, scopeId: number, directoryIds: readonly number[]): Promise<void> {
  await query(
    executor,
    `INSERT INTO directory_scopes (directory_id, scope_id) SELECT value, :scopeId FROM ${keyset(executor, 'directories')} AS given
      WHERE true ON CONFLICT DO NOTHING`,
    { scopeId, directories: encodeRows(directoryIds) },
  )
}

/** One scope of the VO in each of these ranges of names that has any. */
export async function scopesAmong(
  executor: Executor,
  voId: number,
  ranges: readonly AskedRange[],
): Promise<FoundScope[]> {
  return query(
    executor,
    `SELECT given.position, min(scopes.name) AS name FROM ${recordset(executor, 'ranges', RANGE)} AS given
      CROSS JOIN scopes WHERE scopes.vo_id = :voId AND scopes.name >= given.low AND scopes.name < given.high GROUP BY given.position`,
    { voId, ranges: encodeRows(ranges) },
  )
}

/** One scope in these ranges of names in which the account may not write. */
export async function refusedAmong(
  executor: Executor,
  account: Asking,
  ranges: readonly AskedRange[],
): Promise<FoundScope | undefined> {
  const [first] = await query<FoundScope>(
    executor,
    `SELECT given.position, scopes.name FROM ${recordset(executor, 'ranges', RANGE)} AS given
      CROSS JOIN scopes WHERE scopes.vo_id = :voId AND scopes.name >= given.low AND scopes.name < given.high
        AND ${lacking('write')} ORDER BY given.position LIMIT 1`,
    { voId: account.voId, account: account.id, ranges: encodeRows(ranges) },
  )
  return first
}

/** One scope in which the account may not write, of those whose files somebody said lie in directories of these ranges of paths. */
export async function refusedAt(
  executor: Executor,
  account: Asking,
  rseId: number,
  ranges: readonly AskedRange[],
): Promise<FoundScope | undefined> {
  const [first] = await query<FoundScope>(
    executor,
    `SELECT given.position, scopes.name FROM ${recordset(executor, 'ranges', RANGE)} AS given
      CROSS JOIN directories CROSS JOIN directory_scopes JOIN scopes ON scopes.id = directory_scopes.scope_id
      WHERE directories.rse_id = :rseId AND directories.path >= given.low AND directories.path < given.high
        AND directory_scopes.directory_id = directories.id AND scopes.vo_id = :voId AND ${lacking('write')} LIMIT 1`,
    { rseId, voId: account.voId, account: account.id, ranges: encodeRows(ranges) },
  )
  return first
}
