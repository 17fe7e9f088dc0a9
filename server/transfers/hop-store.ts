import { ENDED_STATES, type TransferState } from '../../shared/domain/transfer-state.ts'
import {
  type Executor,
  encodeRows,
  lockRows,
  oneOf,
  query,
  recordset,
  skippingLocked,
  stateList,
} from '../database/sql.ts'
import { HOP_MS, type Wait } from './hop-decision.ts'
import { nextLook } from './next-look.ts'

const ENDED = stateList(ENDED_STATES)

/** Over which storage the transfer of the statement goes, and the last error there where that failed it. */
export const VIA = `(SELECT rses.name || CASE transfers.state WHEN 'FAILED' THEN coalesce((SELECT ': ' || code || ': ' || message
          FROM attempts WHERE attempts.transfer_id = hops.carrier_id AND code IS NOT NULL ORDER BY fence DESC LIMIT 1), '') ELSE '' END
     FROM hops JOIN replicas AS intermediate ON intermediate.id = hops.replica_id JOIN rses ON rses.id = intermediate.rse_id
    WHERE transfers.reason IN ('MULTIHOP', 'HOP_FAILED') AND hops.transfer_id = transfers.id ORDER BY hops.id DESC LIMIT 1)`

/**
 * These transfers have ended: whoever goes over what they bring, and what they go over, is looked at next. Their rows are locked;
 * the intermediate replicas are not, which come before them (docs/decisions/0011).
 */
export async function markHops(executor: Executor, transferIds: readonly number[]): Promise<void> {
  if (transferIds.length === 0) return
  await query(
    executor,
    `UPDATE hops SET look_at = 0 WHERE look_at > 0
        AND (transfer_id ${oneOf(executor, 'ids')} OR carrier_id ${oneOf(executor, 'ids')})`,
    { ids: encodeRows(transferIds) },
  )
}

/** These intermediate replicas, whose rows are locked, were lost: whoever goes over them is looked at next. */
export async function markHopsOver(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (replicaIds.length === 0) return
  await query(executor, `UPDATE hops SET look_at = 0 WHERE look_at > 0 AND replica_id ${oneOf(executor, 'replicas')}`, {
    replicas: encodeRows(replicaIds),
  })
}

