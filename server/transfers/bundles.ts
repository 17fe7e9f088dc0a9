import { type Executor, encodeRows, lockRows, oneOf, query, recordset } from '../database/sql.ts'

/** Work that shares link, directories and rank: it is claimed together, and under the same two grants. */

/** A way for a transfer to take, and for whom it is. */
export interface Candidate {
  source_replica_id: number
  source_rse_id: number
  link_id: number
  source_directory_id: number
  destination_directory_id: number
  vo_id: number
  account_id: number
  activity: string
  priority: number
}

/** What a queued transfer takes from its candidate. */
export const QUEUED_COLUMNS = {
  source_replica_id: 'bigint',
  source_rse_id: 'bigint',
  link_id: 'bigint',
  bundle_id: 'bigint',
} as const

/**
 * Each candidate with its bundle, which is made where there is none. The bundles have work now, and so have their links: their
 * rows are locked.
 */
export async function inBundles<T extends Candidate>(
  executor: Executor,
  candidates: readonly T[],
  now: number,
): Promise<(T & { bundle_id: number })[]> {
  const distinct = [...new Map(candidates.map(row => [bundleKey(row), row])).values()]
  if (distinct.length === 0) return []
  const set = recordset(executor, 'rows', {
    link_id: 'bigint',
    vo_id: 'bigint',
    source_directory_id: 'bigint',
    destination_directory_id: 'bigint',
    priority: 'bigint',
    activity: 'text',
    account_id: 'bigint',
  })
  const rows = encodeRows(distinct)
  await query(
    executor,
    `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                          has_work, ready, served_at)
     SELECT link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id, false, false, :now
       FROM ${set} AS given WHERE true ORDER BY link_id, source_directory_id, destination_directory_id
     ON CONFLICT DO NOTHING`,
    { rows, now },
  )
  const bundles = await query<Candidate & { id: number }>(
    executor,
    `SELECT bundles.id, bundles.link_id, bundles.source_directory_id, bundles.destination_directory_id, bundles.priority,
            bundles.activity, bundles.account_id
       FROM ${set} AS given JOIN bundles USING (link_id, source_directory_id, destination_directory_id, priority, activity, account_id)`,
    { rows },
  )
  await hintWork(
    executor,
    bundles.map(row => row.id),
    [...new Set(distinct.map(row => row.link_id))],
  )
  const ids = new Map(bundles.map(row => [bundleKey(row), row.id]))
  return candidates.map(candidate => ({ ...candidate, bundle_id: ids.get(bundleKey(candidate)) ?? 0 }))
}

const bundleKey = (row: Candidate): string =>
  `${row.link_id} ${row.source_directory_id} ${row.destination_directory_id} ${row.priority} ${row.account_id} ${row.activity}`

/**
 * Work came to these bundles' queues. Their rows are locked first: a claim that is just finding them dry cannot overwrite the
 * hint. Links before bundles, as a claim does.
 */
export async function hintWork(
  executor: Executor,
  bundleIds: readonly number[],
  linkIds: readonly number[],
): Promise<void> {
  await lockRows(executor, 'links', linkIds)
  await lockRows(executor, 'bundles', bundleIds)
  if (bundleIds.length > 0) {
    await query(
      executor,
      `UPDATE bundles SET has_work = true WHERE NOT has_work AND id ${oneOf(executor, 'bundles')}`,
      {
        bundles: encodeRows(bundleIds),
      },
    )
  }
  if (linkIds.length > 0) {
    await query(executor, `UPDATE links SET has_work = true WHERE NOT has_work AND id ${oneOf(executor, 'links')}`, {
      links: encodeRows(linkIds),
    })
  }
}

/**
 * Bundles that ran dry, and a link whose bundles all did, are not looked at again until something is queued there. Their rows are
 * locked by the caller.
 */
export async function settleHints(executor: Executor, linkId: number, bundleIds: readonly number[]): Promise<void> {
  const dry = await query(
    executor,
    `UPDATE bundles SET has_work = false WHERE id ${oneOf(executor, 'bundles')}
        AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.bundle_id = bundles.id AND state = 'QUEUED') RETURNING id`,
    { bundles: encodeRows(bundleIds) },
  )
  if (dry.length === 0) return
  await query(
    executor,
    `UPDATE links SET has_work = false WHERE id = :linkId
        AND NOT EXISTS (SELECT 1 FROM bundles WHERE link_id = :linkId AND has_work)`,
    { linkId },
  )
}
