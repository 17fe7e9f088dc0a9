import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ACTIVE_STATES, TRANSFER_MACHINE, type TransferEventType } from '../../shared/domain/transfer-state.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import type { Context } from '../context.ts'
import { type Executor, encodeRows, oneOf, query, recordset, skippingLocked, stateList } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { hintWork } from './outcome-store.ts'
import { starveTransfers } from './starve.ts'

const RELEASED_PER_ROUND = 1_000
/**
 * A transfer without a source, or to a closed destination, is looked at again after this, later the longer it waits: a million
 * of them must not keep the database busy. Milliseconds.
 */
const NO_SOURCE_DELAY = { least: 60_000, most: 600_000 }

/** The states that accept an event, as SQL: every guard here comes from the one table. */
function accepting(event: TransferEventType): string {
  return stateList(statesAccepting(TRANSFER_MACHINE, event))
}

/**
 * A transfer for each of these replicas that has none open. A second rule's lock joins the open one, and may raise its
 * priority as long as it waits.
 */
export async function openTransfers(
  executor: Executor,
  replicaIds: readonly number[],
  rule: Wanted,
  now: number,
): Promise<void> {
  if (replicaIds.length === 0) return
  const replicas = encodeRows(replicaIds)
  await moveReplicas(executor, replicaIds, 'want', now)
  const raised = await query<{ id: number }>(
    executor,
    `UPDATE transfers SET priority = :priority, state = 'WAITING', not_before = CASE state WHEN 'QUEUED' THEN 0 ELSE not_before END
      WHERE state IN ('WAITING', 'QUEUED') AND priority < :priority AND replica_id ${oneOf(executor, 'replicas')}
      RETURNING id`,
    { priority: rule.priority, replicas },
  )
  // A cancellation that was asked for, and a lock that came after it: the copy is wanted again.
  await query(
    executor,
    `UPDATE transfers SET cancel_requested = false WHERE cancel_requested AND state IN (${stateList(ACTIVE_STATES)})
       AND replica_id ${oneOf(executor, 'replicas')}`,
    { replicas },
  )
  await planTransfers(
    executor,
    raised.map(row => row.id),
    now,
  )
  await openNew(executor, replicaIds, rule, now)
}

/**
 * Those that have a source are queued as they are inserted: a second write of each row, with all its indexes, would cost as
 * much as the first. The others wait, and are planned as all that wait.
 */
async function openNew(
  executor: Executor,
  replicaIds: readonly number[],
  { vo_id, account_id, activity, priority }: Wanted,
  now: number,
): Promise<void> {
  const replicas = encodeRows(replicaIds)
  const sources = await query<Source>(
    executor,
    `SELECT own.id AS own_id, ${SOURCE_COLUMNS} FROM replicas AS own ${SOURCES}
      WHERE own.state = 'COPYING' AND own.id ${oneOf(executor, 'replicas')} ORDER BY own.id, links.distance, source.rse_id`,
    { replicas },
  )
  const candidates = nearest(sources).map(source => ({ ...source, vo_id, account_id, activity, priority }))
  const bundles = await ensureBundles(executor, candidates, now)
  const queued = candidates.map(candidate => ({ ...candidate, bundle_id: bundles.get(bundleKey(candidate)) ?? 0 }))
  const set = recordset(executor, 'rows', { own_id: 'bigint', ...QUEUED_COLUMNS })
  const common = { voId: vo_id, accountId: account_id, activity, priority, now }
  await query(
    executor,
    `INSERT INTO transfers (${NEW_COLUMNS}, state, source_replica_id, source_rse_id, link_id, bundle_id)
     SELECT ${NEW_VALUES}, 'QUEUED', given.source_replica_id, given.source_rse_id, given.link_id, given.bundle_id
       FROM ${set} AS given JOIN replicas ON replicas.id = given.own_id JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state = 'COPYING' ON CONFLICT DO NOTHING`,
    { ...common, rows: encodeRows(queued) },
  )
  const found = new Set(candidates.map(({ own_id }) => own_id))
  const without = replicaIds.filter(id => !found.has(id))
  if (without.length === 0) return
  const waiting = await query<{ id: number }>(
    executor,
    `INSERT INTO transfers (${NEW_COLUMNS}, state) SELECT ${NEW_VALUES}, 'WAITING'
       FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state = 'COPYING' AND replicas.id ${oneOf(executor, 'without')} ON CONFLICT DO NOTHING RETURNING id`,
    { ...common, without: encodeRows(without) },
  )
  await planTransfers(
    executor,
    waiting.map(row => row.id),
    now,
  )
}

const NEW_COLUMNS = `replica_id, destination_rse_id, vo_id, account_id, activity, priority, bytes, attempts, not_before, fence,
  bytes_done, cancel_requested, created_at, updated_at`
const NEW_VALUES =
  'replicas.id, replicas.rse_id, :voId, :accountId, :activity, :priority, dids.bytes, 0, 0, 0, 0, false, :now, :now'

