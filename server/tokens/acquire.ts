import { WaybillError } from '../../shared/domain/errors.ts'
import { exchangeModeOf, grantStep } from '../../shared/domain/grant-state.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { sealFor } from '../../shared/oidc/sealed-transport.ts'
import { findGrant, type GrantRow, refreshReady } from './grant-store.ts'
import type { Issuer } from './issuers.ts'
import { leaseWithTurn } from './lease.ts'
import { putOff, takeLease } from './lease-store.ts'
import { keepFailure, keepTokens, openAccess, openRefresh, type TokenContext } from './tokens.ts'

/** How long a worker may take for one exchange or refresh. IAM has taken 20 s (facts/tokens.md section 2). */
const RENEWAL_LEASE_MS = 60_000
/** A worker that could not renew a grant leaves it to others for so long. */
const ANOTHERS_MS = 5_000
/** How soon to ask again while somebody else renews, or the server mints. */
const WAIT_MS = 200

export interface Holder {
  /** Undefined: a person, who never renews. */
  readonly sessionId?: number
  readonly publicJwk: unknown
}

export type Acquired =
  | { kind: 'token'; generation: number; expiresInSeconds: number; context: string; token: string }
  | {
      kind: 'exchange' | 'refresh'
      generation: number
      leaseSeconds: number
      delayMs: number
      issuer: string
      audience: string
      scopes: string[]
      context: string
      token: string
    }
  | { kind: 'wait'; delayMs: number }
  | { kind: 'refused'; code: string; message: string }

/**
 * What a worker that needs `lifeMs` of this grant's token should do: use it, renew it (only one in the fleet gets the lease,
 * and with it the subject or refresh token), or wait. What is handed out is sealed to the session's key.
 */
export async function acquireToken(
  context: TokenContext,
  holder: Holder,
  grant: GrantRow,
  lifeMs: number,
): Promise<Acquired> {
  const now = context.clock.now()
  const issuer = context.issuers.of(grant)
  if (issuer === undefined) {
    // An ended grant is no bundle's any more, so its transfer may go back to the queue and gets others; of one that lives,
    // another server's configuration may know, and the same claim would come again at once.
    const code = grant.state === 'EXPIRED' ? 'GRANT_ENDED' : 'ISSUER_UNKNOWN'
    return { kind: 'refused', code, message: 'the configuration names the issuer and client of this grant no more' }
  }
  if (grant.state === 'HELD' || grant.state === 'REVOKED') {
    const error = grant.error ?? 'the grant is revoked'
    // As it was stored: the code, then the words.
    const [, code = 'TOKEN_REFUSED', message = error] = /^([A-Z][A-Z_]+): (.*)$/s.exec(error) ?? []
    return { kind: 'refused', code, message }
  }
  const facts = {
    state: grant.state,
    generation: grant.generation,
    exchanged: Boolean(grant.exchanged),
    hasRefreshToken: grant.sealed_refresh !== null,
    refused: grant.refused_generation === grant.generation,
    expiresAt: grant.expires_at,
    lifetimeMs: grant.lifetime_ms,
  }
  const step = grantStep(facts, exchangeModeOf(grant.purpose, issuer.exchange), context.autonomyMs, lifeMs, now)
  switch (step) {
    case 'none':
      return handOut(context, holder, grant, now)
    case 'mint':
      return wantMinted(context, grant, now)
    case 'exchange':
    case 'refresh':
      return lease(context, holder, grant, issuer, step, now)
  }
}

async function handOut(context: TokenContext, holder: Holder, grant: GrantRow, now: number): Promise<Acquired> {
  const token = openAccess(context, grant)
  if (token === undefined) return { kind: 'wait', delayMs: WAIT_MS }
  const bound = `grant:${grant.id}:${grant.generation}:access`
  return {
    kind: 'token',
    generation: grant.generation,
    expiresInSeconds: (grant.expires_at - now) / 1000,
    context: bound,
    token: await sealFor(holder.publicJwk, token, bound),
  }
}

