import { MOST_IN_TASK } from '../../shared/contract/routes/worker.ts'
import { reachBindings, storageWorkWithinReach, type WorkerReach } from '../accounts/reach.ts'
import {
  type Executor,
  encodeRows,
  keyset,
  oneOf,
  query,
  queryOne,
  recordset,
  skippingLocked,
} from '../database/sql.ts'
import { holdSession } from '../transfers/session-store.ts'

export interface TaskRow {
  id: number
  kind: 'delete' | 'recall' | 'archive' | 'look'
  vo_id: number
  rse_id: number
  session_id: number | null
  fence: number
  failures: number
  request: string | null
  created_at: number
}

/** One file of a task: where it lies, and how far it is. */
export interface TaskFile {
  replica_id: number
  task_id: number
  state: 'WANTED' | 'ASKED' | 'ONLINE' | 'LATE'
  at: number
  directory_id: number
  directory: string
  top: string
  name: string
  bytes: number
  adler32: string | null
  md5: string | null
}

/**
 * These replicas are to be worked at: in a task that nobody has taken yet, or in a new one. Those that are in a task already are left
 * there. How many are added.
 */
export async function addToTask(
  executor: Executor,
  task: Pick<TaskRow, 'kind' | 'vo_id' | 'rse_id'>,
  replicaIds: readonly number[],
  now: number,
): Promise<number> {
  let added = 0
  const key = { kind: task.kind, vo_id: task.vo_id, rse_id: task.rse_id }
  for (const [replicas, of] of await spread(executor, key, replicaIds, now)) {
    const rows = await query(
      executor,
      `INSERT INTO task_items (replica_id, task_id, state, at)
       SELECT value, :of, 'WANTED', :now FROM ${keyset(executor, 'replicas')} AS given WHERE true ORDER BY value
       ON CONFLICT (replica_id) DO NOTHING RETURNING replica_id`,
      { of, now, replicas: encodeRows(replicas) },
    )
    added += rows.length
  }
  return added
}

/** The same for replicas of several VOs and storages. */
export async function addToTasks(
  executor: Executor,
  kind: TaskRow['kind'],
  rows: readonly { readonly vo_id: number; readonly rse_id: number; readonly replica_id: number }[],
  now: number,
): Promise<void> {
  const groups = new Map(rows.map(({ vo_id, rse_id }) => [`${vo_id} ${rse_id}`, { vo_id, rse_id }]))
  for (const { vo_id, rse_id } of groups.values()) {
    const own = rows.filter(row => row.vo_id === vo_id && row.rse_id === rse_id)
    await addToTask(executor, { kind, vo_id, rse_id }, [...new Set(own.map(row => row.replica_id))], now)
  }
}

/** These files of a task have their turn in others, without waiting for the rest of it. */
export async function moveToAnother(
  executor: Executor,
  { kind, vo_id, rse_id }: Pick<TaskRow, 'kind' | 'vo_id' | 'rse_id'>,
  replicaIds: readonly number[],
  now: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  for (const [replicas, of] of await spread(executor, { kind, vo_id, rse_id }, replicaIds, now)) {
    await query(executor, `UPDATE task_items SET task_id = :of WHERE replica_id ${oneOf(executor, 'replicas')}`, {
      of,
      replicas: encodeRows(replicas),
    })
  }
}

/** Which of them goes into which task: first into one that has room and was not asked for yet. */
async function spread(
  executor: Executor,
  key: Pick<TaskRow, 'kind' | 'vo_id' | 'rse_id'>,
  replicaIds: readonly number[],
  now: number,
): Promise<[number[], number][]> {
  const left = [...replicaIds]
  const parts: [number[], number][] = []
  const [open] = await query<{ id: number }>(
    executor,
    `SELECT id FROM tasks WHERE kind = :kind AND vo_id = :vo_id AND rse_id = :rse_id AND session_id IS NULL AND request IS NULL
        AND failures = 0 AND kind <> 'delete' ORDER BY id DESC LIMIT 1 ${skippingLocked(executor, 'tasks')}`,
    key,
  )
  if (open !== undefined) {
    // Not in the same statement: others may have added to it before the lock was had.
    const [row] = await query<{ items: number }>(
      executor,
      'SELECT count(*) AS items FROM task_items WHERE task_id = :id',
      { id: open.id },
    )
    const room = MOST_IN_TASK - (row?.items ?? 0)
    if (room > 0) parts.push([left.splice(0, room), open.id])
  }
  while (left.length > 0) parts.push([left.splice(0, MOST_IN_TASK), await insertTask(executor, key, now)])
  return parts
}

