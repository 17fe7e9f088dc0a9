import { WaybillError } from '../../shared/domain/errors.ts'
import { IssuerError } from '../../shared/oidc/issuer-error.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { periodic } from '../periodic.ts'
import { expireGrants, type GrantRow, grantsToMint, takeLease } from './grant-store.ts'
import { takeTurn } from './issuers.ts'
import { keepFailure, keepTokens, planGrants, type TokenContext } from './tokens.ts'

const MINTED_PER_ROUND = 16
const LEASE_MS = 60_000
/** A grant that nothing asked for so long, and whose token has ended, is forgotten. */
const UNUSED_MS = 3_600_000

/** Mints ahead of the claims: chooses grants for new bundles, and gets the tokens that the server has to get. */
export function minter(context: TokenContext): Service {
  return periodic({
    ...context,
    name: 'mint tokens',
    interval: 1_000,
    topic: 'grants',
    async round(signal) {
      const planned = await planGrants(context)
      const due = await grantsToMint(context.db.read, context.clock.now(), MINTED_PER_ROUND)
      await Promise.all(due.map(grant => mintGrant(context, grant, signal)))
      return planned > 0 || due.length > 0
    },
  })
}

async function mintGrant(context: TokenContext, grant: GrantRow, signal: AbortSignal): Promise<void> {
  const now = context.clock.now()
  const issuer = context.issuers.of(grant)
  const until = now + LEASE_MS
  const taken = await context.db.write(async executor => {
    const leased = await takeLease(executor, grant, { sessionId: null, event: 'restart', until }, now)
    return leased && { leased, delay: issuer === undefined ? 0 : await takeTurn(executor, issuer, now) }
  })
  if (taken === undefined) return
  const { leased, delay } = taken
  if (issuer === undefined) {
    const message = 'the configuration names this issuer and client no more'
    await keepFailure(context, leased, null, { step: 'mint', code: 'ISSUER_UNKNOWN', message })
    return
  }
  await context.clock.sleep(delay, signal)
  if (signal.aborted) return
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
