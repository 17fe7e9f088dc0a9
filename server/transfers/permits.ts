import { WaybillError } from '../../shared/domain/errors.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, query, queryOne, stateList } from '../database/sql.ts'

/** A DELETE may be sent for this long, and is surely over a margin later: until then nothing new begins at that path. Seconds. */
export const PERMIT_SECONDS = 30
const PERMIT_MARGIN_SECONDS = 30

/**
 * Permission to remove what a failed attempt left: only for the current holder of the transfer, never where a replica is
 * AVAILABLE. Throws 409 PERMIT_REFUSED. Answers the directory that the clean-up token must cover.
 */
export async function grantPermit(
  executor: Executor,
  held: { sessionId: number; transfer: number; fence: number },
  now: number,
): Promise<{ rseId: number; voId: number; top: string }> {
  // The write comes first (database.ts), and its guard is the whole decision.
  const permit = await queryOne<{ directory_id: number }>(
    executor,
    `INSERT INTO permits (directory_id, name, transfer_id, fence, until)
     SELECT replicas.directory_id, replicas.name, transfers.id, transfers.fence, :until
       FROM transfers JOIN replicas ON replicas.id = transfers.replica_id
      WHERE transfers.id = :transfer AND transfers.fence = :fence AND transfers.session_id = :sessionId
        AND transfers.state IN (${stateList(ACTIVE_STATES)}) AND replicas.state <> 'AVAILABLE'
     ON CONFLICT (directory_id, name) DO UPDATE
       SET transfer_id = excluded.transfer_id, fence = excluded.fence, until = excluded.until
     RETURNING directory_id`,
    { ...held, until: now + (PERMIT_SECONDS + PERMIT_MARGIN_SECONDS) * 1000 },
  )
  if (permit === undefined) {
    const message = `transfer ${held.transfer} is not held under this session and fence, or its file is verified: nothing may be removed`
    throw new WaybillError('PERMIT_REFUSED', message, { status: 409 })
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

export async function prunePermits(executor: Executor, now: number): Promise<void> {
  await query(executor, 'DELETE FROM permits WHERE until < :now', { now })
}
