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
import { longLived, usable } from '../tokens/grant-store.ts'
import { settleHints } from './bundles.ts'
import { underPermit } from './permits.ts'
import { type LinkLoad, roomOf, type StorageLoad, schedule } from './schedule.ts'
import { holdSession } from './session-store.ts'
import { destinationRooms, MAX_ACTIVE, takenBy } from './trials.ts'

export interface Claimant extends WorkerReach {
  readonly sessionId: number
  /** The first fence of this epoch: a restored backup never gives out an old one again. */
  readonly fenceBase: number
}

export interface ClaimedRow {
  id: number
  fence: number
  state: string
}

const ACTIVE = stateList(ACTIVE_STATES)
const TRANSFERS = {
  vo: 'transfers.vo_id',
  activity: 'transfers.activity',
  ends: ['transfers.source_rse_id', 'transfers.destination_rse_id'],
} as const
const BUNDLES = { vo: 'bundles.vo_id', activity: 'bundles.activity' }
/** Bundles that one claim may draw from: datasets of few files must not cost a claim each. */
const BUNDLES_PER_CLAIM = 20

const NEXT_FENCE = 'CASE WHEN fence < :fenceBase THEN :fenceBase ELSE fence END + 1'

/**
 * Links with work in the order they should be served, from a look without locks: the claim counts again. A link whose work
 * waits for tokens is not among them: it would have the smallest share, and hold up those that can be served.
 */
export async function linksToServe(read: Executor, reach: WorkerReach, now: number): Promise<LinkLoad[]> {
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
  let room = Math.min(limit, roomOf(load, source, destination))
  if (room === 0) return []
  const trials = await destinationRooms(executor, link.destinationId, now)
  const onTrial = Boolean(own.on_trial) || trials.size > 0
  const claimed: ClaimedRow[] = []
  for (const { id, vo_id } of await readyBundles(executor, { ...link, onTrial }, claimant, now)) {
    const most = Math.min(room, trials.get(vo_id) ?? room)
    if (most <= 0) continue
    const rows = await claimInBundle(executor, { id, linkId: link.id, onTrial }, claimant, most, now)
    claimed.push(...rows)
    room -= rows.length
    if (trials.has(vo_id)) trials.set(vo_id, most - rows.length)
    if (room <= 0) break
  }
  if (claimed.length > 0) await holdSession(executor, claimant.sessionId)
  return claimed
}

/**
 * On trial what has not failed yet comes first: a few files that always fail must not be every trial. So far it is looked for,
 * whatever the depth of the queue.
 */
const LOOKED_THROUGH = { bundles: 200, transfers: 1_000 }
const QUEUE_HEAD = `FROM transfers WHERE transfers.bundle_id = ready.id AND transfers.state = 'QUEUED'
  ORDER BY transfers.id LIMIT ${LOOKED_THROUGH.transfers}`
const UNTRIED_FIRST = `CASE WHEN EXISTS (SELECT 1 FROM (SELECT attempts, not_before ${QUEUE_HEAD}) AS head WHERE attempts = 0 AND not_before = 0) THEN 0 ELSE 1 END`

/** In the order of their rank; both grants can be used now, whatever the hint says. */
async function readyBundles(
  executor: Executor,
  { id: linkId, destinationId, onTrial }: LinkLoad & { onTrial: boolean },
  reach: WorkerReach,
  now: number,
): Promise<{ id: number; vo_id: number }[]> {
  const can = (grant: string): string => `${usable(grant)} AND ${longLived(grant)}`
  const rank = (of: string): string => `${of}.priority DESC, ${of}.served_at, ${of}.id`
  const ready = `FROM bundles
       JOIN grants AS source_grant ON source_grant.id = bundles.source_grant_id
       JOIN grants AS destination_grant ON destination_grant.id = bundles.destination_grant_id
      WHERE bundles.link_id = :linkId AND bundles.has_work AND bundles.ready
        AND ${can('source_grant')} AND ${can('destination_grant')} AND ${takenBy(':destinationId')}
        ${copiesWithinReach(executor, reach, BUNDLES)}
      ORDER BY ${rank('bundles')}`
  const sql = onTrial
    ? `SELECT id, vo_id FROM (SELECT bundles.* ${ready} LIMIT ${LOOKED_THROUGH.bundles}) AS ready
        ORDER BY ${UNTRIED_FIRST}, ${rank('ready')} LIMIT ${BUNDLES_PER_CLAIM}`
    : `SELECT bundles.id, bundles.vo_id ${ready} LIMIT ${BUNDLES_PER_CLAIM}`
  return query<{ id: number; vo_id: number }>(executor, sql, { linkId, destinationId, now, ...reachBindings(reach) })
}

async function claimInBundle(
  executor: Executor,
  { id: bundleId, linkId, onTrial }: { id: number; linkId: number; onTrial: boolean },
  claimant: Claimant,
  limit: number,
  now: number,
): Promise<ClaimedRow[]> {
  // The bundle's row is locked before the queue is looked at: who adds work meanwhile sets the hint after us.
  await query(executor, 'UPDATE bundles SET served_at = :now WHERE id = :bundleId', { now, bundleId })
  const head = `AND transfers.id IN (SELECT id FROM transfers WHERE bundle_id = :bundleId AND state = 'QUEUED'
          ORDER BY id LIMIT ${LOOKED_THROUGH.transfers})`
  const free = await query<{ id: number }>(
    executor,
    `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = transfers.replica_id
      WHERE transfers.bundle_id = :bundleId AND transfers.state = 'QUEUED' ${onTrial ? head : ''}
        AND NOT ${underPermit('replicas')} ${copiesWithinReach(executor, claimant, TRANSFERS)}
      ORDER BY ${onTrial ? 'transfers.attempts, transfers.not_before, ' : ''}transfers.id LIMIT :limit ${skippingLocked(executor, 'transfers')}`,
    { now, bundleId, limit, ...reachBindings(claimant) },
  )
  const taken = `state = 'CLAIMED', bytes_done = 0`
  const rows = await takeFree(executor, claimant, free, `transfers.state = 'QUEUED'`, taken, now)
  if (rows.length < limit) await settleHints(executor, linkId, [bundleId])
  return rows
}

/**
 * Gives transfers to a session that were free when they were locked. Permits are looked at once more: one that was granted
 * between the look and the lock is seen now.
 */
async function takeFree(
  executor: Executor,
  claimant: Claimant,
  free: readonly { id: number }[],
  stillFree: string,
  change: string,
  now: number,
): Promise<ClaimedRow[]> {
  if (free.length === 0) return []
  return query<ClaimedRow>(
    executor,
    `UPDATE transfers SET ${change}, session_id = :sessionId, fence = ${NEXT_FENCE}, claimed_at = :now, updated_at = :now
      WHERE ${stillFree} AND id ${oneOf(executor, 'free')} AND NOT EXISTS
        (SELECT 1 FROM replicas WHERE replicas.id = transfers.replica_id AND ${underPermit('replicas')})
      RETURNING id, fence, state`,
    {
      now,
      sessionId: claimant.sessionId,
      fenceBase: claimant.fenceBase,
      free: encodeRows(free.map(row => row.id)),
    },
  )
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
