import { type Executor, query } from '../database/sql.ts'

/** How long decisions are kept, and how many of a link at most. */
export const KEPT_DECISIONS = { ms: 7 * 86_400_000, each: 1_000 } as const

/** As it is stored: `before`, `after` and `figures` are JSON. */
export interface DecisionRow {
  id: number
  at: number
  subject: 'limit' | 'mode'
  before: string
  after: string
  code: string
  figures: string
  sentence: string
}

/** The last decisions about a link, the newest first. */
export async function decisionsOf(
  read: Executor,
  ends: { readonly sourceId: number; readonly destinationId: number },
  limit: number,
): Promise<DecisionRow[]> {
  return query<DecisionRow>(
    read,
    `SELECT * FROM link_decisions
      WHERE link_id = (SELECT id FROM links WHERE source_rse_id = :sourceId AND destination_rse_id = :destinationId)
      ORDER BY id DESC LIMIT :limit`,
    { ...ends, limit },
  )
}

/** Up to which each link has more than are kept. A look, of which links with fewer cost a walk through theirs. */
export async function decisionsBeyond(read: Executor): Promise<{ link_id: number; id: number }[]> {
  return query(
    read,
    `SELECT link_id, id FROM (SELECT links.id AS link_id, (SELECT link_decisions.id FROM link_decisions
        WHERE link_decisions.link_id = links.id ORDER BY link_decisions.id DESC LIMIT 1 OFFSET ${KEPT_DECISIONS.each}) AS id
       FROM links) AS beyond WHERE id IS NOT NULL`,
  )
}

/** Removes what is older than `before`, and of these links what is beyond. */
export async function pruneDecisions(
  executor: Executor,
  before: number,
  beyond: readonly { readonly link_id: number; readonly id: number }[],
): Promise<void> {
  await query(executor, 'DELETE FROM link_decisions WHERE at < :before', { before })
  for (const { link_id, id } of beyond) {
    await query(executor, 'DELETE FROM link_decisions WHERE link_id = :link_id AND id <= :id', { link_id, id })
  }
}
