import {
  type CryptoKey,
  createLocalJWKSet,
  errors,
  type JSONWebKeySet,
  type JWSHeaderParameters,
  type LocalJWKSet,
} from 'jose'
import type { CustomFetch } from 'openid-client'
import type { Clock } from '../runtime/clock.ts'
import { createDiscovery } from './discovery.ts'
import { IssuerError } from './issuer-error.ts'
import { createIssuerFetch, type Fetch } from './issuer-fetch.ts'
import { keepFresh } from './keep-fresh.ts'

const HOUR = 3_600_000

export interface JwksCacheOptions {
  /** What the issuer calls itself. */
  issuer: string
  fetch: Fetch
  clock: Clock
  /** For each request, in milliseconds. */
  timeoutMs: number
}

export interface JwksCache {
  /**
   * The issuer's key for a token with this header, or undefined if the issuer publishes none. Rejects with an `IssuerError`
   * when no keys can be had.
   */
  find(header: JWSHeaderParameters): Promise<CryptoKey | undefined>
}

/**
 * An issuer's signing keys with the times of the WLCG profile (facts/tokens.md section 1, Lifetimes): refreshed when an hour
 * old, used on for four days through an outage. A failure is remembered for a minute, and an unknown `kid` makes at most one
 * fetch a minute, since anybody can invent one.
 */
export function createJwksCache(options: JwksCacheOptions): JwksCache {
  const { issuer, clock } = options
  const issuerFetch = createIssuerFetch(options)
  const metadata = createDiscovery(issuer, issuerFetch, clock)
  const keys = keepFresh({
    clock,
    refreshAfterMs: HOUR,
    staleForMs: 96 * HOUR,
    retryAfterMs: 60_000,
    load: async () => fetchKeys(issuer, (await metadata.get()).jwks_uri, issuerFetch),
  })
  let unknownKidAt = Number.NEGATIVE_INFINITY

  return {
    async find(header) {
      const known = await select(await keys.get(), header, issuer)
      if (known || clock.monotonic() - unknownKidAt < 60_000) return known
      unknownKidAt = clock.monotonic()
      const renewed = await keys.renew().catch(() => undefined) // an outage: the keys at hand are all there are
      return renewed && select(renewed, header, issuer)
    },
  }
}

async function fetchKeys(issuer: string, uri: string | undefined, issuerFetch: CustomFetch): Promise<LocalJWKSet> {
  if (uri === undefined) throw new IssuerError('ISSUER_NONSENSE', `${issuer} publishes no jwks_uri`)
  const headers = { accept: 'application/jwk-set+json, application/json' }
  const response = await issuerFetch(uri, { method: 'GET', headers, body: undefined, redirect: 'manual' })
  try {
    return createLocalJWKSet((await response.json()) as JSONWebKeySet) // which it checks
  } catch {
    throw new IssuerError('ISSUER_NONSENSE', `${issuer} publishes no readable key set`)
  }
}

async function select(keys: LocalJWKSet, header: JWSHeaderParameters, issuer: string): Promise<CryptoKey | undefined> {
  try {
    return await keys(header)
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey) return undefined
    throw new IssuerError('ISSUER_NONSENSE', `${issuer} publishes an unusable key under the token's kid`)
  }
}
