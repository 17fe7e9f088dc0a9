import { WaybillError } from '../../shared/domain/errors.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, keyset, lockRows, query, queryOne, recordset, stateList } from '../database/sql.ts'

/** A DELETE may be sent for this long, and is surely over a margin later: until then nothing new begins at that path. Seconds. */
export const PERMIT_SECONDS = 30
const PERMIT_MARGIN_SECONDS = 30

/**
 * Of a path where somebody else's DELETE may still be on its way: no answer to a DELETE frees it, only time does. A dead
 * worker's late DELETE has destroyed a later attempt's good file (facts/transfers.md, DIRAC #8465).
 */
const NOBODYS_FENCE = -1

/**
 * Permission to remove what a failed attempt left: only for the current holder of the transfer, never where a replica is
 * AVAILABLE, and only if this attempt or an earlier one on this replica may have left it: a file of somebody else's stays
 * (docs/decisions/0008). Throws 409 PERMIT_REFUSED. Answers the directory that the clean-up token must cover.
 */
export async function grantPermit(
  executor: Executor,
  held: { sessionId: number; transfer: number; fence: number; written: boolean },
  now: number,
): Promise<{ rseId: number; voId: number; top: string }> {
  // Held by nobody else until the permit can be seen: a claim after this session's end must find it.
  await lockRows(executor, 'transfers', [held.transfer])
  const permit = await queryOne<{ directory_id: number }>(
    executor,
    `INSERT INTO permits (directory_id, name, transfer_id, fence, until)
     SELECT replicas.directory_id, replicas.name, transfers.id, transfers.fence, :until
       FROM transfers JOIN replicas ON replicas.id = transfers.replica_id
      WHERE transfers.id = :transfer AND transfers.fence = :fence AND transfers.session_id = :sessionId
        AND transfers.state IN (${stateList(ACTIVE_STATES)}) AND replicas.state <> 'AVAILABLE'
        AND (:written = 1 OR EXISTS (SELECT 1 FROM transfers AS earlier
              WHERE earlier.replica_id = replicas.id AND earlier.written_fence IS NOT NULL))
     ON CONFLICT (directory_id, name) DO UPDATE
       SET until = CASE WHEN permits.until > excluded.until THEN permits.until ELSE excluded.until END, transfer_id = excluded.transfer_id,
           fence = CASE WHEN permits.until > :now AND permits.fence <> excluded.fence THEN ${NOBODYS_FENCE} ELSE excluded.fence END
     RETURNING directory_id`,
    { ...held, written: held.written ? 1 : 0, now, until: now + (PERMIT_SECONDS + PERMIT_MARGIN_SECONDS) * 1000 },
  )
  if (permit === undefined) {
    const message = `transfer ${held.transfer} is not held under this session and fence, its file is verified, or what lies there is none of its own: nothing may be removed`
    throw new WaybillError('PERMIT_REFUSED', message, { status: 409 })
  }
  if (held.written) {
    const { transfer, fence } = held
    await query(executor, 'UPDATE transfers SET written_fence = :fence WHERE id = :transfer', { transfer, fence })
  }
  const place = await queryOne<{ rse_id: number; vo_id: number; top: string }>(
    executor,
    `SELECT directories.rse_id, transfers.vo_id, tops.path AS top
       FROM directories JOIN directories AS tops ON tops.id = coalesce(directories.top_id, directories.id)
       JOIN transfers ON transfers.id = :transfer WHERE directories.id = :directoryId`,
    { directoryId: permit.directory_id, transfer: held.transfer },
  )
  if (place === undefined) throw new Error(`directory ${permit.directory_id} is gone`)
  return { rseId: place.rse_id, voId: place.vo_id, top: place.top }
}

/**
 * Keeps the paths of these replicas free of workers: a person has a token with which they may be removed, and nothing says
 * when it is used. AVAILABLE ones are left alone.
 */
export async function reservePaths(executor: Executor, replicaIds: readonly number[], until: number): Promise<void> {
  // A claim that has just taken one of them is waited for; one that comes later finds the permits.
  const open = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state NOT IN ('DONE', 'FAILED', 'CANCELLED') AND replica_id IN ${keyset(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  await lockRows(
    executor,
    'transfers',
    open.map(row => row.id),
  )
  await query(
    executor,
    `INSERT INTO permits (directory_id, name, transfer_id, fence, until)
     SELECT directory_id, name, 0, ${NOBODYS_FENCE}, :until FROM replicas
      WHERE state <> 'AVAILABLE' AND id IN ${keyset(executor, 'replicas')}
     ON CONFLICT (directory_id, name) DO UPDATE SET transfer_id = 0, fence = ${NOBODYS_FENCE},
       until = CASE WHEN permits.until > excluded.until THEN permits.until ELSE excluded.until END`,
    { replicas: encodeRows(replicaIds), until },
  )
}

/** The DELETEs under these permits were answered: the paths are free at once, unless an older permit is still out. */
export async function dropPermits(
  executor: Executor,
  held: readonly { transfer: number; fence: number }[],
): Promise<void> {
  if (held.length === 0) return
  const set = recordset(executor, 'rows', { transfer: 'bigint', fence: 'bigint' })
  await query(
    executor,
    `DELETE FROM permits WHERE (transfer_id, fence) IN (SELECT given.transfer, given.fence FROM ${set} AS given)`,
    { rows: encodeRows(held.map(({ transfer, fence }) => ({ transfer, fence }))) },
  )
}

/** Whether a DELETE of the path of this replica (an alias of `replicas`) may still arrive. Binds `:now`. */
export function underPermit(alias: string): string {
  return `EXISTS (SELECT 1 FROM permits WHERE permits.directory_id = ${alias}.directory_id AND permits.name = ${alias}.name
    AND permits.until > :now)`
}

export async function prunePermits(executor: Executor, now: number): Promise<void> {
  await query(executor, 'DELETE FROM permits WHERE until < :now', { now })
}
