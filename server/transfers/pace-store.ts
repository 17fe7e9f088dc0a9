import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'
import type { LinkSums } from './pace.ts'
import type { LinkPace } from './slow.ts'
import { LINK_LIMIT } from './trials.ts'

/** A target that work can be taken from at all. */
export const OPEN_TARGET = 'rses.max_outbound > 0 AND links.max_active > 0'
/** How much a target on trial takes in one step, if it gives more than it fails; null: it is not on trial. Binds `now`. */
export const TRIAL_SHARE = `(SELECT CASE WHEN held_until <= :now AND successes > failures THEN 1 + successes ELSE 0 END
                 FROM link_health WHERE link_health.link_id = links.id AND held_until > 0)`
export interface PacedLink extends LinkPace {
  readonly sourceId: number
}

/** The open links into storages with queued work, from sources that are not held, and their pace since a minute. */
export async function linkPaces(read: Executor, sinceMinute: number, now: number): Promise<PacedLink[]> {
  const sum = (column: string): string => `CAST(coalesce(sum(link_minutes.${column}), 0) AS bigint) AS ${column}`
  return query(
    read,
    `SELECT links.id, links.source_rse_id AS "sourceId", links.destination_rse_id AS "destinationId",
            ${sum('files')}, ${sum('bytes')}, ${sum('milliseconds')},
            CASE WHEN (${LINK_LIMIT}) < rses.max_outbound THEN ${LINK_LIMIT} ELSE rses.max_outbound END AS "atOnce"
       FROM links JOIN rses ON rses.id = links.source_rse_id AND rses.availability_read
       LEFT JOIN link_minutes ON link_minutes.link_id = links.id AND link_minutes.minute >= :sinceMinute
      WHERE links.distance > 0 AND links.destination_rse_id IN (SELECT destination_rse_id FROM links WHERE has_work)
        AND ${OPEN_TARGET} AND ${TRIAL_SHARE} IS NULL
      GROUP BY links.id, rses.max_outbound ORDER BY links.id`,
    { sinceMinute, now },
  )
}

/** The transfers queued on each of these links, counted up to `most`. */
export async function countQueued(
  read: Executor,
  linkIds: readonly number[],
  most: number,
): Promise<Map<number, number>> {
  if (linkIds.length === 0) return new Map()
  const rows = await query<{ id: number; queued: number }>(
    read,
    `SELECT links.id, (SELECT count(*) FROM (SELECT 1 FROM bundles
         JOIN transfers ON transfers.bundle_id = bundles.id AND transfers.state = 'QUEUED'
        WHERE bundles.link_id = links.id AND bundles.has_work LIMIT :most) AS counted) AS queued
       FROM links WHERE links.id ${oneOf(read, 'links')}`,
    { links: encodeRows(linkIds), most },
  )
  return new Map(rows.map(row => [row.id, row.queued]))
}

/** Adds to what links did; `now` tells the minute. */
export async function addToMinutes(executor: Executor, ended: readonly LinkSums[], now: number): Promise<void> {
  if (ended.length === 0) return
  const columns = {
    link_id: 'bigint',
    mode: 'text',
    files: 'bigint',
    bytes: 'bigint',
    milliseconds: 'bigint',
    squared_seconds: 'double precision',
    failures: 'bigint',
  } as const
  const names = Object.keys(columns).join(', ')
  const add = (column: string): string => `${column} = link_minutes.${column} + excluded.${column}`
  await query(
    executor,
    `INSERT INTO link_minutes (minute, ${names})
     SELECT :minute, ${names} FROM ${recordset(executor, 'rows', columns)} AS given WHERE true ORDER BY link_id, mode
     ON CONFLICT (link_id, minute, mode) DO UPDATE SET ${['files', 'bytes', 'milliseconds', 'squared_seconds', 'failures'].map(add).join(', ')}`,
    {
      minute: Math.floor(now / 60_000),
      rows: encodeRows(
        ended.map(({ linkId, squaredSeconds, ...sums }) => ({
          ...sums,
          link_id: linkId,
          squared_seconds: squaredSeconds,
        })),
      ),
    },
  )
}

export async function pruneMinutes(executor: Executor, beforeMinute: number): Promise<void> {
  await query(executor, 'DELETE FROM link_minutes WHERE minute < :beforeMinute', { beforeMinute })
}
