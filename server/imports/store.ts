import { IMPORT_MACHINE, type ImportState } from '../../shared/domain/import-state.ts'
import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { reachBindings, storageWorkWithinReach, type WorkerReach, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import {
  type Executor,
  encodeRows,
  keyset,
  oneOf,
  query,
  queryOne,
  recordset,
  skippingLocked,
  stateList,
} from '../database/sql.ts'
import { holdSession } from '../transfers/session-store.ts'
import { addDirectories } from './frontier-store.ts'

export interface ImportRow {
  id: number
  vo_id: number
  rse_id: number
  directory_id: number
  path: string
  /** `scope:name` of the dataset, and its parts. */
  dataset: string
  scope_id: number
  dataset_name: string
  account_id: number
  account: string
  grant_id: number | null
  checksum: 'storage' | 'none'
  state: ImportState
  session_id: number | null
  fence: number
  /** By its last worker: what that tells it has not seen before. */
  claimed_at: number | null
  /** The last part of the list that was taken under this fence; 0 before the first. */
  part: number
  /** Taken over so far, and how many of them were there already. */
  files: number
  bytes: number
  present: number
  left_out: number
  /** Listed to their end, and known to be left. */
  directories: number
  directories_left: number
  /** In a row, since the last part that was taken. */
  failures: number
  not_before: number
  /** What keeps it, or has ended it. */
  error: string | null
  created_at: number
  updated_at: number
}

const COLUMNS = `SELECT imports.*, directories.path, scopes.name || ':' || dids.name AS dataset, dids.scope_id,
  dids.name AS dataset_name, accounts.name AS account FROM imports
  JOIN directories ON directories.id = imports.directory_id JOIN accounts ON accounts.id = imports.account_id
  JOIN dids ON dids.id = imports.dataset_id JOIN scopes ON scopes.id = dids.scope_id`

export interface NewImport {
  readonly voId: number
  readonly rseId: number
  readonly directoryId: number
  readonly datasetId: number
  readonly accountId: number
  readonly grantId: number
  readonly checksum: ImportRow['checksum']
}

export async function insertImport(executor: Executor, job: NewImport, now: number): Promise<number> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO imports (vo_id, rse_id, directory_id, dataset_id, account_id, grant_id, checksum, state, fence, part, files, bytes,
                          directories_left, created_at, updated_at)
     VALUES (:voId, :rseId, :directoryId, :datasetId, :accountId, :grantId, :checksum, 'QUEUED', 0, 0, 0, 0, 1, :now, :now) RETURNING id`,
    { ...job, now },
  )
  if (row === undefined) throw new Error('the import was not inserted')
  await addDirectories(executor, row.id, [''])
  return row.id
}

export async function findImport(executor: Executor, id: number): Promise<ImportRow | undefined> {
  return queryOne<ImportRow>(executor, `${COLUMNS} WHERE imports.id = :id`, { id })
}

export async function listImports(
  read: Executor,
  sight: Sight,
  filter: { rseId: number; state: string; after: number; limit: number },
): Promise<ImportRow[]> {
  return query<ImportRow>(
    read,
    `${COLUMNS} WHERE imports.id > :after AND (:rseId = 0 OR imports.rse_id = :rseId) AND (:state = '' OR imports.state = :state)
        ${withinReach(read, sight, { vo: 'imports.vo_id' })}
      ORDER BY imports.id LIMIT :limit`,
    { ...filter, ...reachBindings(sight) },
  )
}

const REACHED = { vo: 'vo_id', rse: 'rse_id' }
const DUE = `state = 'QUEUED' AND not_before <= :now`

export async function isImportDue(read: Executor, reach: WorkerReach, now: number): Promise<boolean> {
  const sql = `SELECT id FROM imports WHERE ${DUE} ${storageWorkWithinReach(read, reach, REACHED)} LIMIT 1`
  return (await query(read, sql, { now, ...reachBindings(reach) })).length > 0
}

/** Imports that one worker lists, at most: each has some requests under way, and a directory's list in memory. */
export const MOST_IMPORTS = 4

/**
 * Gives due imports to a session, but for those of storages that may not be read, `limit` at most and no more than it can list.
 * Throws 409 SESSION_ENDED.
 */
export async function claimImports(
  executor: Executor,
  claimant: WorkerReach & { sessionId: number },
  limit: number,
  now: number,
): Promise<ImportRow[]> {
  const { sessionId } = claimant
  const held = await queryOne<{ count: number }>(
    executor,
    `SELECT count(*) AS count FROM imports WHERE session_id = :sessionId AND state = 'LISTING'`,
    { sessionId },
  )
  const most = Math.max(0, Math.min(limit, MOST_IMPORTS - (held?.count ?? 0)))
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM imports WHERE ${DUE}
        AND EXISTS (SELECT 1 FROM rses WHERE rses.id = imports.rse_id AND rses.availability_read)
        ${storageWorkWithinReach(executor, claimant, REACHED)}
      ORDER BY id LIMIT :most ${skippingLocked(executor, 'imports')}`,
    { most, now, ...reachBindings(claimant) },
  )
  const rows = await query<{ id: number }>(
    executor,
    `UPDATE imports SET state = 'LISTING', session_id = :sessionId, fence = fence + 1, part = 0, claimed_at = :now, updated_at = :now
      WHERE ${DUE} AND id ${oneOf(executor, 'free')} RETURNING id`,
    { sessionId, now, free: encodeRows(free.map(row => row.id)) },
  )
  if (rows.length === 0) return []
  await holdSession(executor, sessionId)
  return query<ImportRow>(executor, `${COLUMNS} WHERE imports.id ${oneOf(executor, 'ids')}`, {
    ids: encodeRows(rows.map(row => row.id)),
  })
}

