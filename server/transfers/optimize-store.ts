import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, recordset, stateList } from '../database/sql.ts'
import type { MinuteSums, Tuned } from './link-tuning.ts'
import type { Mode } from './modes.ts'
import type { PacedMode } from './pace.ts'

const ACTIVE = stateList(ACTIVE_STATES)

/** By link: how many are active now, SETTLING among them: they hold their places. */
export async function activeByLink(read: Executor): Promise<Map<number, number>> {
  const rows = await query<{ id: number; active: number }>(
    read,
    `SELECT link_id AS id, count(*) AS active FROM transfers WHERE state IN (${ACTIVE}) AND link_id IS NOT NULL GROUP BY link_id`,
  )
  return new Map(rows.map(({ id, active }) => [id, active]))
}

export interface TunedRow {
  id: number
  source_rse_id: number
  destination_rse_id: number
  max_active: number
  learnt_active: number
  max_outbound: number
  max_inbound: number
  measured_at: number | null
  state: string | null
  preferred_mode: Mode | null
  mode_tries: number | null
}

/** Those of these links that are optimized, and were not measured since then. */
export async function linksToTune(
  read: Executor,
  linkIds: readonly number[],
  since: number,
  limit: number,
): Promise<TunedRow[]> {
  return query<TunedRow>(
    read,
    `SELECT links.id, links.source_rse_id, links.destination_rse_id, links.max_active, links.learnt_active,
            source.max_outbound, destination.max_inbound, link_tuning.measured_at, link_tuning.state,
            link_tuning.preferred_mode, link_tuning.mode_tries
       FROM links JOIN rses AS source ON source.id = links.source_rse_id
       JOIN rses AS destination ON destination.id = links.destination_rse_id
       LEFT JOIN link_tuning ON link_tuning.link_id = links.id
      WHERE links.id ${oneOf(read, 'links')} AND links.optimize AND links.distance > 0
        AND coalesce(link_tuning.measured_at, 0) <= :since
      ORDER BY coalesce(link_tuning.measured_at, 0), links.id LIMIT :limit`,
    { links: encodeRows(linkIds), since, limit },
  )
}

/** What each of these links did in a minute and since, by minute and mode. */
export async function minutesSince(
  read: Executor,
  since: readonly { readonly linkId: number; readonly minute: number }[],
): Promise<Map<number, MinuteSums[]>> {
  const rows = await query<MinuteSums & { linkId: number; mode: PacedMode }>(
    read,
    `SELECT link_minutes.link_id AS "linkId", link_minutes.minute, link_minutes.mode, link_minutes.files, link_minutes.bytes,
            link_minutes.milliseconds, link_minutes.squared_seconds AS "squaredSeconds", link_minutes.failures
       FROM ${recordset(read, 'since', { link_id: 'bigint', minute: 'bigint' })} AS given
       JOIN link_minutes ON link_minutes.link_id = given.link_id AND link_minutes.minute >= given.minute`,
    { since: encodeRows(since.map(({ linkId, minute }) => ({ link_id: linkId, minute }))) },
  )
  const found = new Map<number, MinuteSums[]>()
  for (const { linkId, ...sums } of rows) found.set(linkId, [...(found.get(linkId) ?? []), sums])
  return found
}

/**
 * Limits, what they rest on, and why, in one transaction. Of several servers that have measured a link the first wins. Answers
 * the links whose limit rose.
 */
export async function storeTuned(executor: Executor, tuned: readonly Tuned[], now: number): Promise<number[]> {
  await lockRows(
    executor,
    'links',
    tuned.map(({ linkId }) => linkId),
  )
  const fresh = tuned.filter(({ measuredAt }) => measuredAt === undefined)
  if (fresh.length > 0) {
    await query(
      executor,
      `INSERT INTO link_tuning (link_id, measured_at, state, mode_tries)
       SELECT link_id, 0, '{}', 0 FROM ${recordset(executor, 'rows', { link_id: 'bigint' })} AS given WHERE true
       ON CONFLICT DO NOTHING`,
      { rows: encodeRows(fresh.map(({ linkId }) => ({ link_id: linkId }))) },
    )
  }
  const won = await storeStates(executor, tuned, now)
  const winners = tuned.filter(({ linkId }) => won.has(linkId))
  await insertDecisions(executor, winners, now)
  return raiseOrLower(executor, winners)
}

async function storeStates(executor: Executor, tuned: readonly Tuned[], now: number): Promise<Set<number>> {
  const columns = {
    link_id: 'bigint',
    before: 'bigint',
    state: 'text',
    preferred_mode: 'text',
    mode_tries: 'bigint',
  } as const
  const rows = tuned.map(({ linkId, measuredAt, state, mode }) => ({
    link_id: linkId,
    before: measuredAt ?? 0,
    state: JSON.stringify(state),
    preferred_mode: mode?.preferred ?? null,
    mode_tries: mode?.tries ?? 0,
  }))
  const won = await query<{ link_id: number }>(
    executor,
    `UPDATE link_tuning SET measured_at = :now, state = given.state, preferred_mode = given.preferred_mode,
            mode_tries = given.mode_tries
       FROM ${recordset(executor, 'rows', columns)} AS given
      WHERE link_tuning.link_id = given.link_id AND link_tuning.measured_at = given.before
      RETURNING link_tuning.link_id`,
    { now, rows: encodeRows(rows) },
  )
  return new Set(won.map(({ link_id }) => link_id))
}

/** Unless an admin has fixed it meanwhile. */
async function raiseOrLower(executor: Executor, tuned: readonly Tuned[]): Promise<number[]> {
  if (tuned.length === 0) return []
  const set = recordset(executor, 'rows', { link_id: 'bigint', active: 'bigint' })
  const rows = encodeRows(tuned.map(({ linkId, limit }) => ({ link_id: linkId, active: limit })))
  const raised = await query<{ id: number }>(
    executor,
    `SELECT links.id FROM links JOIN ${set} AS given ON given.link_id = links.id AND given.active > links.learnt_active`,
    { rows },
  )
  await query(
    executor,
    `UPDATE links SET learnt_active = given.active FROM ${set} AS given
      WHERE links.id = given.link_id AND links.optimize AND links.learnt_active <> given.active`,
    { rows },
  )
  return raised.map(({ id }) => id)
}

async function insertDecisions(executor: Executor, tuned: readonly Tuned[], now: number): Promise<void> {
  const rows = tuned.flatMap(({ linkId, decisions }) =>
    decisions.map(({ before, after, figures, ...decision }) => ({
      link_id: linkId,
      ...decision,
      before: JSON.stringify(before),
      after: JSON.stringify(after),
      figures: JSON.stringify(figures),
    })),
  )
  if (rows.length === 0) return
  const columns = {
    link_id: 'bigint',
    subject: 'text',
    before: 'text',
    after: 'text',
    code: 'text',
    figures: 'text',
    sentence: 'text',
  } as const
  const names = Object.keys(columns).join(', ')
  await query(
    executor,
    `INSERT INTO link_decisions (at, ${names}) SELECT :now, ${names} FROM ${recordset(executor, 'rows', columns)} AS given`,
    { now, rows: encodeRows(rows) },
  )
}
