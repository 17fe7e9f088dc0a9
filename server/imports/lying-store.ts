import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import { type Executor, encodeRows, query, recordset } from '../database/sql.ts'

/** What the catalogue knows of a file at a storage, or of another that has its path. */
export interface Lying {
  position: number
  /** Of the file's own replica; both null: it has none there. */
  own_path: string | null
  state: ReplicaState | null
  /** The other file, as `scope:name`. */
  taken_by: string | null
}

/** By position: those that have a replica at the storage, or whose path is another file's. `file_id` 0: no file that is known. */
export async function whatLies(
  executor: Executor,
  rseId: number,
  files: readonly { readonly position: number; readonly file_id: number; readonly path: string }[],
): Promise<Map<number, Lying>> {
  const set = recordset(executor, 'rows', { position: 'bigint', file_id: 'bigint', directory: 'text', name: 'text' })
  const rows = await query<Lying>(
    executor,
    `SELECT given.position, own_directories.path || '/' || own.name AS own_path, own.state, scopes.name || ':' || dids.name AS taken_by
       FROM ${set} AS given
       LEFT JOIN replicas AS own ON own.file_id = given.file_id AND own.rse_id = :rseId
       LEFT JOIN directories AS own_directories ON own_directories.id = own.directory_id
       LEFT JOIN directories ON directories.rse_id = :rseId AND directories.path = given.directory
       LEFT JOIN replicas AS other ON other.directory_id = directories.id AND other.name = given.name
       LEFT JOIN dids ON dids.id = other.file_id LEFT JOIN scopes ON scopes.id = dids.scope_id
      WHERE own.id IS NOT NULL OR other.id IS NOT NULL`,
    { rseId, rows: encodeRows(files.map(placed)) },
  )
  return new Map(rows.map(row => [row.position, row]))
}

function placed({ position, file_id, path }: { position: number; file_id: number; path: string }) {
  const slash = path.lastIndexOf('/')
  return { position, file_id, directory: path.slice(0, slash), name: path.slice(slash + 1) }
}