/** The server's own minting does it; a grant that is wanted already is left alone. */
async function wantMinted(context: TokenContext, grant: GrantRow, now: number): Promise<Acquired> {
  if (grant.state !== 'WANTED') {
    await context.db.write(async executor => {
      await takeLease(executor, grant, { sessionId: null, event: 'restart', until: 0 }, now)
      await refreshReady(executor, [grant.id])
    })
  }
  context.wake.notify('grants')
  return { kind: 'wait', delayMs: Math.max(WAIT_MS, grant.not_before - now) }
}

async function lease(
  context: TokenContext,
  holder: Holder,
  grant: GrantRow,
  issuer: Issuer,
  step: 'exchange' | 'refresh',
  now: number,
): Promise<Acquired> {
  const { sessionId } = holder
  if (grant.not_before > now) return { kind: 'wait', delayMs: grant.not_before - now }
  if (sessionId === undefined) throw new Error(`grant ${grant.id} is not for people`)
  const until = now + RENEWAL_LEASE_MS
  const taken = await context.db.write(executor =>
    leaseWithTurn(executor, grant, issuer, { sessionId, event: 'need', until }, now),
  )
  if (taken?.kind !== 'leased') return { kind: 'wait', delayMs: Math.max(WAIT_MS, taken?.delayMs ?? 0) }
  const secret = step === 'exchange' ? openAccess(context, grant) : openRefresh(context, grant)
  if (secret === undefined) throw new Error(`grant ${grant.id} has no token to ${step}`)
  const bound = `grant:${grant.id}:${grant.generation}:${step}`
  return {
    kind: step,
    generation: grant.generation,
    leaseSeconds: RENEWAL_LEASE_MS / 1000,
    delayMs: taken.delayMs,
    issuer: issuer.url,
    audience: grant.audience,
    scopes: grant.scopes.split(' '),
    context: bound,
    token: await sealFor(holder.publicJwk, secret, bound),
  }
}

export type Renewal =
  | { kind: 'renewed'; accessToken: string; refreshToken?: string | undefined; expiresInSeconds: number }
  | { kind: 'failed'; code: string; message: string; retryAfterSeconds?: number | undefined }

/**
 * Takes in what the holder of the renewal lease got at the issuer. The new pair is durable when this resolves, so the worker
 * uses it only then. Throws 409 LEASE_LOST, and 422 with the fault when the token is not the one that was asked for.
 */
export async function takeRenewal(
  context: TokenContext,
  sessionId: number,
  grantId: number,
  reported: { generation: number; step: 'exchange' | 'refresh'; result: Renewal },
): Promise<number> {
  const grant = await findGrant(context.db.read, grantId)
  const lost = new WaybillError('LEASE_LOST', `grant ${grantId} is renewed by somebody else, or was already`, {
    status: 409,
  })
  if (grant === undefined || grant.generation !== reported.generation || grant.lease_session_id !== sessionId)
    throw lost
  const issuer = context.issuers.of(grant)
  if (issuer === undefined) throw lost
  const { step, result } = reported
  if (result.kind === 'failed' && result.code === 'ISSUER_NOT_CONFIGURED') {
    // That worker's own lack: another can do it, and the grant is as good as before.
    await context.db.write(executor => putOff(executor, grant, context.clock.now() + ANOTHERS_MS))
    context.log.warn({ grant: grantId, session: sessionId, issuer: issuer.url }, 'a worker has no client at an issuer')
    return grant.generation
  }
  if (result.kind === 'failed') {
    await keepFailure(context, grant, sessionId, { step, ...result })
    return grant.generation
  }
  try {
    const kept = await keepTokens(context, grant, issuer, sessionId, {
      step,
      accessToken: new Secret(result.accessToken),
      ...(result.refreshToken === undefined ? {} : { refreshToken: new Secret(result.refreshToken) }),
      expiresAt: context.clock.now() + result.expiresInSeconds * 1000,
    })
    if (!kept) throw lost
    return grant.generation + 1
  } catch (error) {
    if (!(error instanceof WaybillError) || error === lost) throw error
    await keepFailure(context, grant, sessionId, { step, code: error.code, message: error.message })
    throw new WaybillError(error.code, error.message, { status: 422, field: 'result.accessToken' })
  }
}
