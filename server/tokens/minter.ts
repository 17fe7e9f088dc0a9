import { WaybillError } from '../../shared/domain/errors.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { periodic } from '../periodic.ts'
import { expireGrants } from './expire.ts'
import { type GrantRow, grantsToMint, grantsToMintAnew } from './grant-store.ts'
import { leaseWithTurn } from './lease.ts'
import { putOff, takeLease } from './lease-store.ts'
import { keepFailure, keepTokens, type TokenContext } from './tokens.ts'

const MINTED_PER_ROUND = 16
const LEASE_MS = 60_000
/** A grant that nothing asked for so long, and whose token has ended, is forgotten. */
const UNUSED_MS = 3_600_000

/**
 * Mint ahead of the claims what the server has to get, each for one issuer: one that is slow, away or wants to be left alone
 * holds up no other.
 */
export function minters(context: TokenContext): Service[] {
  const issuers = new Map(context.issuers.all().map(issuer => [issuer.id, issuer.url]))
  return [...issuers].map(([id, url]) =>
    periodic({
      ...context,
      name: `mint tokens of ${url}`,
      interval: 1_000,
      topic: 'grants',
      async round(signal) {
        const now = context.clock.now()
        const due = await grantsToMint(context.db.read, id, now, MINTED_PER_ROUND)
        const ending = await grantsToMintAnew(context.db.read, id, now, MINTED_PER_ROUND)
        await Promise.all([...due, ...ending].map(grant => mintGrant(context, grant, signal)))
        return due.length + ending.length > 0
      },
    }),
  )
}

async function mintGrant(context: TokenContext, grant: GrantRow, signal: AbortSignal): Promise<void> {
  const now = context.clock.now()
  const issuer = context.issuers.of(grant)
  const lease = { sessionId: null, event: 'restart', until: now + LEASE_MS, unasked: true } as const
  if (issuer === undefined) {
    const leased = await context.db.write(executor => takeLease(executor, grant, lease, now))
    const message = 'the configuration names this issuer and client no more'
    if (leased !== undefined)
      await keepFailure(context, leased, null, { step: 'mint', code: 'ISSUER_UNKNOWN', message })
    return
  }
  const taken = await context.db.write(executor => leaseWithTurn(executor, grant, issuer, lease, now))
  if (taken?.kind !== 'leased') return
  const leased = taken.grant
  await context.clock.sleep(taken.delayMs, signal)
  if (signal.aborted) {
    // The server stops; another one, or the next, need not wait until the lease is over.
    await context.db.write(executor => putOff(executor, leased, leased.not_before))
    return
  }
  try {
    const scopes = grant.scopes.split(' ')
    const tokens = await issuer.client.mint({ audience: grant.audience, scopes })
    await keepTokens(context, leased, issuer, null, { step: 'mint', ...tokens })
  } catch (error) {
    if (!(error instanceof WaybillError)) throw error
    const retryAfterSeconds = error instanceof IssuerError ? error.retryAfterSeconds : undefined
    await keepFailure(context, leased, null, {
      step: 'mint',
      code: error.code,
      message: error.message,
      retryAfterSeconds,
    })
  }
}

/** Forgets the tokens of grants that nothing uses any more. */
export function grantExpirer(context: TokenContext): Service {
  return periodic({
    ...context,
    name: 'expire grants',
    interval: 60_000,
    async round() {
      const now = context.clock.now()
      await context.db.write(executor => expireGrants(executor, now - UNUSED_MS, now))
      return false
    },
  })
}
