import { type Executor, encodeRows, isSqlite, keyset, oneOf, query, queryOne } from '../database/sql.ts'
import { DID_COLUMNS, type DidRow } from './did-store.ts'

/** Names the advisory lock on the tree of containers among those of the database. */
const CONTAINERS_LOCK = 2

/**
 * For the beginning of attaching to a collection or detaching from it: whether it is open, which it stays. Rules on it or above it
 * are added before or after: one that was added meanwhile would hear nothing of the change.
 */
export async function holdContents(executor: Executor, parent: Pick<DidRow, 'id' | 'type'>): Promise<boolean> {
  if (!isSqlite(executor)) {
    // One at a time, or two could attach each other's containers to a circle.
    const single = 'SELECT pg_advisory_xact_lock(:lock, 0)'
    if (parent.type === 'CONTAINER') await query(executor, single, { lock: CONTAINERS_LOCK })
    await query(executor, 'SELECT id FROM dids WHERE id = :id FOR NO KEY UPDATE', { id: parent.id })
    await holdAncestors(executor, parent.id)
  }
  const row = await queryOne<{ is_open: number | boolean }>(executor, 'SELECT is_open FROM dids WHERE id = :id', {
    id: parent.id,
  })
  return Boolean(row?.is_open)
}

/** Until no more are found: one of them may have been attached to others while it was waited for. */
async function holdAncestors(executor: Executor, didId: number): Promise<void> {
  const held = new Set([didId])
  for (;;) {
    const above = (await ancestors(executor, didId)).filter(id => !held.has(id))
    if (above.length === 0) return
    await query(executor, `SELECT id FROM dids WHERE id ${oneOf(executor, 'above')} ORDER BY id FOR SHARE`, {
      above: encodeRows(above),
    })
    for (const id of above) held.add(id)
  }
}

/**
 * Before collections are attached: what is just being attached or detached anywhere below them is waited for, or hears of what is
 * above it now. Against `holdAncestors`.
 */
export async function holdChildren(
  executor: Executor,
  parent: Pick<DidRow, 'type'>,
  ids: readonly number[],
): Promise<void> {
  if (isSqlite(executor) || parent.type !== 'CONTAINER') return
  await query(executor, `SELECT id FROM dids WHERE id ${oneOf(executor, 'ids')} ORDER BY id FOR NO KEY UPDATE`, {
    ids: encodeRows(ids),
  })
}

/** For the beginning of adding a rule on a DID: what is just being attached or detached below it is waited for. */
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
  await addToTotals(executor, parentId, ids, 1)
  return ids
}

/** Detaches, and keeps the dataset's totals. The keys that were attached. */
export async function deleteContents(
  executor: Executor,
  parentId: number,
  childIds: readonly number[],
): Promise<number[]> {
  const deleted = await query<{ child_id: number }>(
    executor,
    `DELETE FROM contents WHERE parent_id = :parentId AND child_id ${oneOf(executor, 'children')} RETURNING child_id`,
    { parentId, children: encodeRows(childIds) },
  )
  const ids = deleted.map(row => row.child_id)
  await addToTotals(executor, parentId, ids, -1)
  return ids
}

/** What a dataset says of itself. Containers are added up when they are shown. */
async function addToTotals(
  executor: Executor,
  parentId: number,
  childIds: readonly number[],
  sign: 1 | -1,
): Promise<void> {
  if (childIds.length === 0) return
  await query(
    executor,
    `UPDATE dids SET files = dids.files + :sign * changed.files, bytes = dids.bytes + :sign * changed.bytes
       FROM (SELECT count(*) AS files, sum(bytes) AS bytes FROM dids
              WHERE type = 'FILE' AND id ${oneOf(executor, 'ids')}) AS changed
      WHERE dids.id = :parentId AND dids.type = 'DATASET' AND changed.files > 0`,
    { parentId, ids: encodeRows(childIds), sign },
  )
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

/** Those of these DIDs that are at or below a DID, whichever way. */
export async function keptBelow(executor: Executor, didId: number, ids: readonly number[]): Promise<Set<number>> {
  const rows = await query<{ start_id: number }>(
    executor,
    `WITH RECURSIVE above(start_id, id) AS (
       SELECT id, id FROM dids WHERE id ${oneOf(executor, 'ids')}
       UNION SELECT above.start_id, contents.parent_id FROM above JOIN contents ON contents.child_id = above.id
     ) SELECT start_id FROM above WHERE id = :didId`,
    { didId, ids: encodeRows(ids) },
  )
  return new Set(rows.map(row => row.start_id))
}

/** The datasets at or below a DID, after the given key, in order of their keys. */
export async function datasetsBelow(
  executor: Executor,
  didId: number,
  after: number,
  limit: number,
): Promise<{ id: number; bytes: number; files: number }[]> {
  return query(
    executor,
    `WITH RECURSIVE below(id) AS (
       SELECT CAST(:didId AS bigint) AS id UNION SELECT contents.child_id FROM contents
         JOIN below ON contents.parent_id = below.id JOIN dids ON dids.id = below.id AND dids.type = 'CONTAINER'
     ) SELECT dids.id, dids.bytes, dids.files FROM below JOIN dids ON dids.id = below.id
        WHERE dids.type = 'DATASET' AND dids.id > :after ORDER BY dids.id LIMIT :limit`,
    { didId, after, limit },
  )
}

export interface SizedFile {
  readonly id: number
  readonly bytes: number
}

/** A file itself, or the files of a dataset after the given key, in order of their keys. */
export async function filesOf(
  executor: Executor,
  did: Pick<DidRow, 'id' | 'type'>,
  after: number,
  limit: number,
): Promise<SizedFile[]> {
  if (did.type === 'FILE') {
    return query(executor, 'SELECT id, bytes FROM dids WHERE id = :didId AND id > :after', { didId: did.id, after })
  }
  return query(
    executor,
    `SELECT dids.id, dids.bytes FROM contents JOIN dids ON dids.id = contents.child_id
      WHERE contents.parent_id = :didId AND contents.child_id > :after ORDER BY contents.child_id LIMIT :limit`,
    { didId: did.id, after, limit },
  )
}

/** What a collection holds itself, after the given key, in order of their keys. */
export async function contentsOf(executor: Executor, didId: number, after: number, limit: number): Promise<number[]> {
  const rows = await query<{ child_id: number }>(
    executor,
    'SELECT child_id FROM contents WHERE parent_id = :didId AND child_id > :after ORDER BY child_id LIMIT :limit',
    { didId, after, limit },
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
