import { ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, oneOf, query, recordset, stateList } from '../database/sql.ts'
import { type Candidate, inBundles, QUEUED_COLUMNS } from './bundles.ts'
import { holdSourceSets } from './source-set-store.ts'
import { allowedBy, HELD, SOURCE_COLUMNS, SOURCES } from './sources.ts'

/** For whom a transfer is. */
type Wanted = Pick<Candidate, 'vo_id' | 'account_id' | 'activity' | 'priority'> & {
  /** The copy counts when it is on tape, where there is one. */
  readonly archive: number | boolean
  /** Where its file may come from; null: from anywhere. */
  readonly source_set_id: number | null
}

type Source = Omit<Candidate, keyof Wanted> & { own_id: number }

/**
 * A transfer for each of these replicas that has none open. A second rule's lock joins the open one, and may raise its
 * priority as long as it waits; of sources that the two allow those of the first stay, unless one allows all.
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
  await holdSourceSets(executor, [rule.source_set_id])
  await raisePriority(executor, replicas, rule.priority)
  // A cancellation that was asked for, and a lock that came after it: the copy is wanted again, and by this rule alone.
  await query(
    executor,
    `UPDATE transfers SET cancel_requested = false,
            source_set_id = CASE WHEN cancel_requested THEN CAST(:set AS bigint) END,
            not_before = CASE WHEN state = 'WAITING' AND reason = 'NO_ALLOWED_SOURCE' THEN 0 ELSE not_before END
      WHERE state NOT IN (${stateList(ENDED_STATES)}) AND replica_id ${oneOf(executor, 'replicas')}
        AND (cancel_requested OR (source_set_id IS NOT NULL AND ${FROM_ANYWHERE}
          AND NOT EXISTS (SELECT 1 FROM hops WHERE hops.carrier_id = transfers.id AND hops.look_at IS NOT NULL)))`,
    { replicas, set: rule.source_set_id },
  )
  if (rule.source_set_id !== null) await narrowHops(executor, replicas, rule.source_set_id)
  if (rule.archive) {
    await query(
      executor,
      `UPDATE transfers SET archive = :archive WHERE NOT archive AND state NOT IN (${stateList(ENDED_STATES)})
          AND replica_id ${oneOf(executor, 'replicas')}`,
      { archive: true, replicas },
    )
  }
  await openNew(executor, replicaIds, rule, now)
}

/** A rule wants the copy of the transfer of the statement, from anywhere. */
const FROM_ANYWHERE = `EXISTS (SELECT 1 FROM locks JOIN rules ON rules.id = locks.rule_id AND rules.source_expression IS NULL
     AND rules.state <> 'SUSPENDED' WHERE locks.replica_id = transfers.replica_id AND locks.state = 'REPLICATING')`

/** What joins a transfer for hops alone, which take the file from anywhere, has it come from where it may. */
async function narrowHops(executor: Executor, replicas: string, set: number): Promise<void> {
  await query(
    executor,
    `UPDATE transfers SET source_set_id = :set, state = 'WAITING',
            not_before = CASE WHEN state = 'WAITING' AND reason = 'BACKOFF' THEN not_before ELSE 0 END
      WHERE source_set_id IS NULL AND state IN ('WAITING', 'QUEUED', 'STAGING') AND replica_id ${oneOf(executor, 'replicas')}
        AND NOT ${FROM_ANYWHERE}`,
    { replicas, set },
  )
}

/**
 * Of what waits, and of what brings its file nearer. Those that were queued find their new place when they are planned next; those
 * whose file comes from tape, when it is there.
 */
async function raisePriority(executor: Executor, replicas: string, priority: number): Promise<void> {
  const raise = (
    which: string,
  ): string => `UPDATE transfers SET priority = :priority, state = CASE state WHEN 'QUEUED' THEN 'WAITING' ELSE state END,
            not_before = CASE state WHEN 'QUEUED' THEN 0 ELSE not_before END
      WHERE state IN ('WAITING', 'QUEUED', 'STAGING') AND priority < :priority AND ${which} RETURNING id`
  const raised = await query<{ id: number }>(executor, raise(`replica_id ${oneOf(executor, 'replicas')}`), {
    priority,
    replicas,
  })
  if (raised.length === 0) return
  const carriers = `id IN (SELECT carrier_id FROM hops WHERE look_at IS NOT NULL AND transfer_id ${oneOf(executor, 'raised')})`
  await query(executor, raise(carriers), { priority, raised: encodeRows(raised.map(row => row.id)) })
}

/**
 * Those that have a source on disk are queued as they are inserted: a second write of each row, with all its indexes, would cost
 * as much as the first. The others wait, and are planned as all that wait.
 */
async function openNew(
  executor: Executor,
  replicaIds: readonly number[],
  { vo_id, account_id, activity, priority, archive, source_set_id: set }: Wanted,
  now: number,
): Promise<void> {
  const replicas = encodeRows(replicaIds)
  const allowed = set === null ? '' : `AND ${allowedBy('CAST(:set AS bigint)')}`
  const sources = await query<Source>(
    executor,
    `SELECT own.id AS own_id, ${SOURCE_COLUMNS} FROM replicas AS own ${SOURCES}
      WHERE own.state = 'COPYING' AND NOT rses.tape AND own.id ${oneOf(executor, 'replicas')} ${allowed}
      ORDER BY own.id, ${HELD}, links.distance, source.rse_id`,
    { replicas, now, ...(set !== null && { set }) },
  )
  const candidates = nearest(sources).map(source => ({ ...source, vo_id, account_id, activity, priority }))
  const queued = await inBundles(executor, candidates, now)
  const given = recordset(executor, 'rows', { own_id: 'bigint', ...QUEUED_COLUMNS })
  const common = { voId: vo_id, accountId: account_id, activity, priority, archive: Boolean(archive), set, now }
  await query(
    executor,
    `INSERT INTO transfers (${NEW_COLUMNS}, state, source_replica_id, source_rse_id, link_id, bundle_id)
     SELECT ${NEW_VALUES}, 'QUEUED', given.source_replica_id, given.source_rse_id, given.link_id, given.bundle_id
       FROM ${given} AS given JOIN replicas ON replicas.id = given.own_id JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state = 'COPYING' ON CONFLICT DO NOTHING`,
    { ...common, rows: encodeRows(queued) },
  )
  const found = new Set(candidates.map(({ own_id }) => own_id))
  const without = replicaIds.filter(id => !found.has(id))
  if (without.length === 0) return
  await query(
    executor,
    `INSERT INTO transfers (${NEW_COLUMNS}, state) SELECT ${NEW_VALUES}, 'WAITING'
       FROM replicas JOIN dids ON dids.id = replicas.file_id
      WHERE replicas.state = 'COPYING' AND replicas.id ${oneOf(executor, 'without')} ON CONFLICT DO NOTHING`,
    { ...common, without: encodeRows(without) },
  )
}

const NEW_COLUMNS = `replica_id, destination_rse_id, vo_id, account_id, activity, priority, bytes, attempts, not_before, fence,
  bytes_done, cancel_requested, archive, source_set_id, created_at, updated_at`
const NEW_VALUES =
  'replicas.id, replicas.rse_id, :voId, :accountId, :activity, :priority, dids.bytes, 0, 0, 0, 0, false, :archive, CAST(:set AS bigint), :now, :now'

/** Of each replica's sources the first. */
function nearest(sources: readonly Source[]): Source[] {
  return sources.filter((source, i) => source.own_id !== sources[i - 1]?.own_id)
}
