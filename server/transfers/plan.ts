import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE, type TransferEventType } from '../../shared/domain/transfer-state.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, encodeRows, oneOf, query, recordset, skippingLocked, stateList } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { NEARLINE, stageTransfers } from '../tape/staging.ts'
import { type Candidate, inBundles, QUEUED_COLUMNS } from './bundles.ts'
import { planHops } from './hops.ts'
import { giveUpLost } from './lost.ts'
import { nextLook } from './next-look.ts'
import { ALLOWED, HELD, PAST_FAILURES, REFUSED, SOURCE_COLUMNS, SOURCES } from './sources.ts'
import { starveTransfers } from './starve.ts'

const RELEASED_PER_ROUND = 1_000
/** Why the transfer of the statement waits, which has just not been planned. */
const UNPLANNED = `CASE WHEN NOT (SELECT availability_write FROM rses WHERE rses.id = destination_rse_id) THEN 'DESTINATION_CLOSED'
              WHEN source_set_id IS NULL THEN 'NO_SOURCE' ELSE 'NO_ALLOWED_SOURCE' END`

/** The states that accept an event, as SQL: every guard here comes from the one table. */
function accepting(event: TransferEventType): string {
  return stateList(statesAccepting(TRANSFER_MACHINE, event))
}

/**
 * Gives WAITING transfers whose time has come a source and a place in the queue: fewest past failures of the source for this
 * transfer, then the shortest distance (facts/rules.md, "Sources, hops"). Without a source, or while nothing may be written
 * at their destination, they wait on, and say so.
 */
export async function planTransfers(executor: Executor, transferIds: readonly number[], now: number): Promise<number> {
  if (transferIds.length === 0) return 0
  // Those that somebody else has under his hands are looked at again in the next round.
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state IN (${accepting('release')}) AND id ${oneOf(executor, 'ids')}
      ORDER BY id ${skippingLocked(executor, 'transfers')}`,
    { ids: encodeRows(transferIds) },
  )
  const ids = encodeRows(free.map(row => row.id))
  const candidates = await query<Candidate & { transfer_id: number; nearline: number | boolean }>(
    executor,
    `SELECT * FROM (
       SELECT transfers.id AS transfer_id, ${SOURCE_COLUMNS},
              transfers.vo_id, transfers.account_id, transfers.activity, transfers.priority,
              row_number() OVER (PARTITION BY transfers.id ORDER BY
                ${REFUSED}, ${NEARLINE}, ${HELD}, ${PAST_FAILURES}, links.distance, source.rse_id) AS place,
              (${NEARLINE} AND transfers.bytes > 0) AS nearline
         FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id ${SOURCES}
        WHERE transfers.state IN (${accepting('release')}) AND transfers.not_before <= :now
          AND transfers.id ${oneOf(executor, 'ids')} AND ${ALLOWED}
     ) AS ranked WHERE place = 1`,
    { ids, now },
  )
  await stageTransfers(
    executor,
    candidates.filter(({ nearline }) => nearline),
    now,
  )
  const queued = await inBundles(
    executor,
    candidates.filter(({ nearline }) => !nearline),
    now,
  )
  const set = recordset(executor, 'rows', { transfer_id: 'bigint', ...QUEUED_COLUMNS })
  const moved = await query(
    executor,
    `UPDATE transfers SET state = 'QUEUED', reason = NULL, source_replica_id = given.source_replica_id,
            source_rse_id = given.source_rse_id, link_id = given.link_id, bundle_id = given.bundle_id, updated_at = :now
       FROM ${set} AS given WHERE transfers.id = given.transfer_id AND transfers.state IN (${accepting('release')})
      RETURNING transfers.id`,
    { rows: encodeRows(queued), now },
  )
  const look = nextLook(now)
  await query(
    executor,
    `UPDATE transfers SET reason = ${UNPLANNED}, updated_at = CASE WHEN reason = ${UNPLANNED} THEN updated_at ELSE :now END,
            not_before = ${look.sql}
      WHERE state IN (${accepting('release')}) AND not_before <= :now AND id ${oneOf(executor, 'ids')}`,
    { ids, now, ...look.bindings },
  )
  return moved.length
}

/** Moves transfers whose waiting is over into the queue, and out of it those whose way was closed. */
export function transferReleaser(context: Context): Service {
  return periodic({
    ...context,
    name: 'release transfers',
    interval: 1_000,
    async round() {
      const now = context.clock.now()
      const starved = await starveTransfers(context.db, now, RELEASED_PER_ROUND)
      const due = await query<{ id: number }>(
        context.db.read,
        `SELECT id FROM transfers WHERE state = 'WAITING' AND not_before <= :now ORDER BY not_before LIMIT :limit`,
        { now, limit: RELEASED_PER_ROUND },
      )
      if (due.length === 0) return starved > 0
      const ids = due.map(row => row.id)
      await giveUpLost(context.db, ids, now)
      const hops = await planHops(context, ids, now)
      const moved = await context.db.write(executor => planTransfers(executor, ids, now))
      if (moved > 0 || hops > 0) {
        context.wake.notify('grants')
        context.wake.notify('queue')
      }
      return due.length === RELEASED_PER_ROUND || starved === RELEASED_PER_ROUND
    },
  })
}
