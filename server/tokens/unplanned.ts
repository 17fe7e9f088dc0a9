import { type Binding, type Executor, encodeRows, keyset, oneOf, query } from '../database/sql.ts'

export interface UnplannedBundle {
  id: number
  vo_id: number
  source_rse_id: number
  source_path: string
  destination_rse_id: number
  destination_path: string
}

/** Ready bundles of an activity, as urgent or more, that a link keeps ahead of the claims: beyond them nothing is minted yet. */
export const AHEAD = 50
/** Activities on links that one look goes through. */
const MOST_QUEUES = 5_000
const UNPLANNED = 'has_work AND NOT ready AND source_grant_id IS NULL'

interface Among {
  readonly voIds: readonly number[]
  readonly aside: readonly number[]
}

/**
 * Bundles with work that have no grants yet, the most urgent first, some of each activity on each link; before them those that
 * have none any more though an attempt of theirs is to be settled, which keeps its slots until it is. Only of these VOs, and not
 * those put aside: what is to be settled of a VO that went holds slots at that VO's storages only, and is looked at when it comes
 * back.
 */
export async function unplannedBundles(read: Executor, among: Among, limit: number): Promise<UnplannedBundle[]> {
  const unsettled = await unsettledBundles(read, among, limit)
  const wanting = await wantingBundles(read, among, limit)
  const ids = [...new Set([...unsettled, ...wanting])].slice(0, limit)
  if (ids.length === 0) return []
  const rows = await query<UnplannedBundle>(
    read,
    `SELECT bundles.id, bundles.vo_id, source.rse_id AS source_rse_id, source.path AS source_path,
            destination.rse_id AS destination_rse_id, destination.path AS destination_path
       FROM bundles
       JOIN directories AS source ON source.id = bundles.source_directory_id
       JOIN directories AS destination ON destination.id = bundles.destination_directory_id
      WHERE bundles.id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(ids) },
  )
  const found = new Map(rows.map(row => [row.id, row]))
  return ids.flatMap(id => found.get(id) ?? [])
}

async function unsettledBundles(read: Executor, among: Among, limit: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    read,
    `SELECT DISTINCT bundles.id FROM transfers JOIN bundles ON bundles.id = transfers.bundle_id
      WHERE transfers.state = 'SETTLING' AND transfers.session_id IS NULL AND bundles.vo_id ${oneOf(read, 'vos')}
        AND bundles.id NOT IN ${keyset(read, 'aside')}
        AND (bundles.source_grant_id IS NULL OR bundles.destination_grant_id IS NULL) LIMIT :limit`,
    { limit, vos: encodeRows(among.voIds), aside: encodeRows(among.aside) },
  )
  return rows.map(({ id }) => id)
}

/** Work of one VO, activity and priority on a link. */
interface Queue {
  link_id: number
  priority: number
  vo_id: number
  activity: string
}

/** The first bundle of the next queue after that of `here`, in the order of the index `bundles_to_plan`. */
function following(condition: string, order: string): string {
  return `(SELECT following.id FROM bundles AS following
      WHERE following.has_work AND NOT following.ready AND following.source_grant_id IS NULL AND ${condition}
      ORDER BY ${order}, following.id LIMIT 1)`
}

/** A step in the index from each queue to the next: it costs as much as there are queues, however many bundles wait in them. */
const QUEUES = `WITH RECURSIVE firsts(id, place) AS (
    SELECT (SELECT id FROM bundles WHERE ${UNPLANNED} ORDER BY link_id, priority DESC, vo_id, activity, id LIMIT 1), 1
    UNION ALL
    SELECT coalesce(
      ${following(
        'following.link_id = here.link_id AND following.priority = here.priority AND following.vo_id = here.vo_id AND following.activity > here.activity',
        'following.activity',
      )},
      ${following(
        'following.link_id = here.link_id AND following.priority = here.priority AND following.vo_id > here.vo_id',
        'following.vo_id, following.activity',
      )},
      ${following(
        'following.link_id = here.link_id AND following.priority < here.priority',
        'following.priority DESC, following.vo_id, following.activity',
      )},
      ${following(
        'following.link_id > here.link_id',
        'following.link_id, following.priority DESC, following.vo_id, following.activity',
      )}), place + 1
      FROM firsts JOIN bundles AS here ON here.id = firsts.id WHERE place < ${MOST_QUEUES})`

/** Those of which a link has little ahead: a queue's own bundles, and more urgent ones of its activity. */
async function queuesToPlan(read: Executor, { voIds, aside }: Among, limit: number): Promise<Queue[]> {
  return query<Queue>(
    read,
    `${QUEUES} SELECT here.link_id, here.priority, here.vo_id, here.activity
       FROM firsts JOIN bundles AS here ON here.id = firsts.id
      WHERE here.vo_id ${oneOf(read, 'vos')}
        AND EXISTS (SELECT 1 FROM bundles WHERE ${UNPLANNED} AND bundles.link_id = here.link_id AND bundles.priority = here.priority
               AND bundles.vo_id = here.vo_id AND bundles.activity = here.activity AND bundles.id NOT IN ${keyset(read, 'aside')})
        AND (SELECT count(*) FROM (SELECT 1 FROM bundles AS ahead WHERE ahead.link_id = here.link_id AND ahead.has_work
               AND ahead.ready AND ahead.priority >= here.priority AND ahead.vo_id = here.vo_id
               AND ahead.activity = here.activity LIMIT ${AHEAD}) AS counted) < ${AHEAD}
      ORDER BY here.priority DESC, here.id LIMIT :limit`,
    { vos: encodeRows(voIds), aside: encodeRows(aside), limit },
  )
}

/** Some of each queue, the oldest first: one that is long must not keep the others waiting. */
async function wantingBundles(read: Executor, among: Among, limit: number): Promise<number[]> {
  const queues = await queuesToPlan(read, among, limit)
  if (queues.length === 0) return []
  const each = Math.max(1, Math.floor(limit / queues.length))
  const bindings: Record<string, Binding> = { each, aside: encodeRows(among.aside) }
  const parts = queues.map((queue, i) => {
    Object.assign(bindings, {
      [`link${i}`]: queue.link_id,
      [`priority${i}`]: queue.priority,
      [`vo${i}`]: queue.vo_id,
      [`activity${i}`]: queue.activity,
    })
    return `SELECT * FROM (SELECT id, ${i} AS place FROM bundles
        WHERE ${UNPLANNED} AND link_id = :link${i} AND priority = :priority${i} AND vo_id = :vo${i} AND activity = :activity${i}
          AND id NOT IN ${keyset(read, 'aside')} ORDER BY id LIMIT :each) AS queue${i}`
  })
  const rows = await query<{ id: number }>(read, `${parts.join(' UNION ALL ')} ORDER BY place, id`, bindings)
  return rows.map(({ id }) => id)
}
