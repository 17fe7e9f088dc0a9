import type { GrantState } from '../../shared/domain/grant-state.ts'
import { ACTIVE_STATES, ENDED_STATES, type TransferState } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, keyset, oneOf, query, queryOne, stateList } from '../database/sql.ts'
import { longLived, usable } from '../tokens/grant-store.ts'
import { AHEAD } from '../tokens/unplanned.ts'
import { VIA } from './hop-store.ts'
import { ALLOWED } from './sources.ts'
import { DESTINATION_ROOM, LINK_LIMIT, MAX_ACTIVE, takenBy } from './trials.ts'

const ACTIVE = stateList(ACTIVE_STATES)
const ENDED = stateList(ENDED_STATES)

/** What is read for `whyOf`: each statement once for a whole set, by keys and their indexes, and counts that end. */

/** Whose transfer it is; undefined: there is none. */
export async function voOfTransfer(read: Executor, id: number): Promise<number | undefined> {
  const row = await queryOne<{ vo_id: number }>(read, 'SELECT vo_id FROM transfers WHERE id = :id', { id })
  return row?.vo_id
}

export interface WhyTransferRow {
  id: number
  did: string
  vo_id: number
  state: TransferState
  activity: string
  attempts: number
  not_before: number
  bytes: number
  bytes_done: number
  cancel_requested: number | boolean
  updated_at: number
  source_rse_id: number | null
  destination_rse_id: number
  link_id: number | null
  bundle_id: number | null
  /** Queued in the same bundle, and before it. */
  earlier: number
  permit_until: number | null
  permit_transfer: number | null
  claimed_at: number | null
  worker: string | null
  session_ends: number | null
  error_code: string | null
  error_message: string | null
  reason: string | null
  /** From where its file may come; null: from anywhere. */
  sources: string | null
  /** The storage that it goes over, or that failed it there; and the transfer to it. */
  via: string | null
  hop: number | null
  tape_state: string | null
  tape_since: number | null
  tape_error: string | null
  tape_next: number | null
}

/** The keys come first, as in `describeClaimed`. */
export async function transferRows(
  read: Executor,
  ids: readonly number[],
  counted: number,
  now: number,
): Promise<WhyTransferRow[]> {
  return query(
    read,
    `SELECT transfers.id, scopes.name || ':' || dids.name AS did, transfers.vo_id, transfers.state, transfers.activity,
            transfers.attempts, transfers.not_before, transfers.bytes, transfers.bytes_done, transfers.cancel_requested,
            transfers.updated_at, transfers.source_rse_id, transfers.destination_rse_id, transfers.link_id, transfers.bundle_id,
            CASE WHEN transfers.state <> 'QUEUED' THEN 0 ELSE (SELECT count(*) FROM (SELECT 1 FROM transfers AS other
              WHERE other.bundle_id = transfers.bundle_id AND other.state = 'QUEUED' AND other.id < transfers.id
              LIMIT :counted) AS found) END AS earlier,
            permits.until AS permit_until, permits.transfer_id AS permit_transfer, transfers.claimed_at, sessions.worker,
            CASE WHEN sessions.ended_at IS NULL THEN sessions.expires_at ELSE 0 END AS session_ends,
            ${VIA} AS via, (SELECT hops.carrier_id FROM hops WHERE hops.transfer_id = transfers.id
              AND hops.look_at IS NOT NULL AND transfers.reason = 'MULTIHOP' ORDER BY hops.id DESC LIMIT 1) AS hop,
            transfers.reason, source_sets.expression AS sources, last.code AS error_code, last.message AS error_message, item.state AS tape_state, item.at AS tape_since,
            coalesce(item.error, tasks.error) AS tape_error, tasks.not_before AS tape_next
       FROM ${keyset(read, 'ids')} AS asked JOIN transfers ON transfers.id = asked.value
       JOIN replicas ON replicas.id = transfers.replica_id JOIN dids ON dids.id = replicas.file_id
       JOIN scopes ON scopes.id = dids.scope_id
       LEFT JOIN permits ON permits.directory_id = replicas.directory_id AND permits.name = replicas.name AND permits.until > :now
       LEFT JOIN sessions ON sessions.id = transfers.session_id
       LEFT JOIN source_sets ON source_sets.id = transfers.source_set_id
       LEFT JOIN task_items AS item ON item.replica_id = CASE transfers.state WHEN 'STAGING' THEN transfers.source_replica_id
         WHEN 'ARCHIVING' THEN transfers.replica_id END
       LEFT JOIN tasks ON tasks.id = item.task_id
       LEFT JOIN attempts AS last ON last.id = (SELECT id FROM attempts
         WHERE attempts.transfer_id = transfers.id AND attempts.code IS NOT NULL ORDER BY attempts.fence DESC LIMIT 1)
      ORDER BY transfers.id`,
    { ids: encodeRows(ids), counted, now },
  )
}

