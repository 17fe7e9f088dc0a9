import type { TransferState } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'
import { ALLOWED, REFUSED, SOURCES } from './sources.ts'

/** A transfer that goes, or may go, over another storage. */
export interface Wayfarer {
  readonly id: number
  readonly replica_id: number
  readonly file_id: number
  /** Its destination. */
  readonly storage: number
  readonly vo_id: number
  readonly account_id: number
  readonly activity: string
  readonly priority: number
  /** Null: its file may come from anywhere. */
  readonly source_set_id: number | null
}

const WAYFARER = `transfers.id, transfers.replica_id, own.file_id, own.rse_id AS storage, transfers.vo_id, transfers.account_id, transfers.activity,
  transfers.priority, transfers.source_set_id FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id`

export async function findWayfarers(read: Executor, transferIds: readonly number[]): Promise<Wayfarer[]> {
  return query(read, `SELECT ${WAYFARER} WHERE transfers.id ${oneOf(read, 'ids')} ORDER BY transfers.id`, {
    ids: encodeRows(transferIds),
  })
}

/**
 * Those of these transfers that are due, and to which something may be written. Only what a rule wants goes over other storages:
 * what a hop alone wants must not make others.
 */
export async function dueWayfarers(read: Executor, transferIds: readonly number[], now: number): Promise<Wayfarer[]> {
  return query(
    read,
    `SELECT ${WAYFARER} JOIN rses ON rses.id = own.rse_id AND rses.availability_write
      WHERE transfers.state = 'WAITING' AND transfers.not_before <= :now AND transfers.id ${oneOf(read, 'ids')}
        AND EXISTS (SELECT 1 FROM locks WHERE locks.replica_id = own.id) ORDER BY transfers.id`,
    { ids: encodeRows(transferIds), now },
  )
}

/** Those of these transfers that have a source at a linked storage, and whether each of them has refused its file. */
export async function directSources(read: Executor, transferIds: readonly number[]) {
  return query<{ id: number; refused: number | boolean }>(
    read,
    `SELECT id, min(CASE WHEN refused THEN 1 ELSE 0 END) AS refused FROM
       (SELECT transfers.id, ${REFUSED} AS refused FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id ${SOURCES}
         WHERE transfers.id ${oneOf(read, 'ids')} AND ${ALLOWED}) AS sources GROUP BY id`,
    { ids: encodeRows(transferIds) },
  )
}

/** Where the files of these transfers are AVAILABLE and readable, and may be taken from. */
export async function sourcesOf(read: Executor, transferIds: readonly number[]) {
  return query<{ id: number; storage: number }>(
    read,
    `SELECT transfers.id, source.rse_id AS storage FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id
       JOIN replicas AS source ON source.file_id = own.file_id AND source.state = 'AVAILABLE'
       JOIN rses ON rses.id = source.rse_id AND rses.availability_read
      WHERE transfers.id ${oneOf(read, 'ids')} AND ${ALLOWED} ORDER BY transfers.id, source.rse_id`,
    { ids: encodeRows(transferIds) },
  )
}

export interface TriedHop {
  readonly transfer_id: number
  readonly storage: number
  readonly held: number | boolean
  readonly there: number | boolean
  readonly carrier: TransferState
}

/** The ways that these transfers took so far, and take. */
export async function triedHops(read: Executor, transferIds: readonly number[]): Promise<TriedHop[]> {
  return query(
    read,
    `SELECT hops.transfer_id, intermediate.rse_id AS storage, hops.look_at IS NOT NULL AS held,
            intermediate.state = 'AVAILABLE' AS there, carriers.state AS carrier
       FROM hops JOIN replicas AS intermediate ON intermediate.id = hops.replica_id
       JOIN transfers AS carriers ON carriers.id = hops.carrier_id
      WHERE hops.transfer_id ${oneOf(read, 'ids')} ORDER BY hops.id`,
    { ids: encodeRows(transferIds) },
  )
}

/**
 * The links on which what should have brought these transfers' files nearer failed for good. Nobody need have seen it fail: where a
 * connection was cut and then nothing lay there, no attempt has the outcome `failed`.
 */
export async function failedLinks(read: Executor, transferIds: readonly number[]) {
  return query<{ transfer_id: number; source: number; destination: number }>(
    read,
    `SELECT DISTINCT hops.transfer_id, attempts.source_rse_id AS source, carriers.destination_rse_id AS destination
       FROM hops JOIN transfers AS carriers ON carriers.id = hops.carrier_id AND carriers.state = 'FAILED'
       JOIN attempts ON attempts.transfer_id = carriers.id AND attempts.code IS NOT NULL AND attempts.code <> 'INTERRUPTED'
        AND attempts.source_rse_id IS NOT NULL
      WHERE hops.transfer_id ${oneOf(read, 'ids')}`,
    { ids: encodeRows(transferIds) },
  )
}

export interface OpenLink {
  readonly source_rse_id: number
  readonly destination_rse_id: number
  readonly distance: number
  readonly held: number | boolean
}

/** All links, and the storages of each VO to which nothing can be sent now. */
export async function findNetwork(read: Executor) {
  const links = await query<OpenLink>(
    read,
    `SELECT source_rse_id, destination_rse_id, distance, coalesce(link_health.held_until, 0) > 0 AS held
       FROM links LEFT JOIN link_health ON link_health.link_id = links.id WHERE distance > 0`,
  )
  const full = await query<{ vo_id: number; rse_id: number }>(
    read,
    'SELECT vo_id, rse_id FROM destination_health WHERE held_until > 0',
  )
  return { links, full }
}

/** The dataset that each of these files is in, the oldest of several: as `scope` and `name`. */
export async function datasetsOf(read: Executor, fileIds: readonly number[]) {
  const rows = await query<{ file_id: number; scope: string; name: string }>(
    read,
    `SELECT first.file_id, scopes.name AS scope, dids.name FROM
       (SELECT child_id AS file_id, min(parent_id) AS id FROM contents WHERE child_id ${oneOf(read, 'files')} GROUP BY child_id) AS first
       JOIN dids ON dids.id = first.id JOIN scopes ON scopes.id = dids.scope_id`,
    { files: encodeRows(fileIds) },
  )
  return new Map(rows.map(({ file_id, ...dataset }) => [file_id, dataset]))
}

export interface Place {
  readonly file_id: number
  readonly rse_id: number
}

export interface PlacedReplica extends Place {
  readonly id: number
  readonly state: string
}

export async function replicasAt(executor: Executor, places: readonly Place[]): Promise<PlacedReplica[]> {
  return query(
    executor,
    `SELECT replicas.id, replicas.file_id, replicas.rse_id, replicas.state
       FROM ${recordset(executor, 'rows', { file_id: 'bigint', rse_id: 'bigint' })} AS given
       JOIN replicas ON replicas.file_id = given.file_id AND replicas.rse_id = given.rse_id`,
    { rows: encodeRows(places) },
  )
}
