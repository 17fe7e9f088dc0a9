import { copiesWithinReach, reachBindings, type WorkerReach } from '../accounts/reach.ts'
import { type Executor, encodeRows, oneOf, query, skippingLocked } from '../database/sql.ts'
import { settleHints } from './bundles.ts'
import { underPermit } from './permits.ts'
import { bundlesOnTrial, LOOKED_THROUGH, type ReadyBundle, readyActivities, readyBundles } from './ready-work.ts'
import type { LinkLoad } from './schedule.ts'
import { type ActivityLoad, byPriority, shareOut } from './shares.ts'

/** What a claim takes once it is known how many places are free: activity by activity, bundle by bundle. */

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

/** Where transfers have what a reach is about. */
export const TRANSFERS = {
  vo: 'transfers.vo_id',
  activity: 'transfers.activity',
  ends: ['transfers.source_rse_id', 'transfers.destination_rse_id'],
} as const
/** Bundles that one claim may draw from: datasets of few files must not cost a claim each. */
const BUNDLES_PER_CLAIM = 20

const NEXT_FENCE = 'CASE WHEN fence < :fenceBase THEN :fenceBase ELSE fence END + 1'

/** What a claim may take on a link whose storages are locked. */
export interface Places {
  readonly link: LinkLoad
  readonly claimant: Claimant
  readonly now: number
  /** The source is: all that is claimed is a trial. */
  readonly onTrial: boolean
  /** By VO: how many more the destination takes, where it is on trial. What is claimed is taken off. */
  readonly trials: Map<number, number>
  readonly room: number
}

/**
 * Trials first, which are few: those of the source, or those of VOs for which the destination is on trial. What is left goes to the
 * others as always.
 */
export async function claimPlaces(executor: Executor, places: Places): Promise<ClaimedRow[]> {
  const all = await readyActivities(executor, places.link.id, places.claimant)
  const work = all.filter(({ voId }) => (places.trials.get(voId) ?? 1) > 0)
  const isTrial = ({ voId }: ActivityLoad): boolean => places.onTrial || places.trials.has(voId)
  const trials = await claimOnTrial(executor, places, work.filter(isTrial))
  const room = places.room - trials.length
  const others = work.filter(load => !isTrial(load))
  return [...trials, ...(await claimShares(executor, { ...places, room }, others))]
}

/** What of a claim's places goes to which activity; what one cannot fill goes to the others, then to the next priority. */
async function claimShares(executor: Executor, places: Places, work: readonly ActivityLoad[]): Promise<ClaimedRow[]> {
  const { link, claimant, now } = places
  const at = { linkId: link.id, destinationId: link.destinationId, now }
  const claimed: ClaimedRow[] = []
  let bundles = BUNDLES_PER_CLAIM
  for (const level of byPriority(work)) {
    let open = level
    while (claimed.length < places.room && open.length > 0 && bundles > 0) {
      const shares = shareOut(places.room - claimed.length, open)
      const filled: ActivityLoad[] = []
      for (const [index, share] of shares.entries()) {
        const most = Math.ceil(bundles / (shares.length - index))
        if (most === 0) break
        const ready = await readyBundles(executor, share.load, at, claimant, most)
        const { rows, used } = await claimInBundles(executor, ready, { ...places, room: share.places }, false)
        claimed.push(...rows)
        bundles -= used
        if (rows.length === share.places)
          filled.push({ ...share.load, active: share.load.active + rows.length, servedAt: now })
      }
      const asked = new Set(shares.map(({ load }) => load))
      open = [...open.filter(load => !asked.has(load)), ...filled]
    }
  }
  return claimed
}

async function claimOnTrial(executor: Executor, places: Places, work: readonly ActivityLoad[]): Promise<ClaimedRow[]> {
  const { link, claimant, now } = places
  const at = { linkId: link.id, destinationId: link.destinationId, now }
  const ready = await bundlesOnTrial(executor, work, at, claimant)
  return (await claimInBundles(executor, ready.slice(0, BUNDLES_PER_CLAIM), places, true)).rows
}

/** `used`: how many of the bundles were looked into. */
async function claimInBundles(
  executor: Executor,
  ready: readonly ReadyBundle[],
  { link, claimant, now, trials, room }: Places,
  onTrial: boolean,
): Promise<{ rows: ClaimedRow[]; used: number }> {
  const rows: ClaimedRow[] = []
  let used = 0
  for (const { id, vo_id } of ready) {
    const most = Math.min(room - rows.length, trials.get(vo_id) ?? room)
    if (rows.length === room) break
    if (most <= 0) continue
    const taken = await claimInBundle(executor, { id, linkId: link.id, onTrial }, claimant, most, now)
    used += 1
    rows.push(...taken)
    if (trials.has(vo_id)) trials.set(vo_id, (trials.get(vo_id) ?? 0) - taken.length)
  }
  return { rows, used }
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
export async function takeFree(
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