async function insertTask(
  executor: Executor,
  key: Pick<TaskRow, 'kind' | 'vo_id' | 'rse_id'>,
  now: number,
): Promise<number> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO tasks (kind, vo_id, rse_id, fence, not_before, failures, created_at, updated_at)
     VALUES (:kind, :vo_id, :rse_id, 0, 0, 0, :now, :now) RETURNING id`,
    { ...key, now },
  )
  if (row === undefined) throw new Error('the task was not inserted')
  return row.id
}

/** Files of this kind of task at a storage that are not done yet. */
export async function countItems(read: Executor, kind: TaskRow['kind'], rseId: number): Promise<number> {
  const row = await queryOne<{ count: number }>(
    read,
    `SELECT count(*) AS count FROM tasks JOIN task_items ON task_items.task_id = tasks.id
      WHERE tasks.kind = :kind AND tasks.rse_id = :rseId`,
    { kind, rseId },
  )
  return row?.count ?? 0
}

const COLUMNS = 'id, kind, vo_id, rse_id, session_id, fence, failures, request, created_at'
const DUE = `session_id IS NULL AND not_before <= :now`
const REACHED = { vo: 'vo_id', rse: 'rse_id' }
/** Deletions and looks wait while the storage is closed for them, and so do recalls that were not asked for yet. */
const OPEN = `EXISTS (SELECT 1 FROM rses WHERE rses.id = tasks.rse_id AND CASE tasks.kind
    WHEN 'delete' THEN rses.availability_delete
    WHEN 'recall' THEN tasks.request IS NOT NULL OR rses.availability_read
    WHEN 'look' THEN rses.availability_read
    ELSE true END)`

export async function isTaskDue(read: Executor, reach: WorkerReach, now: number): Promise<boolean> {
  const sql = `SELECT id FROM tasks WHERE ${DUE} AND ${OPEN} ${storageWorkWithinReach(read, reach, REACHED)} LIMIT 1`
  return (await query(read, sql, { now, ...reachBindings(reach) })).length > 0
}

/** Tasks that one worker is at, at most: each has some requests under way, and one at a storage that is away lasts minutes. */
export const MOST_TASKS = 20

/** Gives due tasks to a session, `limit` at most and no more than it can be at. Throws 409 SESSION_ENDED. */
export async function claimTasks(
  executor: Executor,
  claimant: WorkerReach & { readonly sessionId: number },
  limit: number,
  now: number,
): Promise<TaskRow[]> {
  const { sessionId } = claimant
  const [held] = await query<{ count: number }>(
    executor,
    'SELECT count(*) AS count FROM tasks WHERE session_id = :sessionId',
    { sessionId },
  )
  const most = Math.max(0, Math.min(limit, MOST_TASKS - (held?.count ?? 0)))
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM tasks WHERE ${DUE} AND ${OPEN} ${storageWorkWithinReach(executor, claimant, REACHED)}
      ORDER BY not_before, id LIMIT :most ${skippingLocked(executor, 'tasks')}`,
    { now, most, ...reachBindings(claimant) },
  )
  const rows = await query<TaskRow>(
    executor,
    `UPDATE tasks SET session_id = :sessionId, fence = fence + 1, updated_at = :now
      WHERE ${DUE} AND id ${oneOf(executor, 'free')} RETURNING ${COLUMNS}`,
    { sessionId, now, free: encodeRows(free.map(row => row.id)) },
  )
  if (rows.length > 0) await holdSession(executor, sessionId)
  return rows
}

export async function filesOfTasks(executor: Executor, taskIds: readonly number[]): Promise<TaskFile[]> {
  if (taskIds.length === 0) return []
  return query<TaskFile>(
    executor,
    `SELECT task_items.replica_id, task_items.task_id, task_items.state, task_items.at, replicas.directory_id, directories.path AS directory,
            tops.path AS top, replicas.name, dids.bytes, dids.adler32, dids.md5
       FROM task_items JOIN replicas ON replicas.id = task_items.replica_id JOIN dids ON dids.id = replicas.file_id
       JOIN directories ON directories.id = replicas.directory_id
       JOIN directories AS tops ON tops.id = coalesce(directories.top_id, directories.id)
      WHERE task_items.task_id ${oneOf(executor, 'tasks')} ORDER BY task_items.task_id, task_items.error IS NOT NULL, task_items.replica_id`,
    { tasks: encodeRows(taskIds) },
  )
}

