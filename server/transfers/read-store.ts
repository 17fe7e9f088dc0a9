import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Binding, type Executor, encodeRows, keyset, query } from '../database/sql.ts'
import { usable } from '../tokens/grant-store.ts'
import type { ClaimedRow } from './claim-places.ts'
import { VIA } from './hop-store.ts'
import type { Mode } from './modes.ts'

export interface ShownTransfer {
  id: number
  vo_id: number
  did: string
  state: string
  reason: string | null
  /** TOKEN_REFUSED or TOKEN_AWAITED, and the error if there was one. */
  awaits_token: string | null
  /** ENDPOINT_HELD, and the source's last failure. */
  awaits_source: string | null
  /** The storage that it goes over, and what failed there. */
  via: string | null
  /** The first of the transfers that this one brings their file nearer. */
  hop_of: number | null
  /** Of the last attempt that had one: `CODE: words`. */
  last_error: string | null
  bytes: number
  bytes_done: number
  attempts: number
  not_before: number
  activity: string
  priority: number
  source_rse_id: number | null
  destination_rse_id: number
  created_at: number
  updated_at: number
  replanned_at: number | null
  replanned_from: number | null
  replan_code: string | null
  replan_message: string | null
}

/** With what holds up its bundle: a queued transfer may wait for nothing but a token. */
const SHOWN = `SELECT transfers.id, transfers.vo_id, scopes.name || ':' || dids.name AS did, transfers.state, transfers.reason,
    transfers.bytes, transfers.bytes_done, transfers.attempts, transfers.not_before, transfers.activity, transfers.priority,
    transfers.source_rse_id, transfers.destination_rse_id, transfers.created_at, transfers.updated_at,
    (SELECT CASE grants.state WHEN 'HELD' THEN 'TOKEN_REFUSED' ELSE 'TOKEN_AWAITED' END
            || coalesce(' (' || grants.error || ')', '')
       FROM bundles JOIN grants ON grants.id IN (bundles.source_grant_id, bundles.destination_grant_id)
      WHERE transfers.state = 'QUEUED' AND bundles.id = transfers.bundle_id AND NOT ${usable('grants')}
      ORDER BY grants.state <> 'HELD', grants.error IS NULL LIMIT 1) AS awaits_token,
    (SELECT 'ENDPOINT_HELD (' || link_health.code || ': ' || link_health.message || ')' FROM link_health
      WHERE transfers.state = 'QUEUED' AND link_health.link_id = transfers.link_id AND link_health.held_until > 0) AS awaits_source,
    ${VIA} AS via, (SELECT min(hops.transfer_id) FROM hops WHERE hops.carrier_id = transfers.id) AS hop_of,
    replans.at AS replanned_at, replans.source_rse_id AS replanned_from, replans.code AS replan_code,
    replans.message AS replan_message,
    (SELECT attempts.code || ': ' || coalesce(attempts.message, '') FROM attempts
      WHERE attempts.transfer_id = transfers.id AND attempts.code IS NOT NULL ORDER BY attempts.fence DESC LIMIT 1) AS last_error
  FROM transfers JOIN replicas ON replicas.id = transfers.replica_id JOIN dids ON dids.id = replicas.file_id
  JOIN scopes ON scopes.id = dids.scope_id LEFT JOIN replans ON replans.id = transfers.replan_id`

export async function showTransfer(read: Executor, id: number): Promise<ShownTransfer | undefined> {
  return (await query<ShownTransfer>(read, `${SHOWN} WHERE transfers.id = :id`, { id }))[0]
}

export interface TransferFilter {
  readonly state?: string | undefined
  readonly sourceId?: number | undefined
  readonly destinationId?: number | undefined
  readonly after: number
  readonly limit: number
}

/** Clauses only for what is filtered by: PostgreSQL plans a statement once for all values. */
function filtered({ state, sourceId, destinationId, after, limit }: TransferFilter) {
  const clauses = [
    state === undefined ? '' : 'AND transfers.state = :state',
    sourceId === undefined ? '' : 'AND transfers.source_rse_id = :sourceId',
    destinationId === undefined ? '' : 'AND transfers.destination_rse_id = :destinationId',
  ]
  return {
    where: `transfers.id > :after ${clauses.join(' ')}`,
    bindings: { after, limit, ...given({ state, sourceId, destinationId }) },
  }
}

