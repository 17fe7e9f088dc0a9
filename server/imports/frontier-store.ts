import { type Executor, encodeRows, keyset, oneOf, query } from '../database/sql.ts'

/** A directory that is still to be listed. */
export interface FrontierDirectory {
  id: number
  /** Below the imported directory; the empty one is that itself. */
  path: string
  /** The last name in it that was taken; null: it was not begun. */
  doneUntil: string | null
}

/** Given to a worker at a time; it is given the next ones with the answer to each part. */
const DIRECTORIES_AHEAD = 100

/** The one that was begun, then the deepest, so that there are never more than lie beside the way down. */
export async function nextDirectories(executor: Executor, importId: number): Promise<FrontierDirectory[]> {
  const rows = await query<{ id: number; path: string; done_until: string | null }>(
    executor,
    `SELECT id, path, done_until FROM import_directories WHERE import_id = :importId
      ORDER BY (done_until IS NULL), id DESC LIMIT :limit`,
    { importId, limit: DIRECTORIES_AHEAD },
  )
  return rows.map(({ id, path, done_until }) => ({
    id,
    path,
    doneUntil: done_until === null ? null : (JSON.parse(done_until) as string),
  }))
}

/** Directories to be listed; how many of them are new. */
export async function addDirectories(executor: Executor, importId: number, paths: readonly string[]): Promise<number> {
  if (paths.length === 0) return 0
  const rows = await query(
    executor,
    `INSERT INTO import_directories (import_id, path) SELECT :importId, value FROM ${keyset(executor, 'paths', 'text')} AS given
      WHERE true ON CONFLICT (import_id, path) DO NOTHING RETURNING id`,
    { importId, paths: encodeRows(paths) },
  )
  return rows.length
}

/** In this one all names up to this are taken. */
export async function beginDirectory(
  executor: Executor,
  importId: number,
  begun: { readonly directory: number; readonly doneUntil: string },
): Promise<void> {
  await query(
    executor,
    'UPDATE import_directories SET done_until = :doneUntil WHERE id = :directory AND import_id = :importId',
    { directory: begun.directory, importId, doneUntil: JSON.stringify(begun.doneUntil) },
  )
}

/** These are done; how many they were. */
export async function removeDirectories(executor: Executor, importId: number, ids: readonly number[]): Promise<number> {
  if (ids.length === 0) return 0
  const rows = await query(
    executor,
    `DELETE FROM import_directories WHERE import_id = :importId AND id ${oneOf(executor, 'ids')} RETURNING id`,
    { importId, ids: encodeRows(ids) },
  )
  return rows.length
}
