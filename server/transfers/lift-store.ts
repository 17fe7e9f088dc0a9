import { type Executor, encodeRows, lockRows, oneOf, query } from '../database/sql.ts'

/** Of those that failed there so many come at once: more than any trial takes. */
const RELEASED = 1_000

/**
 * What is held at this storage, or as a source on its links, is on trial from now on, and the next of what failed there waits no
 * longer. Answers how many holds ended.
 */
export async function liftHolds(executor: Executor, rseId: number, now: number): Promise<number> {
  await endBackoffs(executor, rseId, now)
  const links = await lift(
    executor,
    'link_health',
    'link_id IN (SELECT id FROM links WHERE source_rse_id = :rseId)',
    rseId,
    now,
  )
  return links + (await lift(executor, 'destination_health', 'rse_id = :rseId', rseId, now))
}

async function lift(executor: Executor, table: string, of: string, rseId: number, now: number): Promise<number> {
  const sql = `UPDATE ${table} SET held_until = :now WHERE held_until > :now AND ${of} RETURNING since`
  return (await query(executor, sql, { rseId, now })).length
}

async function endBackoffs(executor: Executor, rseId: number, now: number): Promise<void> {
  const waiting = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state = 'WAITING' AND reason = 'BACKOFF' AND not_before > :now
        AND (destination_rse_id = :rseId OR source_rse_id = :rseId) ORDER BY not_before LIMIT ${RELEASED}`,
    { rseId, now },
  )
  const ids = waiting.map(({ id }) => id)
  await lockRows(executor, 'transfers', ids)
  await query(
    executor,
    `UPDATE transfers SET not_before = :now
      WHERE state = 'WAITING' AND reason = 'BACKOFF' AND not_before > :now AND id ${oneOf(executor, 'ids')}`,
    { now, ids: encodeRows(ids) },
  )
}