/** The task, locked, if this session is at it under this fence. */
export async function holdTask(
  executor: Executor,
  held: { readonly id: number; readonly sessionId: number; readonly fence: number },
): Promise<TaskRow | undefined> {
  return queryOne<TaskRow>(
    executor,
    `UPDATE tasks SET updated_at = updated_at WHERE id = :id AND session_id = :sessionId AND fence = :fence
     RETURNING ${COLUMNS}`,
    { id: held.id, sessionId: held.sessionId, fence: held.fence },
  )
}

/** These files of a task are done: they are none of it any more. */
export async function removeItems(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  await query(executor, `DELETE FROM task_items WHERE replica_id ${oneOf(executor, 'replicas')}`, {
    replicas: encodeRows(replicaIds),
  })
}

export async function noteItemErrors(
  executor: Executor,
  errors: readonly { readonly replica_id: number; readonly error: string }[],
): Promise<void> {
  if (errors.length === 0) return
  await query(
    executor,
    `UPDATE task_items SET error = given.error
       FROM ${recordset(executor, 'rows', { replica_id: 'bigint', error: 'text' })} AS given
      WHERE task_items.replica_id = given.replica_id`,
    { rows: encodeRows(errors) },
  )
}

export interface Turn {
  readonly notBefore: number
  readonly failures: number
  readonly error: string | null
}

/** A task goes on at `notBefore`, whoever takes it then; one without files is over. */
export async function endTurn(executor: Executor, taskId: number, next: Turn, now: number): Promise<void> {
  const gone = await query(
    executor,
    `DELETE FROM tasks WHERE id = :taskId AND NOT EXISTS (SELECT 1 FROM task_items WHERE task_id = :taskId) RETURNING id`,
    { taskId },
  )
  if (gone.length > 0) return
  await query(
    executor,
    `UPDATE tasks SET session_id = NULL, not_before = :notBefore, failures = :failures, error = :error, updated_at = :now
      WHERE id = :taskId`,
    { taskId, now, notBefore: next.notBefore, failures: next.failures, error: next.error },
  )
}

/** A session is over, or has lost sight of some of its tasks: others go on with them. */
export async function releaseTasks(
  executor: Executor,
  sessionId: number,
  now: number,
  stillHeld: readonly number[] = [],
): Promise<void> {
  await query(
    executor,
    `UPDATE tasks SET session_id = NULL, updated_at = :now
      WHERE session_id = :sessionId AND id NOT IN ${keyset(executor, 'held')}`,
    { sessionId, now, held: encodeRows(stillHeld) },
  )
}

/** Whether the session is at a task of this kind at a storage: only then is the token for it given out. */
export async function isAtTask(
  read: Executor,
  sessionId: number,
  kind: TaskRow['kind'],
  rseId: number,
): Promise<boolean> {
  const sql = 'SELECT id FROM tasks WHERE session_id = :sessionId AND kind = :kind AND rse_id = :rseId LIMIT 1'
  return (await query(read, sql, { sessionId, kind, rseId })).length > 0
}

export async function moveItems(
  executor: Executor,
  replicaIds: readonly number[],
  state: TaskFile['state'],
  now: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE task_items SET state = :state, at = :now, error = NULL WHERE replica_id ${oneOf(executor, 'replicas')}`,
    { state, now, replicas: encodeRows(replicaIds) },
  )
}

/** What the storage calls a recall; null: it does not know it any more. */
export async function setRequest(executor: Executor, taskId: number, request: string | null): Promise<void> {
  await query(executor, 'UPDATE tasks SET request = :request WHERE id = :taskId', { taskId, request })
}

/** As permits know it: no transfer has a negative number. */
export function holderOf({ id, fence }: Pick<TaskRow, 'id' | 'fence'>): { transfer: number; fence: number } {
  return { transfer: -id, fence }
}
