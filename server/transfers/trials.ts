import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, query, stateList } from '../database/sql.ts'

/** What may be claimed where a storage fails, or is on trial (`health.ts`): nothing, then few at a time. All of it binds `now`. */

const ACTIVE = stateList(ACTIVE_STATES)

/**
 * What may be active at a storage on trial: one, and one more for each that succeeded or moves, beside what was claimed before it
 * was held. `of`: which transfers those are.
 */
function onTrial(health: 'link_health' | 'destination_health', of: string): string {
  return `1 + ${health}.successes + (SELECT count(*) FROM transfers WHERE ${of} AND state IN (${ACTIVE})
    AND (state = 'SETTLING' OR bytes_done > 0 OR claimed_at < ${health}.held_until))`
}
const ON_TRIAL = onTrial('link_health', 'transfers.link_id = links.id')
const TO_DESTINATION = `transfers.destination_rse_id = destination_health.rse_id AND transfers.vo_id = destination_health.vo_id`
/** How many more a destination that fails, or has failed, takes of a VO now: a column of `destination_health`. Binds `now`. */
export const DESTINATION_ROOM = `CASE WHEN destination_health.held_until > :now THEN 0
  ELSE ${onTrial('destination_health', TO_DESTINATION)} - (SELECT count(*) FROM transfers
    WHERE ${TO_DESTINATION} AND state IN (${ACTIVE})) END`
/** Whether the destination takes what bundles bring of their VO. */
export function takenBy(destination: string): string {
  return `NOT EXISTS (SELECT 1 FROM destination_health WHERE destination_health.rse_id = ${destination}
    AND destination_health.vo_id = bundles.vo_id AND destination_health.held_until > 0 AND ${DESTINATION_ROOM} <= 0)`
}
/** What may be active on a link as far as it goes itself: the lesser of what an admin has set and what was learnt. A column of `links`. */
export const LINK_LIMIT = `CASE WHEN links.optimize AND links.learnt_active < links.max_active THEN links.learnt_active ELSE links.max_active END`
/** Of the row of `links`, beside its row of `link_health`, if any. Nothing is taken from a source that is held back, and then little until it has shown that it works. */
export const MAX_ACTIVE = `CASE WHEN link_health.held_until > :now THEN 0
  WHEN link_health.held_until > 0 AND (${LINK_LIMIT}) > ${ON_TRIAL} THEN ${ON_TRIAL} ELSE ${LINK_LIMIT} END`

/** By VO: how many more this storage takes, where it fails or is on trial. The storage's row is locked. */
export async function destinationRooms(executor: Executor, rseId: number, now: number): Promise<Map<number, number>> {
  const rows = await query<{ vo_id: number; room: number }>(
    executor,
    `SELECT vo_id, ${DESTINATION_ROOM} AS room FROM destination_health WHERE rse_id = :rseId AND held_until > 0`,
    { rseId, now },
  )
  return new Map(rows.map(({ vo_id, room }) => [vo_id, room]))
}
