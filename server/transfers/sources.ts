import { ENDED_STATES } from '../../shared/domain/transfer-state.ts'
import { stateList } from '../database/sql.ts'

/** Where the file of the replica `own` can be had: what is AVAILABLE, readable and linked, while `own` can be written. */
export const SOURCES = `JOIN directories AS own_directory ON own_directory.id = own.directory_id
         JOIN rses AS own_rse ON own_rse.id = own.rse_id AND own_rse.availability_write
         JOIN replicas AS source ON source.file_id = own.file_id AND source.state = 'AVAILABLE'
         JOIN rses ON rses.id = source.rse_id AND rses.availability_read
         JOIN links ON links.source_rse_id = source.rse_id AND links.destination_rse_id = own.rse_id AND links.distance > 0
         JOIN directories AS source_directory ON source_directory.id = source.directory_id`

/**
 * Whether the replica `replica` of the statement may be the source of what has the source set `set`, an SQL expression: where there is
 * a set its storage is in it, or a hop of the same set brought it there, so that it is from such a storage.
 */
export function allowedBy(set: string, replica = 'source'): string {
  return `(${set} IS NULL
    OR EXISTS (SELECT 1 FROM source_set_members WHERE source_set_members.set_id = ${set} AND source_set_members.rse_id = ${replica}.rse_id)
    OR EXISTS (SELECT 1 FROM hops JOIN transfers AS carriers ON carriers.id = hops.carrier_id AND carriers.state = 'DONE'
                AND carriers.source_set_id = ${set} WHERE hops.replica_id = ${replica}.id AND hops.look_at IS NOT NULL))`
}

/** The same of the transfer of the statement. Every choice among `SOURCES` asks for it. */
export const ALLOWED = allowedBy('transfers.source_set_id')

/** The columns of a `Candidate` that its source decides. */
export const SOURCE_COLUMNS = `source.id AS source_replica_id, source.rse_id AS source_rse_id, links.id AS link_id,
              coalesce(source_directory.top_id, source_directory.id) AS source_directory_id,
              coalesce(own_directory.top_id, own_directory.id) AS destination_directory_id`

/** After a hold, how long a source on trial is left out where there is another: its own queue brings the trials. Milliseconds. */
const TRIAL_MS = 60_000
/**
 * Whether the source of the link `links` is held back, or on trial: such a one is taken only where there is no other. A trial that
 * nothing was queued for must come from new work, or it never ends. Binds `now`.
 */
export const HELD = `EXISTS (SELECT 1 FROM link_health WHERE link_health.link_id = links.id
  AND link_health.held_until > 0 AND link_health.held_until + ${TRIAL_MS} > :now)`

/** Whether the source has refused the transfer of the statement its file, which waiting does not change. */
export const REFUSED = `EXISTS (SELECT 1 FROM attempts WHERE attempts.transfer_id = transfers.id
                    AND attempts.source_rse_id = source.rse_id AND attempts.scope = 'SOURCE'
                    AND attempts.code IN ('SOURCE_MISSING', 'PERMISSION_DENIED', 'REQUEST_REFUSED', 'NOT_FOUND'))`

/**
 * How often the transfer of the statement failed from this source, by its fault or by nobody's: from a storage that is switched off
 * destinations see nothing but a stall, and another source is worth a try.
 */
export const PAST_FAILURES = `(SELECT count(*) FROM attempts WHERE attempts.transfer_id = transfers.id
                    AND attempts.source_rse_id = source.rse_id AND attempts.scope IN ('SOURCE', 'TRANSFER'))`

/**
 * Whether the file of the statement's replica `own` may be had somewhere that the source set `set` allows, now or later, without
 * anybody's doing but the uploader's: a storage has it, readable or not, or somebody is bringing it. What is BAD, or waits itself, is
 * none. Binds `now`.
 */
export function hopeBy(set: string): string {
  return `EXISTS (SELECT 1 FROM replicas AS other WHERE other.file_id = own.file_id AND ${allowedBy(set, 'other')}
  AND (other.state IN ('AVAILABLE', 'TEMPORARY_UNAVAILABLE')
    OR EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = other.id AND uploads.until > :now)
    OR EXISTS (SELECT 1 FROM transfers AS bringing WHERE bringing.replica_id = other.id
                AND bringing.state NOT IN ('WAITING', ${stateList(ENDED_STATES)}))))`
}
