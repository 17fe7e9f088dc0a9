import type { Did } from '../../shared/domain/names.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, encodeRows, isSqlite, keyset, oneOf, query, queryOne, recordset } from '../database/sql.ts'

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

const DID_COLUMNS = `dids.id, dids.scope_id, scopes.name AS scope, scopes.vo_id, dids.name, dids.type, dids.bytes, dids.files,
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

export async function findDid(executor: Executor, did: Did): Promise<DidRow | undefined> {
  return queryOne<DidRow>(
    executor,
    `SELECT ${DID_COLUMNS} FROM ${DID_TABLES} WHERE scopes.name = :scope AND dids.name = :name`,
    { scope: did.scope, name: did.name },
  )
}

/** Those of the given DIDs that exist, with their position in the list. */
export async function findDidsNamed(
  executor: Executor,
  dids: readonly Did[],
): Promise<{ position: number; id: number; type: DidType; vo_id: number }[]> {
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

/** Names the advisory lock on the tree of containers among those of the database. */
const CONTAINERS_LOCK = 2

/**
 * For the beginning of attaching to a collection: whether it is open, which it stays. Rules on it or above it are added before
 * or after: one that was added meanwhile would hear nothing of what is attached.
 */
export async function holdForAttaching(executor: Executor, parent: Pick<DidRow, 'id' | 'type'>): Promise<boolean> {
  if (!isSqlite(executor)) {
    // One at a time, or two could attach each other's containers to a circle.
    const single = 'SELECT pg_advisory_xact_lock(:lock, 0)'
    if (parent.type === 'CONTAINER') await query(executor, single, { lock: CONTAINERS_LOCK })
    await query(executor, 'SELECT id FROM dids WHERE id = :id FOR NO KEY UPDATE', { id: parent.id })
    const above = (await ancestors(executor, parent.id)).filter(id => id !== parent.id)
    await query(executor, `SELECT id FROM dids WHERE id ${oneOf(executor, 'above')} ORDER BY id FOR SHARE`, {
      above: encodeRows(above),
    })
  }
  const row = await queryOne<{ is_open: number | boolean }>(executor, 'SELECT is_open FROM dids WHERE id = :id', {
    id: parent.id,
  })
  return Boolean(row?.is_open)
}

/** Before collections are attached: what is just being attached below them is waited for, or hears of what is above it now. */
export async function holdChildren(
  executor: Executor,
  parent: Pick<DidRow, 'type'>,
  ids: readonly number[],
): Promise<void> {
  if (isSqlite(executor) || parent.type !== 'CONTAINER') return
  await query(executor, `SELECT id FROM dids WHERE id ${oneOf(executor, 'ids')} ORDER BY id FOR SHARE`, {
    ids: encodeRows(ids),
  })
}

/** For the beginning of adding a rule on a DID: what is just being attached below it is waited for. */
export async function holdForRule(executor: Executor, didId: number): Promise<void> {
  if (isSqlite(executor)) return
  await query(executor, 'SELECT id FROM dids WHERE id = :didId FOR NO KEY UPDATE', { didId })
}

/** Attaches, and keeps the dataset's totals. The keys that were not attached before. */
export async function insertContents(
  executor: Executor,
  parentId: number,
  childIds: readonly number[],
): Promise<number[]> {
  const inserted = await query<{ child_id: number }>(
    executor,
    `INSERT INTO contents (parent_id, child_id) SELECT :parentId, value FROM ${keyset(executor, 'children')} AS given
      WHERE true ON CONFLICT (parent_id, child_id) DO NOTHING RETURNING child_id`,
    { parentId, children: encodeRows(childIds) },
  )
  const ids = inserted.map(row => row.child_id)
  if (ids.length > 0) {
    await query(
      executor,
      `UPDATE dids SET files = dids.files + added.files, bytes = dids.bytes + added.bytes
         FROM (SELECT count(*) AS files, sum(bytes) AS bytes FROM dids
                WHERE type = 'FILE' AND id ${oneOf(executor, 'ids')}) AS added
        WHERE dids.id = :parentId AND dids.type = 'DATASET' AND added.files > 0`,
      { parentId, ids: encodeRows(ids) },
    )
  }
  return ids
}

/** The DID itself and all collections above it. */
export async function ancestors(executor: Executor, didId: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `WITH RECURSIVE above(id) AS (
       SELECT CAST(:didId AS bigint) AS id UNION SELECT contents.parent_id FROM contents JOIN above ON contents.child_id = above.id
     ) SELECT id FROM above`,
    { didId },
  )
  return rows.map(row => row.id)
}

/** The datasets at or below a DID, after the given key, in order of their keys. */
export async function datasetsBelow(
  executor: Executor,
  didId: number,
  after: number,
  limit: number,
): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `WITH RECURSIVE below(id) AS (
       SELECT CAST(:didId AS bigint) AS id UNION SELECT contents.child_id FROM contents
         JOIN below ON contents.parent_id = below.id JOIN dids ON dids.id = below.id AND dids.type = 'CONTAINER'
     ) SELECT dids.id FROM below JOIN dids ON dids.id = below.id
        WHERE dids.type = 'DATASET' AND dids.id > :after ORDER BY dids.id LIMIT :limit`,
    { didId, after, limit },
  )
  return rows.map(row => row.id)
}

/** A file itself, or the files of a dataset after the given key, in order of their keys. */
export async function filesOf(
  executor: Executor,
  did: Pick<DidRow, 'id' | 'type'>,
  after: number,
  limit: number,
): Promise<number[]> {
  if (did.type === 'FILE') return did.id > after ? [did.id] : []
  const rows = await query<{ child_id: number }>(
    executor,
    'SELECT child_id FROM contents WHERE parent_id = :didId AND child_id > :after ORDER BY child_id LIMIT :limit',
    { didId: did.id, after, limit },
  )
  return rows.map(row => row.child_id)
}

export interface Totals {
  files: number
  bytes: number
}

/** Files and bytes below each of these containers that has any; a dataset that one holds on several ways counts once in it. */
export async function totalsBelow(executor: Executor, ids: readonly number[]): Promise<Map<number, Totals>> {
  if (ids.length === 0) return new Map()
  const rows = await query<Totals & { top: number }>(
    executor,
    `WITH RECURSIVE below(top, id) AS (
       SELECT id, id FROM dids WHERE id ${oneOf(executor, 'ids')} UNION
       SELECT below.top, contents.child_id FROM below JOIN contents ON contents.parent_id = below.id
         JOIN dids ON dids.id = below.id AND dids.type = 'CONTAINER'
     ) SELECT below.top, CAST(sum(dids.files) AS bigint) AS files, CAST(sum(dids.bytes) AS bigint) AS bytes
         FROM below JOIN dids ON dids.id = below.id AND dids.type = 'DATASET' GROUP BY below.top`,
    { ids: encodeRows(ids) },
  )
  return new Map(rows.map(({ top, ...totals }) => [top, totals]))
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

export async function listContentsOf(
  executor: Executor,
  didId: number,
  after: number,
  limit: number,
): Promise<DidRow[]> {
  return query<DidRow>(
    executor,
    `SELECT ${DID_COLUMNS} FROM contents JOIN dids ON dids.id = contents.child_id
       JOIN scopes ON scopes.id = dids.scope_id JOIN accounts ON accounts.id = dids.account_id
      WHERE contents.parent_id = :didId AND contents.child_id > :after ORDER BY contents.child_id LIMIT :limit`,
    { didId, after, limit },
  )
}

export async function setDidOpen(executor: Executor, didId: number, open: boolean): Promise<void> {
  await query(executor, 'UPDATE dids SET is_open = :open WHERE id = :didId', { didId, open })
}
