import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ENDED_STATES, TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, queryOne, recordset, stateList } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { addToTasks } from '../tasks/store.ts'

/** How long a file that was brought from tape is relied on to be on disk: it is asked for a day (worker/tape.ts). */
const RELIED_ON_MS = 20 * 3_600_000

/** Whether the source `source` of an RSE `rses` has to be brought from tape first. Binds `now`. */
export const NEARLINE = `(rses.tape AND NOT EXISTS (SELECT 1 FROM task_items JOIN tasks ON tasks.id = task_items.task_id AND tasks.kind = 'recall'
  WHERE task_items.replica_id = source.id AND task_items.state = 'ONLINE' AND task_items.at + ${RELIED_ON_MS} > :now))`

/** Whether what was brought from tape then may be gone from disk again. */
export function isOver(onlineSince: number, now: number): boolean {
  return now - onlineSince > RELIED_ON_MS
}

export interface Staged {
  readonly transfer_id: number
  readonly source_replica_id: number
  readonly source_rse_id: number
  readonly link_id: number
  readonly vo_id: number
}

const STAGEABLE = stateList(statesAccepting(TRANSFER_MACHINE, 'stage'))
const STAGING = stateList(statesAccepting(TRANSFER_MACHINE, 'online'))

/** These transfers wait until their sources are brought from tape: the storages are asked in bulk. Their rows are locked. */
export async function stageTransfers(executor: Executor, rows: readonly Staged[], now: number): Promise<void> {
  if (rows.length === 0) return
  const columns = {
    transfer_id: 'bigint',
    source_replica_id: 'bigint',
    source_rse_id: 'bigint',
    link_id: 'bigint',
  } as const
  await query(
    executor,
    `UPDATE transfers SET state = 'STAGING', reason = 'STAGING', source_replica_id = given.source_replica_id,
            source_rse_id = given.source_rse_id, link_id = given.link_id, bundle_id = NULL, updated_at = :now
       FROM ${recordset(executor, 'rows', columns)} AS given
      WHERE transfers.id = given.transfer_id AND transfers.state IN (${STAGEABLE})`,
    { now, rows: encodeRows(rows) },
  )
  const sources = rows.map(row => ({ vo_id: row.vo_id, rse_id: row.source_rse_id, replica_id: row.source_replica_id }))
  await addToTasks(executor, 'recall', sources, now)
}

/** Their sources are on disk now: they find their place in the queue when they are planned next. */
export async function bringOnline(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
      WHERE state IN (${STAGING}) AND source_replica_id ${oneOf(executor, 'replicas')}`,
    { now, replicas: encodeRows(replicaIds) },
  )
}

/** What is queued for these sources waits again: they are not on disk any more. */
export async function sendBack(executor: Executor, replicaIds: readonly number[], now: number): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
      WHERE state IN (${stateList(statesAccepting(TRANSFER_MACHINE, 'starve'))}) AND source_replica_id ${oneOf(executor, 'replicas')}
        AND replica_id IN (SELECT own.id FROM replicas AS source JOIN replicas AS own ON own.file_id = source.file_id
          WHERE source.id ${oneOf(executor, 'replicas')})`,
    { now, replicas: encodeRows(replicaIds) },
  )
}

/** Those of these replicas from which a transfer still waits to be copied. */
export async function neededSources(executor: Executor, replicaIds: readonly number[]): Promise<Set<number>> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT DISTINCT source.id FROM replicas AS source JOIN replicas AS own ON own.file_id = source.file_id
       JOIN transfers ON transfers.replica_id = own.id AND transfers.source_replica_id = source.id
        AND transfers.state NOT IN (${stateList(ENDED_STATES)})
      WHERE source.id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  return new Set(rows.map(row => row.id))
}

export interface Staging {
  /** Files that a storage may be asked back from tape at a time, and how many it is asked for now. */
  readonly most: number
  readonly asked: number
}

/** At the storage of a task, by others. The storage's row is locked. */
export async function stagingOf(
  executor: Executor,
  { id, rse_id: rseId }: { readonly id: number; readonly rse_id: number },
): Promise<Staging> {
  await lockRows(executor, 'rses', [rseId])
  const row = await queryOne<Staging>(
    executor,
    `SELECT max_staging AS most, (SELECT count(*) FROM tasks JOIN task_items ON task_items.task_id = tasks.id AND task_items.state = 'ASKED'
       WHERE tasks.kind = 'recall' AND tasks.rse_id = rses.id AND tasks.id <> :id) AS asked FROM rses WHERE id = :rseId`,
    { rseId, id },
  )
  return row ?? { most: 0, asked: 0 }
}

const PER_ROUND = 1_000
/** Of a transfer in STAGING: nobody asks for its source, or its source may not be read now. */
const FORSAKEN = `(NOT EXISTS (SELECT 1 FROM task_items JOIN tasks ON tasks.id = task_items.task_id AND tasks.kind = 'recall'
    WHERE task_items.replica_id = transfers.source_replica_id)
  OR NOT EXISTS (SELECT 1 FROM rses WHERE rses.id = transfers.source_rse_id AND rses.availability_read))`
const UNASKED = `NOT EXISTS (SELECT 1 FROM task_items JOIN tasks ON tasks.id = task_items.task_id AND tasks.kind = 'archive'
  WHERE task_items.replica_id = transfers.replica_id)`

/**
 * Transfers whose recall ended without them, as one whose time on disk was over, are planned anew; copies of which nobody asks
 * whether they are on tape are asked for.
 */
export function stagingKeeper(context: Context): Service {
  return periodic({
    ...context,
    name: 'look after tapes',
    interval: 30_000,
    async round() {
      const staging = await planAnew(context)
      const archiving = await askForArchived(context)
      return staging === PER_ROUND || archiving === PER_ROUND
    },
  })
}

async function planAnew({ db, clock }: Context): Promise<number> {
  const rows = await query<{ id: number }>(
    db.read,
    `SELECT id FROM transfers WHERE state IN (${STAGING}) AND ${FORSAKEN} LIMIT ${PER_ROUND}`,
  )
  if (rows.length === 0) return 0
  const ids = rows.map(row => row.id)
  await db.write(async executor => {
    await lockRows(executor, 'transfers', ids)
    await query(
      executor,
      `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
        WHERE state IN (${STAGING}) AND id ${oneOf(executor, 'ids')} AND ${FORSAKEN}`,
      { now: clock.now(), ids: encodeRows(ids) },
    )
  })
  return rows.length
}

async function askForArchived({ db, clock }: Context): Promise<number> {
  const rows = await query<{ replica_id: number; vo_id: number; rse_id: number }>(
    db.read,
    `SELECT replica_id, vo_id, destination_rse_id AS rse_id FROM transfers
      WHERE state = 'ARCHIVING' AND ${UNASKED} ORDER BY vo_id, rse_id LIMIT ${PER_ROUND}`,
  )
  if (rows.length > 0) await db.write(executor => addToTasks(executor, 'archive', rows, clock.now()))
  return rows.length
}
