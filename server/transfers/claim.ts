import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { copiesWithinReach, reachBindings, type WorkerReach } from '../accounts/reach.ts'
import {
  type Executor,
  encodeRows,
  lockRows,
  oneOf,
  query,
  queryOne,
  skippingLocked,
  stateList,
} from '../database/sql.ts'
import { type Claimant, type ClaimedRow, claimPlaces, TRANSFERS, takeFree } from './claim-places.ts'
import { underPermit } from './permits.ts'
import { type LinkLoad, roomOf, type ScheduledLink, type Sharer, type StorageLoad, schedule } from './schedule.ts'
import { holdSession } from './session-store.ts'
import { destinationRooms, MAX_ACTIVE, takenBy } from './trials.ts'

const ACTIVE = stateList(ACTIVE_STATES)
const BUNDLES = { vo: 'bundles.vo_id', activity: 'bundles.activity' }
/**
 * Links with work in the order they should be served, from a look without locks: the claim counts again. A link whose work
 * waits for tokens is not among them: it would have the smallest share, and hold up those that can be served.
 */
export async function linksToServe(read: Executor, reach: WorkerReach, now: number): Promise<ScheduledLink[]> {
  const rows = await query<{
    id: number
    source_rse_id: number
    destination_rse_id: number
    weight: number
    max_active: number
    served_at: number
    active: number
  }>(
    read,
    `SELECT links.id, links.source_rse_id, links.destination_rse_id, links.weight, ${MAX_ACTIVE} AS max_active, links.served_at,
            (SELECT count(*) FROM transfers WHERE transfers.link_id = links.id AND state IN (${ACTIVE})) AS active
       FROM links LEFT JOIN link_health ON link_health.link_id = links.id WHERE has_work AND distance > 0
        AND EXISTS (SELECT 1 FROM bundles WHERE bundles.link_id = links.id AND bundles.has_work AND bundles.ready
          AND ${takenBy('links.destination_rse_id')}${copiesWithinReach(read, reach, {
            ...BUNDLES,
            ends: ['links.source_rse_id', 'links.destination_rse_id'],
          })})`,
    { now, ...reachBindings(reach) },
  )
  const links = rows.map(row => ({
    id: row.id,
    sourceId: row.source_rse_id,
    destinationId: row.destination_rse_id,
    weight: row.weight,
    maxActive: row.max_active,
    active: row.active,
    servedAt: row.served_at,
  }))
  if (links.length === 0) return []
  return schedule(
    links,
    await storageLoads(read, [...new Set(links.flatMap(link => [link.sourceId, link.destinationId]))]),
    Object.keys(reachBindings(reach)).length === 0
      ? links.filter(({ maxActive }) => maxActive > 0)
      : await linksWithWork(read),
  )
}

/** All that have some, for whoever: they share storages with those that a worker may serve. */
async function linksWithWork(read: Executor): Promise<Sharer[]> {
  return query<Sharer>(
    read,
    `SELECT source_rse_id AS "sourceId", destination_rse_id AS "destinationId", weight FROM links
      WHERE has_work AND distance > 0
        AND EXISTS (SELECT 1 FROM bundles WHERE bundles.link_id = links.id AND bundles.has_work AND bundles.ready)`,
  )
}

/** A storage that may not be read gives nothing out, one that may not be written to takes nothing in. */
export async function storageLoads(executor: Executor, rseIds: readonly number[]): Promise<Map<number, StorageLoad>> {
  const rows = await query<{
    id: number
    max_outbound: number
    max_inbound: number
    outbound: number
    inbound: number
  }>(
    executor,
    `SELECT rses.id, CASE WHEN rses.availability_read THEN rses.max_outbound ELSE 0 END AS max_outbound,
            CASE WHEN rses.availability_write THEN rses.max_inbound ELSE 0 END AS max_inbound,
            (SELECT count(*) FROM transfers WHERE source_rse_id = rses.id AND state IN (${ACTIVE})) AS outbound,
            (SELECT count(*) FROM transfers WHERE destination_rse_id = rses.id AND state IN (${ACTIVE})) AS inbound
       FROM rses WHERE rses.id ${oneOf(executor, 'rses')}`,
    { rses: encodeRows(rseIds) },
  )
  return new Map(
    rows.map(row => [
      row.id,
      { outbound: row.outbound, maxOutbound: row.max_outbound, inbound: row.inbound, maxInbound: row.max_inbound },
    ]),
  )
}

