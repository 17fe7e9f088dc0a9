import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'
import { type Copied, type Health, nextHold, type SourceFailures } from './health.ts'

export interface HealthRow {
  link_id: number
  failures: number
  since: number
  holds: number
  held_until: number
  code: string
  message: string
}

/** The links whose source has failed since it last gave something. Few rows, mostly none. */
export async function failingLinks(executor: Executor): Promise<HealthRow[]> {
  return query(executor, 'SELECT * FROM link_health ORDER BY link_id')
}

export function healthOf({ failures, since, holds, held_until }: HealthRow): Health {
  return { failures, since, holds, heldUntil: held_until }
}

/** Counts failures of sources, and holds back the links that have too many. Answers which are held from now on. */
export async function countFailures(
  executor: Executor,
  failures: readonly SourceFailures[],
  now: number,
): Promise<number[]> {
  if (failures.length === 0) return []
  const set = recordset(executor, 'rows', { link_id: 'bigint', count: 'bigint', code: 'text', message: 'text' })
  // Whoever counts at the same time waits here: what is decided next is decided on all of them.
  const rows = await query<HealthRow>(
    executor,
    `INSERT INTO link_health (link_id, failures, since, holds, held_until, code, message)
     SELECT link_id, count, :now, 0, 0, code, message FROM ${set} AS given WHERE true ORDER BY link_id
     ON CONFLICT (link_id) DO UPDATE SET failures = link_health.failures + excluded.failures,
       code = excluded.code, message = excluded.message
     RETURNING *`,
    {
      now,
      rows: encodeRows(failures.map(({ linkId, ...failure }) => ({ link_id: linkId, ...failure }))),
    },
  )
  const held = rows.flatMap(row => {
    const hold = nextHold(healthOf(row), now)
    return hold === undefined ? [] : [{ link_id: row.link_id, holds: hold.holds, held_until: hold.heldUntil }]
  })
  if (held.length === 0) return []
  await query(
    executor,
    `UPDATE link_health SET holds = given.holds, held_until = given.held_until
       FROM ${recordset(executor, 'rows', { link_id: 'bigint', holds: 'bigint', held_until: 'bigint' })} AS given
      WHERE link_health.link_id = given.link_id`,
    { rows: encodeRows(held) },
  )
  return held.map(row => row.link_id)
}

/** The sources of these links have given a file to an attempt that began after their first failure: they work. */
export async function forgetFailures(executor: Executor, linkIds: readonly number[]): Promise<void> {
  if (linkIds.length === 0) return
  await query(executor, `DELETE FROM link_health WHERE link_id ${oneOf(executor, 'links')}`, {
    links: encodeRows(linkIds),
  })
}

/** Adds to how fast links were; `now` tells the minute. */
export async function addToMinutes(executor: Executor, copied: readonly Copied[], now: number): Promise<void> {
  if (copied.length === 0) return
  const set = recordset(executor, 'rows', {
    link_id: 'bigint',
    files: 'bigint',
    bytes: 'bigint',
    milliseconds: 'bigint',
  })
  await query(
    executor,
    `INSERT INTO link_minutes (link_id, minute, files, bytes, milliseconds)
     SELECT link_id, :minute, files, bytes, milliseconds FROM ${set} AS given WHERE true ORDER BY link_id
     ON CONFLICT (link_id, minute) DO UPDATE SET files = link_minutes.files + excluded.files,
       bytes = link_minutes.bytes + excluded.bytes, milliseconds = link_minutes.milliseconds + excluded.milliseconds`,
    {
      minute: Math.floor(now / 60_000),
      rows: encodeRows(copied.map(({ linkId, ...sums }) => ({ link_id: linkId, ...sums }))),
    },
  )
}