function given(bindings: Readonly<Record<string, Binding | undefined>>): Record<string, Binding> {
  return Object.fromEntries(
    Object.entries(bindings).filter((entry): entry is [string, Binding] => entry[1] !== undefined),
  )
}

export async function listTransfers(read: Executor, sight: Sight, filter: TransferFilter): Promise<ShownTransfer[]> {
  const seen = withinReach(read, sight, { vo: 'transfers.vo_id' })
  const { where, bindings } = filtered(filter)
  return query(read, `${SHOWN} WHERE ${where}${seen} ORDER BY transfers.id LIMIT :limit`, {
    ...bindings,
    ...reachBindings(sight),
  })
}

/** The transfers to the replicas that a rule has locked. */
export async function listTransfersOfRule(
  read: Executor,
  ruleId: number,
  filter: TransferFilter,
): Promise<ShownTransfer[]> {
  const { where, bindings } = filtered(filter)
  return query(
    read,
    `${SHOWN} JOIN locks ON locks.replica_id = transfers.replica_id AND locks.rule_id = :ruleId
      WHERE ${where} ORDER BY transfers.id LIMIT :limit`,
    { ...bindings, ruleId },
  )
}

export interface ShownAttempt {
  source_rse_id: number | null
  mode: string | null
  outcome: string
  started_at: number
  ended_at: number
  bytes: number
  source_grant_id: number | null
  destination_grant_id: number | null
  scope: string | null
  phase: string | null
  code: string | null
  message: string | null
}

export async function attemptsOf(read: Executor, transferId: number): Promise<ShownAttempt[]> {
  return query(read, 'SELECT * FROM attempts WHERE transfer_id = :transferId ORDER BY id', { transferId })
}

/** All that a worker needs to drive a claimed transfer, but tokens. */
export interface WorkerTransfer {
  id: number
  fence: number
  state: string
  did: string
  bytes: number
  adler32: string | null
  md5: string | null
  attempts: number
  /** Of its link, where modes are chosen; null: nothing is known. */
  preferred_mode: Mode | null
  mode_tries: number | null
  source_rse_id: number
  source_directory: string
  source_name: string
  source_grant_id: number | null
  destination_rse_id: number
  destination_directory: string
  destination_name: string
  destination_grant_id: number | null
}

/**
 * The keys come first: PostgreSQL keeps the order in which more than eight tables are joined (`join_collapse_limit`), and put
 * the keys last, after joining all transfers there are.
 */
export async function describeClaimed(executor: Executor, claimed: readonly ClaimedRow[]): Promise<WorkerTransfer[]> {
  if (claimed.length === 0) return []
  return query<WorkerTransfer>(
    executor,
    `SELECT transfers.id, transfers.fence, transfers.state, scopes.name || ':' || dids.name AS did, dids.bytes, dids.adler32,
            dids.md5, transfers.attempts, link_tuning.preferred_mode, link_tuning.mode_tries, transfers.source_rse_id, source_directory.path AS source_directory, source.name AS source_name,
            bundles.source_grant_id, transfers.destination_rse_id, own_directory.path AS destination_directory,
            own.name AS destination_name, bundles.destination_grant_id
       FROM ${keyset(executor, 'ids')} AS claimed JOIN transfers ON transfers.id = claimed.value
       JOIN bundles ON bundles.id = transfers.bundle_id
       JOIN replicas AS own ON own.id = transfers.replica_id
       JOIN directories AS own_directory ON own_directory.id = own.directory_id
       JOIN replicas AS source ON source.id = transfers.source_replica_id
       JOIN directories AS source_directory ON source_directory.id = source.directory_id
       JOIN dids ON dids.id = own.file_id JOIN scopes ON scopes.id = dids.scope_id
       LEFT JOIN links ON links.id = transfers.link_id AND links.optimize
       LEFT JOIN link_tuning ON link_tuning.link_id = links.id
      ORDER BY transfers.id`,
    { ids: encodeRows(claimed.map(row => row.id)) },
  )
}
