import type { Did } from '../../shared/domain/names.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, encodeRows, keyset, oneOf, query, queryOne, recordset } from '../database/sql.ts'

export type DidType = 'FILE' | 'DATASET' | 'CONTAINER'

export interface DidRow {
  id: number
  scope_id: number
  scope: string
  vo_id: number
  name: string
  type: DidType
  bytes: number
  files: number
  adler32: string | null
  md5: string | null
  is_open: number | boolean
  account: string
  created_at: number
}

/** Of `DidRow`, from `dids`, `scopes` and `accounts`. */
export const DID_COLUMNS = `dids.id, dids.scope_id, scopes.name AS scope, scopes.vo_id, dids.name, dids.type, dids.bytes, dids.files,
  dids.adler32, dids.md5, dids.is_open, accounts.name AS account, dids.created_at`
const DID_TABLES = 'dids JOIN scopes ON scopes.id = dids.scope_id JOIN accounts ON accounts.id = dids.account_id'

/** Makes the scopes that are missing, for this VO, and answers the keys of all. A scope of another VO has none in the answer. */
export async function ensureScopes(
  executor: Executor,
  voId: number,
  names: readonly string[],
): Promise<Map<string, number>> {
  const bindings = { names: encodeRows([...new Set(names)]), voId }
  await query(
    executor,
    `INSERT INTO scopes (vo_id, name) SELECT :voId, value FROM ${keyset(executor, 'names', 'text')} AS given
      WHERE true ON CONFLICT (name) DO NOTHING`,
    bindings,
  )
  const rows = await query<{ id: number; name: string }>(
    executor,
    `SELECT id, name FROM scopes WHERE vo_id = :voId AND name ${oneOf(executor, 'names', 'text')}`,
    bindings,
  )
  return new Map(rows.map(row => [row.name, row.id]))
}

export interface NewDid {
  scope_id: number
  name: string
  type: DidType
  bytes: number
  files: number
  adler32: string | null
  md5: string | null
}

/** How many of them are new; the others stay as they are. */
export async function insertDids(
  executor: Executor,
  dids: readonly NewDid[],
  accountId: number,
  now: number,
): Promise<number> {
  const set = recordset(executor, 'rows', {
    scope_id: 'bigint',
    name: 'text',
    type: 'text',
    bytes: 'bigint',
    files: 'bigint',
    adler32: 'text',
    md5: 'text',
  })
  const rows = await query(
    executor,
    `INSERT INTO dids (scope_id, name, type, bytes, files, adler32, md5, is_open, account_id, created_at)
     SELECT scope_id, name, type, bytes, files, adler32, md5, type <> 'FILE', :accountId, :now FROM ${set} AS given
      WHERE true ON CONFLICT (scope_id, name) DO NOTHING RETURNING id`,
    { rows: encodeRows(dids), accountId, now },
  )
  return rows.length
}

export interface KnownSums {
  readonly id: number
  readonly bytes: number
  readonly adler32: string | null
  readonly md5: string | null
}

/** Files of these sizes get the checksums that nobody had told; those that are known stay. */
export async function fillChecksums(executor: Executor, files: readonly KnownSums[]): Promise<void> {
  if (files.length === 0) return
  const set = recordset(executor, 'rows', { id: 'bigint', bytes: 'bigint', adler32: 'text', md5: 'text' })
  await query(
    executor,
    `UPDATE dids SET adler32 = coalesce(dids.adler32, given.adler32), md5 = coalesce(dids.md5, given.md5) FROM ${set} AS given
      WHERE dids.id = given.id AND dids.bytes = given.bytes AND (dids.adler32 IS NULL OR dids.md5 IS NULL)`,
    { rows: encodeRows(files) },
  )
}

export async function findDid(executor: Executor, did: Did): Promise<DidRow | undefined> {
  return queryOne<DidRow>(
    executor,
    `SELECT ${DID_COLUMNS} FROM ${DID_TABLES} WHERE scopes.name = :scope AND dids.name = :name`,
    { scope: did.scope, name: did.name },
  )
}

export interface NamedDid {
  position: number
  id: number
  type: DidType
  vo_id: number
}

/** Those of the given DIDs that exist, with their position in the list. */
export async function findDidsNamed(executor: Executor, dids: readonly Did[]): Promise<NamedDid[]> {
  const set = recordset(executor, 'rows', { position: 'bigint', scope: 'text', name: 'text' })
  return query(
    executor,
    `SELECT given.position, dids.id, dids.type, scopes.vo_id FROM ${set} AS given
       JOIN scopes ON scopes.name = given.scope JOIN dids ON dids.scope_id = scopes.id AND dids.name = given.name`,
    { rows: encodeRows(dids.map(({ scope, name }, position) => ({ position, scope, name }))) },
  )
}

/** `scope:name` of these keys. */
export async function namesOf(executor: Executor, ids: readonly number[]): Promise<string[]> {
  const rows = await query<{ did: string }>(
    executor,
    `SELECT scopes.name || ':' || dids.name AS did FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.id ${oneOf(executor, 'ids')} ORDER BY dids.id`,
    { ids: encodeRows(ids) },
  )
  return rows.map(row => row.did)
}

export interface FoundDid {
  position: number
  id: number
  type: DidType
  bytes: number
  adler32: string | null
  md5: string | null
  is_open: number | boolean
}

/** Those of the given names that exist, with their position in the list. */
export async function findDids(
  executor: Executor,
  names: readonly { scope_id: number; name: string }[],
): Promise<FoundDid[]> {
  const set = recordset(executor, 'rows', { position: 'bigint', scope_id: 'bigint', name: 'text' })
  return query<FoundDid>(
    executor,
    `SELECT given.position, dids.id, dids.type, dids.bytes, dids.adler32, dids.md5, dids.is_open
       FROM ${set} AS given JOIN dids ON dids.scope_id = given.scope_id AND dids.name = given.name`,
    { rows: encodeRows(names.map((name, position) => ({ position, ...name }))) },
  )
}

export async function listDidsOfScope(
  executor: Executor,
  sight: Sight,
  filter: { scope: string; prefix: string; type: DidType | undefined; after: string; limit: number },
): Promise<DidRow[]> {
  const type = filter.type === undefined ? '' : 'AND dids.type = :type'
  return query<DidRow>(
    executor,
    `SELECT ${DID_COLUMNS} FROM ${DID_TABLES}
      WHERE scopes.name = :scope AND dids.name > :after AND dids.name >= :prefix AND dids.name < :beyond ${type}
        ${withinReach(executor, sight, { vo: 'scopes.vo_id' })}
      ORDER BY dids.name LIMIT :limit`,
    {
      scope: filter.scope,
      prefix: filter.prefix,
      // Names are ASCII: nothing of the prefix comes after it.
      beyond: `${filter.prefix}\u007f`,
      after: filter.after,
      limit: filter.limit,
      ...(filter.type === undefined ? {} : { type: filter.type }),
      ...reachBindings(sight),
    },
  )
}

export async function setDidOpen(executor: Executor, didId: number, open: boolean): Promise<void> {
  await query(executor, 'UPDATE dids SET is_open = :open WHERE id = :didId', { didId, open })
}
