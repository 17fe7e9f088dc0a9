import { reachBindings, storageWorkWithinReach, type WorkerReach } from '../accounts/reach.ts'
import { type Executor, encodeRows, keyset, oneOf, query, queryOne, skippingLocked } from '../database/sql.ts'
import { holdSession } from '../transfers/session-store.ts'

export interface ImportRow {
  id: number
  vo_id: number
  rse_id: number
  directory_id: number
  path: string
  dataset: string
  account_id: number
  grant_id: number | null
  state: 'QUEUED' | 'LISTING' | 'DONE' | 'FAILED'
  session_id: number | null
  fence: number
  /** The last part of the list that was taken under this fence; 0 before the first. */
  part: number
  files: number
  bytes: number
  error: string | null
}

const COLUMNS = `SELECT imports.*, directories.path, scopes.name || ':' || dids.name AS dataset FROM imports
  JOIN directories ON directories.id = imports.directory_id
  JOIN dids ON dids.id = imports.dataset_id JOIN scopes ON scopes.id = dids.scope_id`

export async function insertImport(
  executor: Executor,
  job: { voId: number; rseId: number; directoryId: number; datasetId: number; accountId: number; grantId: number },
  now: number,
): Promise<number> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO imports (vo_id, rse_id, directory_id, dataset_id, account_id, grant_id, state, fence, part, files, bytes, created_at, updated_at)
     VALUES (:voId, :rseId, :directoryId, :datasetId, :accountId, :grantId, 'QUEUED', 0, 0, 0, 0, :now, :now) RETURNING id`,
    { ...job, now },
  )
  if (row === undefined) throw new Error('the import was not inserted')
  return row.id
}

export async function findImport(executor: Executor, id: number): Promise<ImportRow | undefined> {
  return queryOne<ImportRow>(executor, `${COLUMNS} WHERE imports.id = :id`, { id })
}

const REACHED = { vo: 'vo_id', rse: 'rse_id' }

export async function isImportWaiting(read: Executor, reach: WorkerReach): Promise<boolean> {
  const sql = `SELECT id FROM imports WHERE state = 'QUEUED' ${storageWorkWithinReach(read, reach, REACHED)} LIMIT 1`
  return (await query(read, sql, reachBindings(reach))).length > 0
}

/**
 * Gives waiting imports to a session, but for those of storages that may not be read; it lists them from the start, which
 * registers nothing twice. Throws 409 SESSION_ENDED.
 */
export async function claimImports(
  executor: Executor,
  claimant: WorkerReach & { sessionId: number },
  limit: number,
  now: number,
): Promise<ImportRow[]> {
  const { sessionId } = claimant
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM imports WHERE state = 'QUEUED'
        AND EXISTS (SELECT 1 FROM rses WHERE rses.id = imports.rse_id AND rses.availability_read)
        ${storageWorkWithinReach(executor, claimant, REACHED)}
      ORDER BY id LIMIT :limit ${skippingLocked(executor, 'imports')}`,
    { limit, ...reachBindings(claimant) },
  )
  const rows = await query<{ id: number }>(
    executor,
    `UPDATE imports SET state = 'LISTING', session_id = :sessionId, fence = fence + 1, part = 0, files = 0, bytes = 0, updated_at = :now
      WHERE state = 'QUEUED' AND id ${oneOf(executor, 'free')} RETURNING id`,
    { sessionId, now, free: encodeRows(free.map(row => row.id)) },
  )
  if (rows.length === 0) return []
  await holdSession(executor, sessionId)
  return query<ImportRow>(executor, `${COLUMNS} WHERE imports.id ${oneOf(executor, 'ids')}`, {
    ids: encodeRows(rows.map(row => row.id)),
  })
}

/** A session is over, or has lost sight of some of its imports: they begin anew. */
export async function releaseImports(
  executor: Executor,
  sessionId: number,
  now: number,
  stillHeld: readonly number[] = [],
): Promise<void> {
  await query(
    executor,
    `UPDATE imports SET state = 'QUEUED', session_id = NULL, updated_at = :now
      WHERE session_id = :sessionId AND state = 'LISTING' AND id NOT IN ${keyset(executor, 'held')}`,
    { sessionId, now, held: encodeRows(stillHeld) },
  )
}

/** Who lists an import, and which part of the list this is. */
export interface HeldImport {
  id: number
  sessionId: number
  fence: number
  part: number
}

/** Counts what was handed in, and ends the import; false when the session does not hold it any more, or this part is not next. */
export async function advanceImport(
  executor: Executor,
  held: HeldImport,
  step: { files: number; bytes: number; state: 'LISTING' | 'DONE' | 'FAILED'; error: string | null },
  now: number,
): Promise<boolean> {
  const rows = await query(
    executor,
    `UPDATE imports SET part = :part, files = files + :files, bytes = bytes + :bytes, state = :state, error = coalesce(:error, error),
        updated_at = :now
      WHERE id = :id AND session_id = :sessionId AND fence = :fence AND part + 1 = :part AND state = 'LISTING' RETURNING id`,
    { ...held, ...step, now },
  )
  return rows.length > 0
}