export interface WhyReplicaRow {
  transfer_id: number
  storage: string
  state: string
  availability_read: number | boolean
  linked: number | boolean
  /** Its transfer may take the file from there. */
  allowed: number | boolean
  total: number
}

/** The other replicas of these transfers' files: up to `most` of each, those that can be used first. */
export async function replicaRows(read: Executor, ids: readonly number[], most: number): Promise<WhyReplicaRow[]> {
  if (ids.length === 0) return []
  const linked = 'coalesce(links.distance, 0) > 0'
  return query(
    read,
    `SELECT * FROM (
       SELECT transfers.id AS transfer_id, rses.name AS storage, source.state, rses.availability_read, ${linked} AS linked, ${ALLOWED} AS allowed,
              count(*) OVER (PARTITION BY transfers.id) AS total,
              row_number() OVER (PARTITION BY transfers.id ORDER BY CASE WHEN source.state = 'AVAILABLE'
                AND rses.availability_read AND ${linked} AND ${ALLOWED} THEN 0 WHEN ${ALLOWED} THEN 1 ELSE 2 END, rses.name) AS place
         FROM ${keyset(read, 'ids')} AS asked JOIN transfers ON transfers.id = asked.value
         JOIN replicas AS own ON own.id = transfers.replica_id
         JOIN replicas AS source ON source.file_id = own.file_id AND source.id <> own.id
         JOIN rses ON rses.id = source.rse_id
         LEFT JOIN links ON links.source_rse_id = source.rse_id AND links.destination_rse_id = own.rse_id
     ) AS ranked WHERE place <= :most ORDER BY transfer_id, place`,
    { ids: encodeRows(ids), most },
  )
}

export interface WhyGrantRow {
  id: number
  state: GrantState
  error: string | null
  not_before: number
  usable: number | boolean
  long_lived: number | boolean
}

/** With the queue of their link: `urgent` of a higher priority, `sooner` of the same. */
export interface WhyBundleRow {
  id: number
  source_grant_id: number | null
  destination_grant_id: number | null
  urgent: number
  sooner: number
  ahead: number
}