/** Those of these transfers that still wait and that nobody else has under his hands; they are locked. */
export async function holdWaiting(executor: Executor, transferIds: readonly number[], now: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE state = 'WAITING' AND not_before <= :now AND id ${oneOf(executor, 'ids')}
      ORDER BY id ${skippingLocked(executor, 'transfers')}`,
    { ids: encodeRows(transferIds), now },
  )
  return rows.map(row => row.id)
}

/** The open transfers to these replicas. They are locked. */
export async function holdCarriers(
  executor: Executor,
  replicaIds: readonly number[],
): Promise<{ id: number; replica_id: number; source_set_id: number | null }[]> {
  const found = await query<{ id: number; replica_id: number; source_set_id: number | null }>(
    executor,
    `SELECT id, replica_id, source_set_id FROM transfers WHERE replica_id ${oneOf(executor, 'replicas')} AND state NOT IN (${ENDED})`,
    { replicas: encodeRows(replicaIds) },
  )
  await lockRows(
    executor,
    'transfers',
    found.map(row => row.id),
  )
  return found
}

/** What these transfers wait for, and what that waits for in turn. */
export async function waitsOf(executor: Executor, transferIds: readonly number[]): Promise<Wait[]> {
  if (transferIds.length === 0) return []
  return query<Wait>(
    executor,
    `WITH RECURSIVE waits (transfer, carrier) AS (
       SELECT transfer_id, carrier_id FROM hops WHERE look_at IS NOT NULL AND transfer_id ${oneOf(executor, 'ids')}
       UNION SELECT hops.transfer_id, hops.carrier_id FROM waits
         JOIN hops ON hops.transfer_id = waits.carrier AND hops.look_at IS NOT NULL)
     SELECT transfer, carrier FROM waits`,
    { ids: encodeRows(transferIds) },
  )
}

/** Locks intermediate replicas, which open transfers bring, for who waits for them. Those rows are locked; a lock is made once. */
export async function insertHops(
  executor: Executor,
  hops: readonly { transfer_id: number; replica_id: number }[],
  now: number,
): Promise<void> {
  const made = await query<{ replica_id: number }>(
    executor,
    `INSERT INTO hops (transfer_id, replica_id, carrier_id, created_at, expires_at, look_at)
     SELECT given.transfer_id, given.replica_id, carriers.id, :now, :until, :until
       FROM ${recordset(executor, 'rows', { transfer_id: 'bigint', replica_id: 'bigint' })} AS given
       JOIN transfers AS carriers ON carriers.replica_id = given.replica_id AND carriers.state NOT IN (${ENDED})
      WHERE true ON CONFLICT DO NOTHING RETURNING replica_id`,
    { now, until: now + HOP_MS, rows: encodeRows(hops) },
  )
  await query(
    executor,
    `UPDATE replicas SET lock_count = lock_count + given.hops, tombstone_at = NULL, purge = false
       FROM ${COUNTED(executor)} AS given WHERE replicas.id = given.id`,
    { rows: encodeRows(countedByReplica(made)) },
  )
}

const COUNTED = (executor: Executor): string => recordset(executor, 'rows', { id: 'bigint', hops: 'bigint' })

function countedByReplica(rows: readonly { replica_id: number }[]): { id: number; hops: number }[] {
  const counts = new Map<number, number>()
  for (const { replica_id } of rows) counts.set(replica_id, (counts.get(replica_id) ?? 0) + 1)
  return [...counts].map(([id, hops]) => ({ id, hops }))
}

/** Replicas that were made in this transaction, and that nobody goes over after all. */
export async function dropUnused(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  await query(
    executor,
    `DELETE FROM replicas WHERE id ${oneOf(executor, 'replicas')}
        AND NOT EXISTS (SELECT 1 FROM transfers WHERE transfers.replica_id = replicas.id)`,
    { replicas: encodeRows(replicaIds) },
  )
}

/** These transfers wait for what is on its way to a storage between. Their rows are locked. */
export async function waitForHops(executor: Executor, transferIds: readonly number[], now: number): Promise<void> {
  const look = nextLook(now)
  await query(
    executor,
    `UPDATE transfers SET reason = 'MULTIHOP', updated_at = :now, not_before = ${look.sql}
      WHERE state = 'WAITING' AND id ${oneOf(executor, 'ids')}`,
    { ids: encodeRows(transferIds), now, ...look.bindings },
  )
}

/** What is on its way for these transfers is wanted by them no more. Their rows are locked. */
export async function expirePending(executor: Executor, transferIds: readonly number[]): Promise<void> {
  if (transferIds.length === 0) return
  await query(
    executor,
    `UPDATE hops SET expires_at = 0, look_at = 0 WHERE look_at IS NOT NULL AND transfer_id ${oneOf(executor, 'ids')}
        AND (SELECT state FROM replicas WHERE replicas.id = hops.replica_id) <> 'AVAILABLE'`,
    { ids: encodeRows(transferIds) },
  )
}

export interface HopRow {
  readonly id: number
  readonly transfer_id: number
  readonly replica_id: number
  readonly carrier_id: number
}

export async function dueHops(read: Executor, now: number, limit: number): Promise<HopRow[]> {
  return query(
    read,
    'SELECT id, transfer_id, replica_id, carrier_id FROM hops WHERE look_at <= :now ORDER BY look_at, id LIMIT :limit',
    { now, limit },
  )
}

export interface HeldHop extends HopRow {
  readonly expires_at: number
  readonly look_at: number
  readonly parent: TransferState
  readonly carrier: TransferState
  readonly there: number | boolean
}

/** Of these those that still lock something, with what decides how long. */
export async function heldHops(executor: Executor, hopIds: readonly number[]): Promise<HeldHop[]> {
  return query(
    executor,
    `SELECT hops.id, hops.transfer_id, hops.replica_id, hops.carrier_id, hops.expires_at, hops.look_at, parents.state AS parent,
            carriers.state AS carrier, replicas.state = 'AVAILABLE' AS there
       FROM hops JOIN transfers AS parents ON parents.id = hops.transfer_id
       JOIN transfers AS carriers ON carriers.id = hops.carrier_id JOIN replicas ON replicas.id = hops.replica_id
      WHERE hops.look_at IS NOT NULL AND hops.id ${oneOf(executor, 'hops')}`,
    { hops: encodeRows(hopIds) },
  )
}

/** Takes these locks away. The replicas that nobody holds any more, which get a tombstone. */
export async function releaseHops(executor: Executor, hopIds: readonly number[], now: number): Promise<number[]> {
  if (hopIds.length === 0) return []
  const gone = await query<{ replica_id: number }>(
    executor,
    `UPDATE hops SET look_at = NULL WHERE look_at IS NOT NULL AND id ${oneOf(executor, 'hops')} RETURNING replica_id`,
    { hops: encodeRows(hopIds) },
  )
  const rows = await query<{ id: number; lock_count: number }>(
    executor,
    `UPDATE replicas SET lock_count = lock_count - given.hops,
            tombstone_at = CASE WHEN lock_count = given.hops THEN :now ELSE tombstone_at END
       FROM ${COUNTED(executor)} AS given WHERE replicas.id = given.id RETURNING replicas.id, lock_count`,
    { now, rows: encodeRows(countedByReplica(gone)) },
  )
  return rows.map(row => row.id)
}

/** When these locks are looked at next. */
export async function keepHops(
  executor: Executor,
  hops: readonly { id: number; expires_at: number; look_at: number }[],
): Promise<void> {
  if (hops.length === 0) return
  await query(
    executor,
    `UPDATE hops SET expires_at = given.expires_at, look_at = given.look_at
       FROM ${recordset(executor, 'rows', { id: 'bigint', expires_at: 'bigint', look_at: 'bigint' })} AS given WHERE hops.id = given.id`,
    { rows: encodeRows(hops) },
  )
}

/** Those of these transfers that wait for a hop are planned next. */
export async function wakeWaiting(executor: Executor, transferIds: readonly number[]): Promise<void> {
  await query(
    executor,
    `UPDATE transfers SET not_before = 0 WHERE state = 'WAITING' AND reason = 'MULTIHOP' AND id ${oneOf(executor, 'ids')}`,
    { ids: encodeRows(transferIds) },
  )
}