/** A look without locks whether anything on a link is free: what is queued may be under a permit, or reserved for an upload. */
export async function hasFree(read: Executor, linkId: number, reach: WorkerReach, now: number): Promise<boolean> {
  const rows = await query(
    read,
    `SELECT transfers.id FROM bundles
       JOIN transfers ON transfers.bundle_id = bundles.id AND transfers.state = 'QUEUED'
       JOIN replicas ON replicas.id = transfers.replica_id
      WHERE bundles.link_id = :linkId AND bundles.has_work AND bundles.ready
        AND NOT ${underPermit('replicas')} ${copiesWithinReach(read, reach, BUNDLES)} LIMIT 1`,
    { linkId, now, ...reachBindings(reach) },
  )
  return rows.length > 0
}

/**
 * Claims up to `limit` transfers of one link: lock the two storages, count, claim what is free. With counters, or with the
 * count inside the claiming statement, 30 claimers against a limit of 7 reached 39 and 58; lock, then count, held 7.
 * Throws 409 SESSION_ENDED.
 */
export async function claimOnLink(
  executor: Executor,
  link: LinkLoad,
  claimant: Claimant,
  limit: number,
  now: number,
): Promise<ClaimedRow[]> {
  const open = await query(executor, 'UPDATE links SET served_at = :now WHERE id = :id AND distance > 0 RETURNING id', {
    now,
    id: link.id,
  })
  if (open.length === 0) return []
  const ends = [link.sourceId, link.destinationId]
  await lockRows(executor, 'rses', ends)
  const loads = await storageLoads(executor, ends)
  const own = await queryOne<{ active: number; max_active: number; on_trial: number | boolean }>(
    executor,
    `SELECT (SELECT count(*) FROM transfers WHERE transfers.link_id = links.id AND state IN (${ACTIVE})) AS active,
            ${MAX_ACTIVE} AS max_active, coalesce(link_health.held_until, 0) > 0 AS on_trial
       FROM links LEFT JOIN link_health ON link_health.link_id = links.id WHERE links.id = :id`,
    { id: link.id, now },
  )
  const source = loads.get(link.sourceId)
  const destination = loads.get(link.destinationId)
  if (own === undefined || source === undefined || destination === undefined) return []
  const load = { ...link, active: own.active, maxActive: own.max_active }
  const room = Math.min(limit, roomOf(load, source, destination))
  if (room === 0) return []
  const trials = await destinationRooms(executor, link.destinationId, now)
  const places = { link, claimant, now, onTrial: Boolean(own.on_trial), trials, room }
  const claimed = await claimPlaces(executor, places)
  if (claimed.length > 0) await holdSession(executor, claimant.sessionId)
  return claimed
}

export async function isToSettle(read: Executor, reach: WorkerReach, now: number): Promise<boolean> {
  const rows = await query(
    read,
    `SELECT id FROM transfers WHERE state = 'SETTLING' AND session_id IS NULL AND not_before <= :now
        ${copiesWithinReach(read, reach, TRANSFERS)} LIMIT 1`,
    { now, ...reachBindings(reach) },
  )
  return rows.length > 0
}

/**
 * Attempts whose end nobody saw: they hold their slots already, so no limit is asked. Where the bundle has lost its grants
 * they wait until it has some again: nobody could look. Throws 409 SESSION_ENDED.
 */
export async function claimToSettle(
  executor: Executor,
  claimant: Claimant,
  limit: number,
  now: number,
): Promise<ClaimedRow[]> {
  const free = await query<{ id: number }>(
    executor,
    `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = transfers.replica_id
       JOIN bundles ON bundles.id = transfers.bundle_id
      WHERE transfers.state = 'SETTLING' AND session_id IS NULL AND not_before <= :now
        ${copiesWithinReach(executor, claimant, TRANSFERS)}
        AND bundles.source_grant_id IS NOT NULL AND bundles.destination_grant_id IS NOT NULL
        AND NOT ${underPermit('replicas')}
      ORDER BY not_before LIMIT :limit ${skippingLocked(executor, 'transfers')}`,
    { now, limit, ...reachBindings(claimant) },
  )
  const stillFree = `transfers.state = 'SETTLING' AND session_id IS NULL`
  const rows = await takeFree(executor, claimant, free, stillFree, `state = 'SETTLING'`, now)
  if (rows.length > 0) await holdSession(executor, claimant.sessionId)
  return rows
}