/** Only what could be claimed now stands before another. */
export async function bundleRows(
  read: Executor,
  ids: readonly number[],
  counted: number,
  now: number,
): Promise<WhyBundleRow[]> {
  if (ids.length === 0) return []
  const ready = 'bundles.link_id = own.link_id AND bundles.has_work AND bundles.ready'
  const queued = (where: string): string => `(SELECT count(*) FROM (SELECT 1 FROM bundles
      JOIN transfers ON transfers.bundle_id = bundles.id AND transfers.state = 'QUEUED'
     WHERE ${ready} AND ${where} AND ${takenBy('links.destination_rse_id')} LIMIT :counted) AS found)`
  return query(
    read,
    `SELECT own.id, own.source_grant_id, own.destination_grant_id,
            ${queued('bundles.priority > own.priority')} AS urgent,
            ${queued(`bundles.priority = own.priority AND (bundles.served_at < own.served_at
              OR (bundles.served_at = own.served_at AND bundles.id < own.id))`)} AS sooner,
            (SELECT count(*) FROM (SELECT 1 FROM bundles WHERE ${ready} AND bundles.priority >= own.priority
                AND bundles.vo_id = own.vo_id AND bundles.activity = own.activity
              LIMIT ${AHEAD}) AS found) AS ahead
       FROM bundles AS own JOIN links ON links.id = own.link_id WHERE own.id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(ids), counted, now },
  )
}

export async function grantRows(read: Executor, ids: readonly number[], now: number): Promise<WhyGrantRow[]> {
  if (ids.length === 0) return []
  return query(
    read,
    `SELECT id, state, error, not_before, ${usable('grants')} AS usable, ${longLived('grants')} AS long_lived
       FROM grants WHERE id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(ids), now },
  )
}

/** Null where nothing has failed. */
interface HoldColumns {
  since: number | null
  held_until: number | null
  successes: number | null
  code: string | null
  message: string | null
}

export interface WhyLinkRow extends HoldColumns {
  id: number
  distance: number
  active: number
  /** What it may have now, as `claimOnLink` reads it. */
  claim_limit: number
  /** The same, if its source were well. */
  max_active: number
}

export async function linkRows(read: Executor, ids: readonly number[], now: number): Promise<WhyLinkRow[]> {
  if (ids.length === 0) return []
  return query(
    read,
    `SELECT links.id, links.distance, ${LINK_LIMIT} AS max_active, ${MAX_ACTIVE} AS claim_limit,
            (SELECT count(*) FROM transfers WHERE transfers.link_id = links.id AND state IN (${ACTIVE})) AS active,
            link_health.since, link_health.held_until, link_health.successes, link_health.code, link_health.message
       FROM links LEFT JOIN link_health ON link_health.link_id = links.id AND link_health.held_until > 0
      WHERE links.id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(ids), now },
  )
}

export interface WhyDestinationRow extends HoldColumns {
  vo_id: number
  rse_id: number
  room: number
}

export async function destinationRows(
  read: Executor,
  rseIds: readonly number[],
  now: number,
): Promise<WhyDestinationRow[]> {
  return query(
    read,
    `SELECT vo_id, rse_id, since, held_until, successes, code, message, ${DESTINATION_ROOM} AS room
       FROM destination_health WHERE held_until > 0 AND rse_id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(rseIds), now },
  )
}

export interface WhyStorageRow {
  id: number
  name: string
  availability_read: number | boolean
  availability_write: number | boolean
}

export async function storageRows(read: Executor, ids: readonly number[]): Promise<WhyStorageRow[]> {
  return query(
    read,
    `SELECT id, name, availability_read, availability_write FROM rses WHERE id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(ids) },
  )
}

export interface WhySessionRow {
  issuer: string
  client: string
  drained_at: number | null
  busy: number
}

/** Those that live, and how many transfers each has. */
export async function sessionRows(read: Executor, now: number): Promise<WhySessionRow[]> {
  return query(
    read,
    `SELECT issuer, client, drained_at,
            (SELECT count(*) FROM transfers WHERE transfers.session_id = sessions.id) AS busy
       FROM sessions JOIN workers USING (issuer, client, worker) WHERE ended_at IS NULL AND expires_at > :now`,
    { now },
  )
}

/** The open transfers for the locks of a rule that are not there yet, in the order of their replicas. */
export async function openOfRule(read: Executor, ruleId: number, limit: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    read,
    `SELECT transfers.id FROM locks JOIN transfers ON transfers.replica_id = locks.replica_id AND transfers.state NOT IN (${ENDED})
      WHERE locks.rule_id = :ruleId AND locks.state = 'REPLICATING' ORDER BY locks.replica_id LIMIT :limit`,
    { ruleId, limit },
  )
  return rows.map(row => row.id)
}