/** A session is over, or has lost sight of some of its imports: others go on with them. */
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
  readonly id: number
  readonly sessionId: number
  readonly fence: number
  readonly part: number
}

/** Takes the next part, once; undefined when the session does not hold the import any more, or this part is not next. */
export async function takePart(
  executor: Executor,
  held: HeldImport,
  now: number,
): Promise<Pick<ImportRow, 'failures'> | undefined> {
  return queryOne(
    executor,
    `UPDATE imports SET part = :part, updated_at = :now
      WHERE id = :id AND session_id = :sessionId AND fence = :fence AND part + 1 = :part AND state = 'LISTING' RETURNING failures`,
    { ...held, now },
  )
}

export interface Taken {
  readonly files: number
  readonly bytes: number
  readonly present: number
  readonly leftOut: number
  /** Directories that are done, and that were found. */
  readonly listed: number
  readonly found: number
}

/** Counts what a part has brought; an import without further directories is done. */
export async function countTaken(executor: Executor, id: number, taken: Taken): Promise<void> {
  await query(
    executor,
    `UPDATE imports SET files = files + :files, bytes = bytes + :bytes, present = present + :present, left_out = left_out + :leftOut,
        directories = directories + :listed, directories_left = directories_left + :found - :listed, failures = 0, error = NULL,
        state = CASE WHEN directories_left + :found - :listed = 0 THEN 'DONE' ELSE state END,
        session_id = CASE WHEN directories_left + :found - :listed = 0 THEN NULL ELSE session_id END
      WHERE id = :id`,
    { ...taken, id },
  )
}

/** False when it is done. */
export async function cancelImport(executor: Executor, id: number, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    `UPDATE imports SET state = 'CANCELLED', session_id = NULL, updated_at = :now
      WHERE id = :id AND state IN (${stateList(statesAccepting(IMPORT_MACHINE, 'cancel'))}) RETURNING id`,
    { id, now },
  )
  return rows.length > 0
}

/** It goes on where it was, now. False when it is done. */
export async function resumeImport(executor: Executor, id: number, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    `UPDATE imports SET state = CASE state WHEN 'LISTING' THEN state ELSE 'QUEUED' END, not_before = 0, failures = 0, updated_at = :now,
        error = CASE state WHEN 'LISTING' THEN error END
      WHERE id = :id AND state IN (${stateList(statesAccepting(IMPORT_MACHINE, 'resume'))}) RETURNING id`,
    { id, now },
  )
  return rows.length > 0
}

export interface ImportProblem {
  /** Below the imported directory; any characters. */
  readonly path: string
  readonly code: string
  readonly message: string
}

export async function insertImportProblems(
  executor: Executor,
  importId: number,
  problems: readonly ImportProblem[],
): Promise<void> {
  if (problems.length === 0) return
  const set = recordset(executor, 'rows', { path: 'text', code: 'text', message: 'text' })
  const rows = problems.map(({ path, code, message }) => ({ path: JSON.stringify(path), code, message }))
  await query(
    executor,
    `INSERT INTO import_problems (import_id, path, code, message) SELECT :importId, path, code, message FROM ${set} AS given`,
    { importId, rows: encodeRows(rows) },
  )
}

export async function listImportProblems(
  read: Executor,
  filter: { importId: number; after: number; limit: number },
): Promise<(ImportProblem & { id: number })[]> {
  const rows = await query<ImportProblem & { id: number }>(
    read,
    'SELECT id, path, code, message FROM import_problems WHERE import_id = :importId AND id > :after ORDER BY id LIMIT :limit',
    filter,
  )
  return rows.map(row => ({ ...row, path: JSON.parse(row.path) as string }))
}
