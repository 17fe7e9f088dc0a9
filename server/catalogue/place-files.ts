import type { Did } from '../../shared/domain/names.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { replicaPath } from '../storages/paths.ts'
import { ensureDirectories, insertReplicas } from './replica-store.ts'

export interface UnplacedFile extends Did {
  readonly id: number
}

/** Those of these files that have no replica at this storage, in the order of their keys. */
export async function filesWithout(executor: Executor, rseId: number, fileIds: readonly number[]) {
  return query<UnplacedFile>(
    executor,
    `SELECT dids.id, scopes.name AS scope, dids.name FROM dids JOIN scopes ON scopes.id = dids.scope_id
      WHERE dids.id ${oneOf(executor, 'files')}
        AND NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.file_id = dids.id AND replicas.rse_id = :rseId)
      ORDER BY dids.id`,
    { files: encodeRows(fileIds), rseId },
  )
}

/**
 * Replicas to be copied to where the storage's layout puts them: a path is decided once, with the replica's row. A file whose path is
 * another's gets none. Those made; `locks`: of each, inserted by the caller next.
 */
export async function placeFiles(
  executor: Executor,
  rse: Rse,
  files: readonly UnplacedFile[],
  datasetOf: (file: UnplacedFile) => Did | undefined,
  now: number,
  locks = 0,
): Promise<{ id: number; file_id: number }[]> {
  if (files.length === 0) return []
  const paths = files.map(file => replicaPath(rse.layout, file, datasetOf(file)))
  const directories = await ensureDirectories(
    executor,
    rse.id,
    paths.map(path => ({ path: rse.prefix + path.directory, top: rse.prefix + path.top })),
  )
  const replicas = files.map((file, i) => ({
    file_id: file.id,
    directory_id: directories.get(`${rse.prefix}${paths[i]?.directory}`)?.id ?? 0,
    name: paths[i]?.name ?? '',
  }))
  return insertReplicas(executor, rse.id, 'COPYING', replicas, now, { locks })
}
