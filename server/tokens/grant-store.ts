import type { GrantPurpose, GrantState } from '../../shared/domain/grant-state.ts'
import { grantsWithinReach, reachBindings, type WorkerReach } from '../accounts/reach.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, queryOne, recordset } from '../database/sql.ts'

export interface GrantRow {
  id: number
  issuer_id: number
  client: string
  vo_id: number
  rse_id: number
  audience: string
  purpose: GrantPurpose
  scopes: string
  state: GrantState
  generation: number
  exchanged: number | boolean
  sealed_access: string | null
  sealed_refresh: string | null
  expires_at: number
  lifetime_ms: number
  mints: number
  exchanges: number
  refreshes: number
  jti: string | null
  sha256: string | null
  lease_session_id: number | null
  lease_until: number
  not_before: number
  failures: number
  error: string | null
  refused_generation: number
  refused_at: number
}

/**
 * A grant that work may be claimed on: it has had a token that workers may use, and can be kept alive. One whose refresh
 * failed waits until it has been refreshed.
 */
export function usable(alias: string): string {
  return `(${alias}.state = 'LIVE' OR (${alias}.state = 'RENEWING' AND ${alias}.exchanged AND ${alias}.failures = 0))`
}

/** Of a token's life an operation wants so much, or half of it where it never was longer: as the workers do (worker/access.ts). */
const LIFE_WANTED_MS = 300_000

/**
 * A usable grant under which work can begin now: a worker refreshes what has a refresh token just in time, but what only the
 * server can mint again would keep the slots of whoever waits for it. Binds `:now`.
 */
export function longLived(alias: string): string {
  return `(${alias}.sealed_refresh IS NOT NULL OR ${alias}.expires_at - ${LIFE_WANTED_MS} > :now
    OR ${alias}.expires_at - ${alias}.lifetime_ms / 2 > :now)`
}

export interface GrantKey {
  readonly issuerId: number
  readonly client: string
  readonly voId: number
  readonly rseId: number
  readonly audience: string
  readonly purpose: GrantPurpose
  readonly scopes: readonly string[]
}

/** The grant of this key, made or wanted again. One for the whole fleet, whoever asks. */
export async function ensureGrant(executor: Executor, key: GrantKey, now: number): Promise<number> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO grants (issuer_id, client, vo_id, rse_id, audience, purpose, scopes, state, generation, exchanged, expires_at,
                         lifetime_ms, mints, exchanges, refreshes, lease_until, not_before, failures, refused_generation, refused_at,
                         wanted_at, created_at)
     VALUES (:issuerId, :client, :voId, :rseId, :audience, :purpose, :scopes, 'WANTED', 0, false, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
             :now, :now)
     ON CONFLICT (issuer_id, client, vo_id, rse_id, audience, purpose, scopes)
     DO UPDATE SET wanted_at = excluded.wanted_at, state = CASE grants.state WHEN 'EXPIRED' THEN 'WANTED' ELSE grants.state END
     RETURNING id`,
    { ...key, scopes: key.scopes.join(' '), now },
  )
  if (row === undefined) throw new Error('the grant was not inserted')
  return row.id
}

export async function findGrant(executor: Executor, id: number): Promise<GrantRow | undefined> {
  return queryOne<GrantRow>(executor, 'SELECT * FROM grants WHERE id = :id', { id })
}

/** Some whose tokens are good for longest. */
export async function lastLive(executor: Executor, limit: number): Promise<GrantRow[]> {
  return query<GrantRow>(executor, `SELECT * FROM grants WHERE state = 'LIVE' ORDER BY expires_at DESC LIMIT :limit`, {
    limit,
  })
}

export async function setBundleGrants(
  executor: Executor,
  rows: readonly { bundle: number; source: number; destination: number }[],
): Promise<void> {
  await lockRows(
    executor,
    'bundles',
    rows.map(row => row.bundle),
  )
  const set = recordset(executor, 'rows', { bundle: 'bigint', source: 'bigint', destination: 'bigint' })
  await query(
    executor,
    `UPDATE bundles SET source_grant_id = given.source, destination_grant_id = given.destination
       FROM ${set} AS given WHERE bundles.id = given.bundle`,
    { rows: encodeRows(rows) },
  )
}

/** The bundles that use these grants, locked: what is derived from both grants of one is not overtaken by the other. */
export async function bundlesOf(executor: Executor, grantIds: readonly number[]): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM bundles WHERE source_grant_id ${oneOf(executor, 'grants')}
        OR destination_grant_id ${oneOf(executor, 'grants')}`,
    { grants: encodeRows(grantIds) },
  )
  const ids = rows.map(row => row.id)
  await lockRows(executor, 'bundles', ids)
  return ids
}

/** Derives the hint `ready` of the bundles that use these grants. */
export async function refreshReady(executor: Executor, grantIds: readonly number[]): Promise<void> {
  const both = ['source_grant_id', 'destination_grant_id']
    .map(column => `EXISTS (SELECT 1 FROM grants WHERE grants.id = bundles.${column} AND ${usable('grants')})`)
    .join(' AND ')
  const bundles = await bundlesOf(executor, grantIds)
  await query(executor, `UPDATE bundles SET ready = (${both}) WHERE id ${oneOf(executor, 'bundles')}`, {
    bundles: encodeRows(bundles),
  })
}

/** Grants of an issuer that the server has to mint, or whose time of being held is over. */
export async function grantsToMint(read: Executor, issuerId: number, now: number, limit: number): Promise<GrantRow[]> {
  return query<GrantRow>(
    read,
    `SELECT * FROM grants WHERE state IN ('WANTED', 'HELD') AND issuer_id = :issuerId AND not_before <= :now
        AND lease_until <= :now
      ORDER BY not_before, id LIMIT :limit`,
    { issuerId, now, limit },
  )
}

/** Grants of an issuer with work that can be claimed, but for a token that lives longer: only the server can mint it. */
export async function grantsToMintAnew(
  read: Executor,
  issuerId: number,
  now: number,
  limit: number,
): Promise<GrantRow[]> {
  const wanted = ['source_grant_id', 'destination_grant_id'].map(
    column =>
      `EXISTS (SELECT 1 FROM bundles WHERE bundles.${column} = grants.id AND bundles.has_work AND bundles.ready)`,
  )
  return query<GrantRow>(
    read,
    `SELECT * FROM grants WHERE state = 'LIVE' AND expires_at <= :soon AND NOT ${longLived('grants')}
        AND issuer_id = :issuerId AND lease_until <= :now AND (${wanted.join(' OR ')})
      ORDER BY expires_at LIMIT :limit`,
    { issuerId, now, soon: now + LIFE_WANTED_MS, limit },
  )
}

const REACHED = { vo: 'vo_id', rse: 'rse_id', purpose: 'purpose' }

/**
 * Grants within reach that wait for a worker to exchange them, or to refresh them after that has failed. Those to clean up, or to
 * delete, are for whoever may.
 */
export async function grantsToRenew(read: Executor, reach: WorkerReach, now: number, limit: number): Promise<number[]> {
  const rows = await query<{ id: number }>(
    read,
    `SELECT id FROM grants WHERE state = 'RENEWING' AND (NOT exchanged OR failures > 0) AND purpose NOT IN ('clean-up', 'delete')
        AND not_before <= :now AND lease_until <= :now ${grantsWithinReach(read, reach, REACHED)}
      ORDER BY not_before, id LIMIT :limit`,
    { now, limit, ...reachBindings(reach) },
  )
  return rows.map(row => row.id)
}
