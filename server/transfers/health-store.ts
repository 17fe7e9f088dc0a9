import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, oneOf, query, queryOne, recordset, stateList } from '../database/sql.ts'
import { type EndedAttempt, type Health, healthAfter, isEvidence } from './health.ts'
import type { Copied } from './pace.ts'

const ACTIVE = stateList(ACTIVE_STATES)

export interface HealthRow {
  link_id: number
  since: number
  failed_at: number
  gave_at: number
  failures: number
  successes: number
  confirmed: number | boolean
  session_id: number
  holds: number
  held_until: number
  code: string
  message: string
}

/** The links whose source fails, or has failed and is on trial. Few rows, mostly none. */
export async function failingLinks(executor: Executor): Promise<HealthRow[]> {
  return query(executor, 'SELECT * FROM link_health WHERE failures + holds > 0 ORDER BY link_id')
}

export function healthOf({ failed_at, gave_at, session_id, held_until, confirmed, ...row }: HealthRow): Health {
  const { since, failures, successes, holds, code, message } = row
  const rest = { since, failures, successes, holds, code, message }
  return {
    ...rest,
    failedAt: failed_at,
    gaveAt: gave_at,
    sessionId: session_id,
    heldUntil: held_until,
    confirmed: Boolean(confirmed),
  }
}

export interface HealthChanges {
  /** Links that are held from now on. */
  readonly held: readonly number[]
  /** Links that are not held any more, or may do more. */
  readonly freed: readonly number[]
}

const NO_CHANGES: HealthChanges = { held: [], freed: [] }

/**
 * Takes what attempts say of the sources of their links. `failing`: the links that were known to fail before, from a look
 * without locks. Where nothing fails it does nothing.
 */
export async function judgeSources(
  executor: Executor,
  attempts: readonly EndedAttempt[],
  failing: ReadonlySet<number>,
  now: number,
): Promise<HealthChanges> {
  const byLink = new Map<number, EndedAttempt[]>()
  for (const attempt of attempts.filter(isEvidence)) {
    byLink.set(attempt.linkId, [...(byLink.get(attempt.linkId) ?? []), attempt])
  }
  const judged = [...byLink].filter(([link, own]) => failing.has(link) || own.every(({ error }) => error !== undefined))
  if (judged.length === 0) return NO_CHANGES
  const rows = await lockHealth(
    executor,
    judged.map(([link]) => link),
    now,
  )
  const none = await isSoleWorker(executor)
  const moving = none
    ? new Map<number, number[]>()
    : await movingSessions(
        executor,
        judged.map(([link]) => link),
      )
  const changed: { link: number; before: Health | undefined; after: Health | undefined }[] = []
  for (const [link, own] of judged) {
    const row = rows.find(({ link_id }) => link_id === link)
    const before = row === undefined || row.failures + row.holds === 0 ? undefined : healthOf(row)
    changed.push({ link, before, after: healthAfter(before, own, { none, moving: moving.get(link) ?? [] }, now) })
  }
  await storeHealth(executor, changed)
  return {
    held: changed
      .filter(({ before, after }) => (after?.heldUntil ?? 0) > (before?.heldUntil ?? 0))
      .map(({ link }) => link),
    freed: changed
      .filter(({ before, after }) => (before?.heldUntil ?? 0) > 0 && after?.successes !== before?.successes)
      .map(({ link }) => link),
  }
}

/** A row for each of these links, locked in their order: whoever judges them too waits, and finds what this one left. */
async function lockHealth(executor: Executor, links: readonly number[], now: number): Promise<HealthRow[]> {
  return query(
    executor,
    `INSERT INTO link_health (link_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
     SELECT link_id, :now, :now, 0, 0, 0, false, 0, 0, 0, '', ''
       FROM ${recordset(executor, 'keys', { link_id: 'bigint' })} AS given WHERE true ORDER BY link_id
     ON CONFLICT (link_id) DO UPDATE SET link_id = excluded.link_id RETURNING *`,
    { now, keys: encodeRows(links.map(link_id => ({ link_id }))) },
  )
}

async function storeHealth(
  executor: Executor,
  changed: readonly { link: number; after: Health | undefined }[],
): Promise<void> {
  const well = changed.filter(({ after }) => after === undefined).map(({ link }) => link)
  if (well.length > 0) {
    await query(executor, `DELETE FROM link_health WHERE link_id ${oneOf(executor, 'links')}`, {
      links: encodeRows(well),
    })
  }
  const rows = changed.flatMap(({ link, after }) => {
    if (after === undefined) return []
    const { failedAt, gaveAt, sessionId, heldUntil, ...rest } = after
    return [
      { link_id: link, failed_at: failedAt, gave_at: gaveAt, session_id: sessionId, held_until: heldUntil, ...rest },
    ]
  })
  if (rows.length === 0) return
  const columns = {
    since: 'bigint',
    failed_at: 'bigint',
    gave_at: 'bigint',
    failures: 'bigint',
    successes: 'bigint',
    confirmed: 'boolean',
    session_id: 'bigint',
    holds: 'bigint',
    held_until: 'bigint',
    code: 'text',
    message: 'text',
  } as const
  const sets = Object.keys(columns).map(column => `${column} = given.${column}`)
  await query(
    executor,
    `UPDATE link_health SET ${sets.join(', ')}
       FROM ${recordset(executor, 'rows', { link_id: 'bigint', ...columns })} AS given WHERE link_health.link_id = given.link_id`,
    { rows: encodeRows(rows) },
  )
}

/** By link: the sessions that have a transfer there of which bytes have come. */
async function movingSessions(executor: Executor, links: readonly number[]): Promise<Map<number, number[]>> {
  const rows = await query<{ link_id: number; session_id: number }>(
    executor,
    `SELECT DISTINCT link_id, session_id FROM transfers
      WHERE state IN (${ACTIVE}) AND session_id IS NOT NULL AND bytes_done > 0 AND link_id ${oneOf(executor, 'links')}`,
    { links: encodeRows(links) },
  )
  const found = new Map<number, number[]>()
  for (const { link_id, session_id } of rows) found.set(link_id, [...(found.get(link_id) ?? []), session_id])
  return found
}

/** Who is drained takes nothing new: there is nobody else then who could see it otherwise. */
async function isSoleWorker(executor: Executor): Promise<boolean> {
  const row = await queryOne<{ count: number }>(
    executor,
    `SELECT count(*) AS count FROM sessions JOIN workers USING (issuer, client, worker)
      WHERE ended_at IS NULL AND drained_at IS NULL`,
  )
  return (row?.count ?? 0) < 2
}

/** Links that were neither failed on nor held since then are as any other. `before`: epoch ms. */
export async function forgetHealth(executor: Executor, before: number): Promise<void> {
  await query(executor, 'DELETE FROM link_health WHERE failed_at < :before AND held_until < :before', { before })
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
