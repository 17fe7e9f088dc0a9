import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { copiesWithinReach, reachBindings, type WorkerReach } from '../accounts/reach.ts'
import { type Binding, type Executor, query, stateList } from '../database/sql.ts'
import { longLived, usable } from '../tokens/grant-store.ts'
import { type ActivityLoad, compareShares } from './shares.ts'
import { takenBy } from './trials.ts'

/** What of a link's work can be claimed: which activities have some, and which bundles of them. */

const ACTIVE = stateList(ACTIVE_STATES)
const BUNDLES = { vo: 'bundles.vo_id', activity: 'bundles.activity' }
/** Activities that a claim looks at, over all priorities: more than anybody has, and a bound for a list that somebody made up. */
const MOST_ACTIVITIES = 250

/** The first bundle of the next activity after that of `here`, in the order of the index `bundles_ready`. */
function following(condition: string, order: string): string {
  return `(SELECT following.id FROM bundles AS following
      WHERE following.link_id = :linkId AND following.has_work AND following.ready AND ${condition}
      ORDER BY ${order}, following.served_at, following.id LIMIT 1)`
}

/**
 * The activities that have ready work on a link, from the first bundle of each: a step in the index from one to the next, so it
 * costs as much as there are activities, however deep their queues are.
 */
const FIRSTS = `WITH RECURSIVE firsts(id, place) AS (
    SELECT (SELECT bundles.id FROM bundles WHERE link_id = :linkId AND has_work AND ready
             ORDER BY priority DESC, vo_id, activity, served_at, bundles.id LIMIT 1), 1
    UNION ALL
    SELECT coalesce(
      ${following(
        'following.priority = here.priority AND following.vo_id = here.vo_id AND following.activity > here.activity',
        'following.activity',
      )},
      ${following(
        'following.priority = here.priority AND following.vo_id > here.vo_id',
        'following.vo_id, following.activity',
      )},
      ${following(
        'following.priority < here.priority',
        'following.priority DESC, following.vo_id, following.activity',
      )}), place + 1
      FROM firsts JOIN bundles AS here ON here.id = firsts.id WHERE place < ${MOST_ACTIVITIES})`

/** The activities with ready work on a link that is within reach. */
export async function readyActivities(executor: Executor, linkId: number, reach: WorkerReach): Promise<ActivityLoad[]> {
  const rows = await query<ActivityLoad>(
    executor,
    `${FIRSTS} SELECT here.vo_id AS "voId", here.activity, here.priority, here.served_at AS "servedAt",
            coalesce(activity_shares.weight, 1) AS weight,
            (SELECT count(*) FROM transfers WHERE transfers.link_id = :linkId AND transfers.vo_id = here.vo_id
                AND transfers.activity = here.activity AND state IN (${ACTIVE})) AS active
       FROM firsts JOIN bundles AS here ON here.id = firsts.id
       LEFT JOIN activity_shares ON activity_shares.vo_id = here.vo_id AND activity_shares.activity = here.activity`,
    { linkId },
  )
  return rows.filter(
    ({ voId, activity }) => (reach.voIds?.includes(voId) ?? true) && (reach.activities?.includes(activity) ?? true),
  )
}

export interface ReadyBundle {
  id: number
  vo_id: number
}

interface ReadyAt {
  readonly linkId: number
  readonly destinationId: number
  readonly now: number
}

/** Both grants can be used now, whatever the hint says, and the destination takes it. */
function readyOf(executor: Executor, reach: WorkerReach): string {
  const can = (grant: string): string => `${usable(grant)} AND ${longLived(grant)}`
  return `FROM bundles
       JOIN grants AS source_grant ON source_grant.id = bundles.source_grant_id
       JOIN grants AS destination_grant ON destination_grant.id = bundles.destination_grant_id
      WHERE bundles.link_id = :linkId AND bundles.has_work AND bundles.ready
        AND bundles.priority = :priority AND bundles.vo_id = :voId AND bundles.activity = :activity
        AND ${can('source_grant')} AND ${can('destination_grant')} AND ${takenBy(':destinationId')}
        ${copiesWithinReach(executor, reach, BUNDLES)}
      ORDER BY bundles.served_at, bundles.id`
}

function bindingsOf(
  { priority, voId, activity }: ActivityLoad,
  at: ReadyAt,
  reach: WorkerReach,
): Record<string, Binding> {
  return { ...at, priority, voId, activity, ...reachBindings(reach) }
}

/** Of one activity: those that were not served for longest. */
export async function readyBundles(
  executor: Executor,
  load: ActivityLoad,
  at: ReadyAt,
  reach: WorkerReach,
  limit: number,
): Promise<ReadyBundle[]> {
  return query<ReadyBundle>(executor, `SELECT bundles.id, bundles.vo_id ${readyOf(executor, reach)} LIMIT :limit`, {
    ...bindingsOf(load, at, reach),
    limit,
  })
}

/**
 * On trial what has not failed yet comes first: a few files that always fail must not be every trial. So far it is looked for,
 * whatever the depth of the queue.
 */
export const LOOKED_THROUGH = { bundles: 200, ofActivity: 4, transfers: 1_000 }
const UNTRIED = `EXISTS (SELECT 1 FROM (SELECT attempts, not_before FROM transfers
    WHERE transfers.bundle_id = ready.id AND transfers.state = 'QUEUED' ORDER BY transfers.id LIMIT ${LOOKED_THROUGH.transfers}) AS head
  WHERE attempts = 0 AND not_before = 0)`

/** Of all activities, for a link or destination on trial: what was not tried yet, then by priority and share. */
export async function bundlesOnTrial(
  executor: Executor,
  work: readonly ActivityLoad[],
  at: ReadyAt,
  reach: WorkerReach,
): Promise<ReadyBundle[]> {
  const { bundles, ofActivity } = LOOKED_THROUGH
  const asked = [...work].sort(compareUrgency).slice(0, bundles / ofActivity)
  const each = Math.max(ofActivity, Math.floor(bundles / Math.max(1, asked.length)))
  const found: (ReadyBundle & { untried: number | boolean; load: ActivityLoad })[] = []
  for (const load of asked) {
    const rows = await query<ReadyBundle & { untried: number | boolean }>(
      executor,
      `SELECT ready.id, ready.vo_id, ${UNTRIED} AS untried
         FROM (SELECT bundles.id, bundles.vo_id, bundles.served_at ${readyOf(executor, reach)} LIMIT :each) AS ready
        ORDER BY ready.served_at, ready.id`,
      { ...bindingsOf(load, at, reach), each },
    )
    found.push(...rows.map(row => ({ ...row, load })))
  }
  return found.sort((a, b) => Number(b.untried) - Number(a.untried) || compareUrgency(a.load, b.load))
}

function compareUrgency(a: ActivityLoad, b: ActivityLoad): number {
  return b.priority - a.priority || compareShares(a, b)
}
