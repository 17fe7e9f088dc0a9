import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ENDED_STATES, TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, recordset, stateList } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { addToTask } from '../tasks/store.ts'

/** How long a file is kept on disk when it was brought from tape, as it is asked for (ISO 8601), and relied on. */
export const DISK_LIFETIME = 'PT24H'
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
  const groups = new Map<string, { vo_id: number; rse_id: number; replicas: Set<number> }>()
  for (const { vo_id, source_rse_id, source_replica_id } of rows) {
    const key = `${vo_id} ${source_rse_id}`
    const group = groups.get(key) ?? { vo_id, rse_id: source_rse_id, replicas: new Set<number>() }
    groups.set(key, group)
    group.replicas.add(source_replica_id)
  }
  for (const { vo_id, rse_id, replicas } of groups.values()) {
    await addToTask(executor, { kind: 'recall', vo_id, rse_id }, [...replicas], now)
  }
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

const UNASKED_PER_ROUND = 1_000

/** Transfers whose recall ended without them, as one whose time on disk was over: they are planned anew. */
export function stagingKeeper(context: Context): Service {
  return periodic({
    ...context,
    name: 'look after recalls',
    interval: 30_000,
    async round() {
      const { db, clock } = context
      const rows = await query<{ id: number }>(
        db.read,
        `SELECT id FROM transfers WHERE state IN (${STAGING}) AND NOT EXISTS
           (SELECT 1 FROM task_items WHERE task_items.replica_id = transfers.source_replica_id) LIMIT ${UNASKED_PER_ROUND}`,
      )
      if (rows.length === 0) return false
      const ids = rows.map(row => row.id)
      await db.write(async executor => {
        await lockRows(executor, 'transfers', ids)
        await query(
          executor,
          `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
            WHERE state IN (${STAGING}) AND id ${oneOf(executor, 'ids')} AND NOT EXISTS
              (SELECT 1 FROM task_items WHERE task_items.replica_id = transfers.source_replica_id)`,
          { now: clock.now(), ids: encodeRows(ids) },
        )
      })
      return rows.length === UNASKED_PER_ROUND
    },
  })
}