/** Of each replica's sources the first. */
function nearest(sources: readonly Source[]): Source[] {
  return sources.filter((source, i) => source.own_id !== sources[i - 1]?.own_id)
}

/** Where the file of the replica `own` can be had: what is AVAILABLE, readable and linked, while `own` can be written. */
const SOURCES = `JOIN directories AS own_directory ON own_directory.id = own.directory_id
         JOIN rses AS own_rse ON own_rse.id = own.rse_id AND own_rse.availability_write
         JOIN replicas AS source ON source.file_id = own.file_id AND source.state = 'AVAILABLE'
         JOIN rses ON rses.id = source.rse_id AND rses.availability_read
         JOIN links ON links.source_rse_id = source.rse_id AND links.destination_rse_id = own.rse_id AND links.distance > 0
         JOIN directories AS source_directory ON source_directory.id = source.directory_id`
const SOURCE_COLUMNS = `source.id AS source_replica_id, source.rse_id AS source_rse_id, links.id AS link_id,
              coalesce(source_directory.top_id, source_directory.id) AS source_directory_id,
              coalesce(own_directory.top_id, own_directory.id) AS destination_directory_id`
const QUEUED_COLUMNS = {
  source_replica_id: 'bigint',
  source_rse_id: 'bigint',
  link_id: 'bigint',
  bundle_id: 'bigint',
} as const

interface Source {
  own_id: number
  source_replica_id: number
  source_rse_id: number
  link_id: number
  source_directory_id: number
  destination_directory_id: number
}

/** For whom a transfer is. */
interface Wanted {
  vo_id: number
  account_id: number
  activity: string
  priority: number
}

type Candidate = Omit<Source, 'own_id'> & Wanted

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
  const candidates = await query<Candidate & { transfer_id: number }>(
    executor,
    `SELECT * FROM (
       SELECT transfers.id AS transfer_id, ${SOURCE_COLUMNS},
              transfers.vo_id, transfers.account_id, transfers.activity, transfers.priority,
              row_number() OVER (PARTITION BY transfers.id ORDER BY
                (SELECT count(*) FROM attempts WHERE attempts.transfer_id = transfers.id
                    AND attempts.source_rse_id = source.rse_id AND attempts.scope = 'SOURCE'),
                links.distance, source.rse_id) AS place
         FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id ${SOURCES}
        WHERE transfers.state IN (${accepting('release')}) AND transfers.not_before <= :now
          AND transfers.id ${oneOf(executor, 'ids')}
     ) AS ranked WHERE place = 1`,
    { ids, now },
  )
  const bundles = await ensureBundles(executor, candidates, now)
  const queued = candidates.map(candidate => ({ ...candidate, bundle_id: bundles.get(bundleKey(candidate)) ?? 0 }))
  const set = recordset(executor, 'rows', { transfer_id: 'bigint', ...QUEUED_COLUMNS })
  const moved = await query(
    executor,
    `UPDATE transfers SET state = 'QUEUED', reason = NULL, source_replica_id = given.source_replica_id,
            source_rse_id = given.source_rse_id, link_id = given.link_id, bundle_id = given.bundle_id, updated_at = :now
       FROM ${set} AS given WHERE transfers.id = given.transfer_id AND transfers.state IN (${accepting('release')})
        AND transfers.id ${oneOf(executor, 'ids')} RETURNING transfers.id`,
    { rows: encodeRows(queued), ids, now },
  )
  await query(
    executor,
    `UPDATE transfers SET reason = CASE WHEN (SELECT availability_write FROM rses WHERE rses.id = destination_rse_id)
              THEN 'NO_SOURCE' ELSE 'DESTINATION_CLOSED' END, updated_at = :now,
            not_before = CASE WHEN created_at > :old THEN CAST(:soon AS bigint) ELSE CAST(:late AS bigint) END
      WHERE state IN (${accepting('release')}) AND not_before <= :now AND id ${oneOf(executor, 'ids')}`,
    {
      ids,
      now,
      old: now - NO_SOURCE_DELAY.most,
      soon: now + NO_SOURCE_DELAY.least,
      late: now + NO_SOURCE_DELAY.most,
    },
  )
  return moved.length
}

const bundleKey = (row: Candidate): string =>
  `${row.link_id} ${row.source_directory_id} ${row.destination_directory_id} ${row.priority} ${row.account_id} ${row.activity}`

/** Work that shares link, directories and rank is one bundle; it has work now, and so has its link. */
async function ensureBundles(
  executor: Executor,
  candidates: readonly Candidate[],
  now: number,
): Promise<Map<string, number>> {
  const distinct = [...new Map(candidates.map(row => [bundleKey(row), row])).values()]
  if (distinct.length === 0) return new Map()
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
  return new Map(bundles.map(row => [bundleKey(row), row.id]))
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
      const moved = await context.db.write(executor => planTransfers(executor, ids, now))
      if (moved > 0) {
        context.wake.notify('grants')
        context.wake.notify('queue')
      }
      return due.length === RELEASED_PER_ROUND || starved === RELEASED_PER_ROUND
    },
  })
}
