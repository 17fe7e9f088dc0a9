import { exchangeModeOf, exchanges, type GrantPurpose } from '../../shared/domain/grant-state.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import { checkToken } from '../../shared/oidc/check-token.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { ensureGrant, type GrantKey, type GrantRow, lastLive, refreshReady } from './grant-store.ts'
import { holdIssuer, type Issuer, type Issuers } from './issuers.ts'
import { storeFailure, storeTokens, writeLedger } from './lease-store.ts'
import { afterFailure, REFUSED } from './renewal-policy.ts'
import { scopesFor } from './scopes.ts'
import type { Vault } from './seal.ts'

/** What the token room works with. */
export interface TokenContext extends Context {
  readonly issuers: Issuers
  readonly vault: Vault
  /** How long workers must be able to go on without the server. Milliseconds. */
  readonly autonomyMs: number
}

/** The grant that is for work of this kind in these directories of a storage. Scopes are the narrowest that do. */
export function grantKey(issuers: Issuers, rse: Rse, purpose: GrantPurpose, directories: readonly string[]): GrantKey {
  const issuer = issuers.forVo(rse.voId)
  const scopes = scopesFor({ purpose, directories, basePath: rse.basePath, prefix: rse.prefix })
  return {
    issuerId: issuer.id,
    client: issuer.clientId,
    voId: rse.voId,
    rseId: rse.id,
    audience: rse.audience,
    purpose,
    scopes,
  }
}

/** The one grant of that key for the whole fleet, wanted from now on. */
export async function grantFor(
  executor: Executor,
  issuers: Issuers,
  rse: Rse,
  purpose: GrantPurpose,
  directories: readonly string[],
  now: number,
): Promise<number> {
  return ensureGrant(executor, grantKey(issuers, rse, purpose, directories), now)
}

export interface ObtainedTokens {
  readonly step: 'mint' | 'exchange' | 'refresh'
  readonly accessToken: Secret
  readonly refreshToken?: Secret
  readonly expiresAt: number
}

/**
 * Checks tokens that an issuer gave and makes them durable, sealed, as the grant's next generation. Throws the fault that
 * `checkToken` found, before anything is stored. False when somebody else went on with the grant meanwhile.
 */
export async function keepTokens(
  context: TokenContext,
  grant: GrantRow,
  issuer: Issuer,
  sessionId: number | null,
  obtained: ObtainedTokens,
): Promise<boolean> {
  const now = context.clock.now()
  const scopes = grant.scopes.split(' ')
  const checked = checkToken(obtained.accessToken, { issuer: issuer.url, audience: grant.audience, scopes, now })
  const expiresAt = Math.min(checked.expiresAt, obtained.expiresAt)
  const generation = grant.generation + 1
  const seal = (secret: Secret, kind: 'access' | 'refresh'): string =>
    context.vault.seal(secret, { grantId: grant.id, generation, kind })
  // A refresh that brings no new refresh token leaves the old one good (RFC 6749 section 6): it is sealed anew.
  const refreshToken = obtained.refreshToken ?? (obtained.step === 'refresh' ? openRefresh(context, grant) : undefined)
  const mode = exchangeModeOf(grant.purpose, issuer.exchange)
  const needsExchange = obtained.step === 'mint' && exchanges(mode, context.autonomyMs, expiresAt - now)
  const stored = await context.db.write(async executor => {
    const kept = await storeTokens(executor, grant, {
      step: obtained.step,
      needsExchange,
      sealedAccess: seal(obtained.accessToken, 'access'),
      sealedRefresh: refreshToken === undefined ? null : seal(refreshToken, 'refresh'),
      expiresAt,
      lifetimeMs: Math.max(1, expiresAt - now),
      jti: checked.jti,
      sha256: checked.sha256,
    })
    if (!kept) return false
    const { jti, sha256 } = checked
    const entry = { grantId: grant.id, step: obtained.step, outcome: 'ok', jti, sha256, expiresAt, sessionId }
    await writeLedger(executor, entry, now)
    await refreshReady(executor, [grant.id])
    return true
  })
  if (stored) {
    context.wake.notify('queue')
    // Its place at the issuer is free.
    context.wake.notify('grants')
  }
  return stored
}

export function openAccess(context: TokenContext, grant: GrantRow): Secret | undefined {
  const { id: grantId, generation } = grant
  return grant.sealed_access === null
    ? undefined
    : context.vault.open(grant.sealed_access, { grantId, generation, kind: 'access' })
}

export function openRefresh(context: TokenContext, grant: GrantRow): Secret | undefined {
  const { id: grantId, generation } = grant
  return grant.sealed_refresh === null
    ? undefined
    : context.vault.open(grant.sealed_refresh, { grantId, generation, kind: 'refresh' })
}

const LOOKED_AT = 10

/**
 * How many of some live grants the vault key does not open. Servers with different keys would refuse each other's tokens as if
 * somebody had changed them.
 */
export async function countUnopened(context: TokenContext): Promise<number> {
  const grants = await lastLive(context.db.read, LOOKED_AT)
  return grants.filter(grant => !opens(context, grant)).length
}

function opens(context: TokenContext, grant: GrantRow): boolean {
  try {
    openAccess(context, grant)
    return true
  } catch {
    return false
  }
}

/** Records why a step failed, and what becomes of the grant. `message` holds no secret. */
export async function keepFailure(
  context: TokenContext,
  grant: GrantRow,
  sessionId: number | null,
  failure: {
    step: 'mint' | 'exchange' | 'refresh'
    code: string
    message: string
    retryAfterSeconds?: number | undefined
  },
): Promise<void> {
  const now = context.clock.now()
  const { step, code, message, retryAfterSeconds } = failure
  const ended = grant.expires_at <= now
  const refusedBefore = grant.error?.startsWith(`${REFUSED}:`) ?? false
  const next = afterFailure({ step, code, failures: grant.failures, refusedBefore, ended, retryAfterSeconds })
  const error = `${code}: ${message}`
  const state = await context.db.write(async executor => {
    const notBefore = now + next.delayMs
    const kept = await storeFailure(executor, grant, { event: next.event, notBefore, error })
    if (kept === undefined) return undefined
    await writeLedger(executor, { grantId: grant.id, step, outcome: code, error: message, sessionId }, now)
    if (code === 'ISSUER_BUSY') await holdIssuer(executor, grant.issuer_id, notBefore)
    await refreshReady(executor, [grant.id])
    return kept
  })
  if (state !== undefined)
    context.log.warn({ grant: grant.id, step, code, error: message, state }, 'a token was not obtained')
}
