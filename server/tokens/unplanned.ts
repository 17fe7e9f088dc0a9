import { type Executor, encodeRows, keyset, oneOf, query } from '../database/sql.ts'

export interface UnplannedBundle {
  id: number
  vo_id: number
  source_rse_id: number
  source_path: string
  destination_rse_id: number
  destination_path: string
}

/** Ready bundles as urgent or more that a link keeps ahead of the claims: beyond them nothing is minted yet. */
export const AHEAD_PER_LINK = 50

/**
 * Bundles with work that have no grants yet, the most urgent first; before them those that have none any more though an
 * attempt of theirs is to be settled, which keeps its slots until it is. Only of these VOs, and not those put aside: what is to
 * be settled of a VO that went holds slots at that VO's storages only, and is looked at when it comes back.
 */
export async function unplannedBundles(
  read: Executor,
  among: { readonly voIds: readonly number[]; readonly aside: readonly number[] },
  limit: number,
): Promise<UnplannedBundle[]> {
  const allowed = `bundles.vo_id ${oneOf(read, 'vos')} AND bundles.id NOT IN ${keyset(read, 'aside')}`
  return query<UnplannedBundle>(
    read,
    `WITH unsettled AS (
       SELECT DISTINCT bundles.id FROM transfers JOIN bundles ON bundles.id = transfers.bundle_id
        WHERE transfers.state = 'SETTLING' AND transfers.session_id IS NULL AND ${allowed}
          AND (bundles.source_grant_id IS NULL OR bundles.destination_grant_id IS NULL) LIMIT :limit),
     wanting AS (
       SELECT bundles.id FROM bundles
        WHERE bundles.has_work AND NOT bundles.ready AND bundles.source_grant_id IS NULL AND ${allowed}
          AND (SELECT count(*) FROM (SELECT 1 FROM bundles AS ahead WHERE ahead.link_id = bundles.link_id AND ahead.has_work
                 AND ahead.ready AND ahead.priority >= bundles.priority LIMIT ${AHEAD_PER_LINK}) AS counted) < ${AHEAD_PER_LINK}
        ORDER BY bundles.priority DESC, bundles.id LIMIT :limit)
     SELECT bundles.id, bundles.vo_id, source.rse_id AS source_rse_id, source.path AS source_path,
            destination.rse_id AS destination_rse_id, destination.path AS destination_path
       FROM (SELECT id, max(lost) AS lost
               FROM (SELECT id, 1 AS lost FROM unsettled UNION ALL SELECT id, 0 FROM wanting) AS found GROUP BY id) AS chosen
       JOIN bundles ON bundles.id = chosen.id
       JOIN directories AS source ON source.id = bundles.source_directory_id
       JOIN directories AS destination ON destination.id = bundles.destination_directory_id
      ORDER BY chosen.lost DESC, bundles.priority DESC, bundles.id LIMIT :limit`,
    { limit, vos: encodeRows(among.voIds), aside: encodeRows(among.aside) },
  )
}
