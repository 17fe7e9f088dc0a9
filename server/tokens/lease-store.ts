import { GRANT_MACHINE, type GrantState } from '../../shared/domain/grant-state.ts'
import { targetsOf } from '../../shared/domain/state-machine.ts'
import { type Executor, query, queryOne } from '../database/sql.ts'
import type { GrantRow } from './grant-store.ts'

/** A grant as it was when its lease was taken: who gives the lease back must still find it so. */
export type LeasedGrant = Pick<GrantRow, 'id' | 'state' | 'generation' | 'lease_until'>

const STILL_LEASED = 'id = :id AND state = :from AND generation = :generation AND lease_until = :leaseUntil'

function leasedBindings({ id, state, generation, lease_until }: LeasedGrant) {
  return { id, from: state, generation, leaseUntil: lease_until }
}

export interface Lease {
  /** Null: the server itself, to mint. */
  readonly sessionId: number | null
  readonly event: 'need' | 'restart'
  readonly until: number
  /** Nobody asked just now: taking it does not keep a grant from expiring. */
  readonly unasked?: true
}

/**
 * Takes the lease to renew a grant, unless somebody else has it or the grant went on meanwhile. Answers the
 * grant as it is then; undefined when it was not to be had.
 */
export async function takeLease(
  executor: Executor,
  grant: GrantRow,
  lease: Lease,
  now: number,
): Promise<GrantRow | undefined> {
  const [to] = targetsOf(GRANT_MACHINE, grant.state, lease.event)
  if (to === undefined) return undefined
  return queryOne<GrantRow>(
    executor,
    `UPDATE grants SET state = :to, lease_session_id = :sessionId, lease_until = :until,
            wanted_at = CASE WHEN :asked THEN :now ELSE wanted_at END
      WHERE id = :id AND state = :from AND generation = :generation AND lease_until <= :now RETURNING *`,
    {
      id: grant.id,
      from: grant.state,
      generation: grant.generation,
      to,
      sessionId: lease.sessionId,
      until: lease.until,
      asked: lease.unasked !== true,
      now,
    },
  )
}

/** Gives the lease back as if nobody had taken it, in the state that it was in; nobody takes it before `notBefore`. */
export async function putOff(
  executor: Executor,
  grant: LeasedGrant,
  notBefore: number,
  state: GrantState = grant.state,
): Promise<void> {
  await query(
    executor,
    `UPDATE grants SET state = :state, lease_session_id = NULL, lease_until = 0, not_before = :notBefore WHERE ${STILL_LEASED}`,
    { ...leasedBindings(grant), notBefore, state },
  )
}

export interface NewTokens {
  readonly step: 'mint' | 'exchange' | 'refresh'
  /** What was minted must be exchanged before anybody uses it. */
  readonly needsExchange: boolean
  readonly sealedAccess: string
  readonly sealedRefresh: string | null
  readonly expiresAt: number
  readonly lifetimeMs: number
  readonly jti: string
  readonly sha256: string
}

const COUNTER = { mint: 'mints', exchange: 'exchanges', refresh: 'refreshes' } as const

/** Stores the next generation's tokens and gives the lease back; false when it was lost. */
export async function storeTokens(executor: Executor, grant: LeasedGrant, tokens: NewTokens): Promise<boolean> {
  const counter = COUNTER[tokens.step]
  const targets = targetsOf(GRANT_MACHINE, grant.state, tokens.step === 'mint' ? 'mint' : 'renew')
  const to = tokens.needsExchange ? 'RENEWING' : 'LIVE'
  if (!targets.includes(to)) return false
  const rows = await query(
    executor,
    `UPDATE grants SET state = :to, generation = generation + 1, exchanged = :exchanged, sealed_access = :sealedAccess,
            sealed_refresh = :sealedRefresh, expires_at = :expiresAt, lifetime_ms = :lifetimeMs, jti = :jti, sha256 = :sha256,
            ${counter} = ${counter} + 1, lease_session_id = NULL, lease_until = 0, not_before = 0, failures = 0, error = NULL
      WHERE ${STILL_LEASED} RETURNING id`,
    {
      ...leasedBindings(grant),
      to,
      exchanged: tokens.step !== 'mint',
      sealedAccess: tokens.sealedAccess,
      sealedRefresh: tokens.sealedRefresh,
      expiresAt: tokens.expiresAt,
      lifetimeMs: tokens.lifetimeMs,
      jti: tokens.jti,
      sha256: tokens.sha256,
    },
  )
  return rows.length > 0
}

/** Records a failure and gives the lease back; undefined when it was lost, else the state the grant is in. */
export async function storeFailure(
  executor: Executor,
  grant: LeasedGrant,
  failure: { event: 'retry' | 'restart' | 'refuse'; notBefore: number; error: string },
): Promise<GrantState | undefined> {
  const [to] = targetsOf(GRANT_MACHINE, grant.state, failure.event)
  if (to === undefined) return undefined
  const row = await queryOne<{ state: GrantState }>(
    executor,
    `UPDATE grants SET state = :to, not_before = :notBefore, error = :error, failures = failures + 1,
            lease_session_id = NULL, lease_until = 0
      WHERE ${STILL_LEASED} RETURNING state`,
    { ...leasedBindings(grant), to, notBefore: failure.notBefore, error: failure.error },
  )
  return row?.state
}

/** Its token is the last that a storage refused, at that time: epoch ms. */
export async function markRefused(
  executor: Executor,
  { id, generation }: Pick<GrantRow, 'id' | 'generation'>,
  at: number,
): Promise<void> {
  await query(
    executor,
    'UPDATE grants SET refused_generation = :generation, refused_at = :at WHERE id = :id AND generation = :generation',
    { id, generation, at },
  )
}

export interface LedgerEntry {
  readonly grantId: number
  readonly step: 'mint' | 'exchange' | 'refresh'
  readonly outcome: string
  readonly error?: string
  readonly jti?: string
  readonly sha256?: string
  readonly expiresAt?: number
  readonly sessionId: number | null
}

export async function writeLedger(executor: Executor, entry: LedgerEntry, now: number): Promise<void> {
  await query(
    executor,
    `INSERT INTO ledger (grant_id, at, step, outcome, error, jti, sha256, expires_at, session_id)
     VALUES (:grantId, :now, :step, :outcome, :error, :jti, :sha256, :expiresAt, :sessionId)`,
    {
      now,
      grantId: entry.grantId,
      step: entry.step,
      outcome: entry.outcome,
      sessionId: entry.sessionId,
      error: entry.error ?? null,
      jti: entry.jti ?? null,
      sha256: entry.sha256 ?? null,
      expiresAt: entry.expiresAt ?? null,
    },
  )
}
