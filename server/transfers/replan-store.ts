import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import {
  type Executor,
  encodeRows,
  lockRows,
  oneOf,
  query,
  queryOne,
  recordset,
  skippingLocked,
  stateList,
} from '../database/sql.ts'
import { NEARLINE } from '../tape/staging.ts'
import { type Candidate, inBundles, QUEUED_COLUMNS, settleHints } from './bundles.ts'
import type { LinkHealthRow } from './health-store.ts'
import { OPEN_TARGET, TRIAL_SHARE } from './pace-store.ts'
import type { Target } from './slow.ts'
import { ALLOWED, PAST_FAILURES, SOURCE_COLUMNS, SOURCES } from './sources.ts'

const MOVABLE = stateList(statesAccepting(TRANSFER_MACHINE, 'replan'))

/** The links with work whose source fails. */
export async function failingWithWork(read: Executor): Promise<(LinkHealthRow & { source_rse_id: number })[]> {
  return query(
    read,
    `SELECT link_health.*, links.source_rse_id FROM link_health JOIN links ON links.id = link_health.link_id
      WHERE links.has_work ORDER BY links.id`,
  )
}

/** How far a link's queue was gone through. */
export interface Place {
  readonly bundle: number
  readonly transfer: number
}

export interface QueuedRow {
  id: number
  bundle_id: number
}

/** The next queued transfers of a link, in the order of bundles. */
export async function queuedAfter(read: Executor, linkId: number, after: Place, limit: number): Promise<QueuedRow[]> {
  return query(
    read,
    `SELECT transfers.id, transfers.bundle_id FROM bundles
       JOIN transfers ON transfers.bundle_id = bundles.id AND transfers.state = 'QUEUED'
      WHERE bundles.link_id = :linkId AND bundles.has_work AND bundles.id >= :bundle
        AND transfers.id > CASE WHEN bundles.id = :bundle THEN CAST(:transfer AS bigint) ELSE 0 END
      ORDER BY bundles.id, transfers.id LIMIT :limit`,
    { linkId, ...after, limit },
  )
}

/** A link whose queued transfers go to others, and why. */
export interface Leaving {
  readonly linkId: number
  /** Which run of failures it is, by its beginning; undefined: none. */
  readonly run: number | undefined
  readonly sourceId: number
  readonly code: 'SOURCE_HELD' | 'SOURCE_SLOW'
  readonly message: string
  /** Undefined: to any. */
  readonly to?: readonly Target[]
}

/** Where a queued transfer may go. `share`: of a link on trial. */
type Move = Candidate & { transfer_id: number; bundle_left: number; share: number | null }

/**
 * Those of these queued transfers that can have their file from another source that has not failed them yet: the nearest that is
 * not on trial, or one on trial where there is no other.
 */
export async function movable(
  executor: Executor,
  transferIds: readonly number[],
  { linkId, to }: Pick<Leaving, 'linkId' | 'to'>,
  now: number,
): Promise<Move[]> {
  if (transferIds.length === 0) return []
  const targets = to === undefined ? '' : `AND links.id ${oneOf(executor, 'targets')}`
  const found = await query<Move>(
    executor,
    `SELECT * FROM (
       SELECT transfers.id AS transfer_id, transfers.bundle_id AS bundle_left, ${SOURCE_COLUMNS},
              transfers.vo_id, transfers.account_id, transfers.activity, transfers.priority,
              ${TRIAL_SHARE} AS share,
              row_number() OVER (PARTITION BY transfers.id ORDER BY ${TRIAL_SHARE} IS NOT NULL, links.distance, source.rse_id) AS place
         FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id ${SOURCES}
        WHERE transfers.id ${oneOf(executor, 'ids')} AND transfers.state IN (${MOVABLE}) AND transfers.link_id = :linkId
          AND links.id <> :linkId ${targets} AND ${OPEN_TARGET} AND NOT ${NEARLINE} AND coalesce(${TRIAL_SHARE}, 1) > 0 AND ${PAST_FAILURES} = 0
          AND ${ALLOWED}
     ) AS ranked WHERE place = 1 ORDER BY transfer_id`,
    { linkId, now, ids: encodeRows(transferIds), ...(to && { targets: encodeRows(to.map(({ id }) => id)) }) },
  )
  const trials = found.flatMap(({ link_id, share }) => (share === null ? [] : [{ id: link_id, most: share }]))
  return within(found, [...(to ?? []), ...trials], to === undefined)
}

/** Moves them, those that are still queued on the link; why is kept with them. Answers the bundles that they left. */
export async function moveQueued(
  executor: Executor,
  transferIds: readonly number[],
  leaving: Leaving,
  now: number,
): Promise<number[]> {
  const { linkId, sourceId, code, message } = leaving
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state IN (${MOVABLE}) AND link_id = :linkId AND id ${oneOf(executor, 'ids')}
      ORDER BY id ${skippingLocked(executor, 'transfers')}`,
    { linkId, ids: encodeRows(transferIds) },
  )
  const found = await movable(
    executor,
    free.map(row => row.id),
    leaving,
    now,
  )
  const moves = await inBundles(executor, found, now)
  if (moves.length === 0) return []
  const replan = await queryOne<{ id: number }>(
    executor,
    'INSERT INTO replans (at, source_rse_id, code, message) VALUES (:now, :sourceId, :code, :message) RETURNING id',
    { now, sourceId, code, message },
  )
  await query(
    executor,
    `UPDATE transfers SET source_replica_id = given.source_replica_id, source_rse_id = given.source_rse_id,
            link_id = given.link_id, bundle_id = given.bundle_id, replan_id = CAST(:replan AS bigint), updated_at = :now
       FROM ${recordset(executor, 'rows', { transfer_id: 'bigint', ...QUEUED_COLUMNS })} AS given
      WHERE transfers.id = given.transfer_id`,
    { now, replan: replan?.id ?? null, rows: encodeRows(moves) },
  )
  return [...new Set(moves.map(({ bundle_left }) => bundle_left))]
}

/** No more to each link than it may take; `others`: to those that are not named as much as there is. */
function within<T extends Candidate>(candidates: readonly T[], to: readonly Target[], others: boolean): T[] {
  const left = new Map(to.map(({ id, most }) => [id, most]))
  return candidates.filter(({ link_id }) => {
    const most = left.get(link_id)
    if (most === undefined) return others
    left.set(link_id, most - 1)
    return most > 0
  })
}

/** After transfers left these bundles of a link. */
export async function settleLeft(executor: Executor, linkId: number, bundleIds: readonly number[]): Promise<void> {
  await lockRows(executor, 'links', [linkId])
  await lockRows(executor, 'bundles', bundleIds)
  await settleHints(executor, linkId, bundleIds)
}
