import { createHash } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, errors, type JWSHeaderParameters, type JWTPayload, jwtVerify } from 'jose'
import { WaybillError } from '../domain/errors.ts'
import type { Clock } from '../runtime/clock.ts'
import { IssuerError } from './issuer-error.ts'
import type { Fetch } from './issuer-fetch.ts'
import { createJwksCache, type JwksCache } from './jwks-cache.ts'
import { entitlementsOf, groupsOf, isKnownProfile, scopesOf } from './profile.ts'
import { isBearerToken } from './token-answer.ts'

/** Who calls, as a trusted issuer says. What they may do is decided elsewhere. */
export interface VerifiedBearer {
  issuer: string
  subject: string
  /** `client_id` (RFC 9068), else `azp`. */
  clientId: string | undefined
  /** These three give no right by themselves; an admin may map them to accounts. In the token's order, 200 at most. */
  groups: readonly string[]
  entitlements: readonly string[]
  scopes: readonly string[]
  /** Epoch milliseconds. */
  expiresAt: number
}

export interface BearerVerifierOptions {
  /** The only issuers whose tokens are looked at, each with the audience that its tokens must have for this server. */
  issuers: readonly { url: string; audience: string }[]
  fetch: Fetch
  clock: Clock
  /** For each request to an issuer, in milliseconds. */
  timeoutMs: number
  /** How many verified tokens are remembered. */
  cacheSize?: number
}

export interface BearerVerifier {
  /**
   * Verifies the value of an `Authorization` header. Rejects with a `WaybillError` of status 401 whose code is `TOKEN_MISSING`,
   * `TOKEN_MALFORMED`, `TOKEN_ALGORITHM`, `TOKEN_ISSUER`, `TOKEN_SIGNATURE`, `TOKEN_AUDIENCE`, `TOKEN_EXPIRED` or
   * `TOKEN_NOT_YET_VALID`; or of status 503, `ISSUER_UNREACHABLE`, when the issuer's keys cannot be had.
   */
  verify(authorization: string | undefined): Promise<VerifiedBearer>
}

/** facts/tokens.md section 1, statement 4. Anything symmetric would let whoever knows a public key sign. */
const ALGORITHMS = ['RS256', 'ES256']

/** facts/tokens.md section 1, statement 2. */
const LONGEST_SUBJECT = 255
const MOST_SCOPES = 200
/** Of groups, entitlements and scopes that are remembered, of all tokens: some have kilobytes of them. */
const MOST_CHARACTERS = 8_000_000

export function createBearerVerifier(options: BearerVerifierOptions): BearerVerifier {
  const { issuers, fetch, clock, timeoutMs, cacheSize = 10_000 } = options
  const trusted = new Map(
    issuers.map(({ url, audience }) => [
      url,
      { url, audience, keys: createJwksCache({ issuer: url, fetch, clock, timeoutMs }) },
    ]),
  )
  const verified = new Map<string, VerifiedBearer>()
  let characters = 0

  /** The least recently used goes first: a `Map` keeps the order of insertion. */
  function remember(hash: string, bearer: VerifiedBearer): void {
    forget(hash)
    verified.set(hash, bearer)
    characters += charactersOf(bearer)
    for (const [oldest] of verified) {
      if (verified.size <= cacheSize && characters <= MOST_CHARACTERS) return
      forget(oldest)
    }
  }

  function forget(hash: string): void {
    const known = verified.get(hash)
    if (known === undefined) return
    verified.delete(hash)
    characters -= charactersOf(known)
  }

  return {
    async verify(authorization) {
      const token = tokenOf(authorization)
      const hash = createHash('sha256').update(token).digest('base64')
      const known = verified.get(hash)
      if (known && known.expiresAt > clock.now()) {
        remember(hash, known)
        return known
      }
      const { header, claims } = decode(token)
      const issuer = typeof claims.iss === 'string' ? trusted.get(claims.iss) : undefined
      if (!issuer) throw refusal('TOKEN_ISSUER', 'is from an issuer that this server does not trust')
      const bearer = await verifyFrom(issuer, token, header, clock.now())
      remember(hash, bearer)
      return bearer
    },
  }
}

function tokenOf(authorization: string | undefined): string {
  const [, token] = /^bearer +(.*)$/i.exec(authorization ?? '') ?? []
  if (token === undefined) {
    throw new WaybillError('TOKEN_MISSING', 'send an access token: Authorization: Bearer <token>', { status: 401 })
  }
  if (!isBearerToken(token.trim())) throw refusal('TOKEN_MALFORMED', 'is no bearer token (RFC 6750 section 2.1)')
  return token.trim()
}

/** Reads what decides how to verify. Nothing here is believed yet. */
function decode(token: string): { header: JWSHeaderParameters; claims: JWTPayload } {
  let header: JWSHeaderParameters
  let claims: JWTPayload
  try {
    header = decodeProtectedHeader(token)
    claims = decodeJwt(token)
  } catch {
    throw refusal('TOKEN_MALFORMED', 'is no JWT')
  }
  if (typeof header.alg !== 'string' || !ALGORITHMS.includes(header.alg)) {
    throw refusal('TOKEN_ALGORITHM', `is not signed with ${ALGORITHMS.join(' or ')}`)
  }
  if (typeof header.kid !== 'string' || header.kid === '')
    throw refusal('TOKEN_MALFORMED', 'does not name its key (`kid`)')
  return { header, claims }
}

async function verifyFrom(
  issuer: { url: string; audience: string; keys: JwksCache },
  token: string,
  header: JWSHeaderParameters,
  now: number,
): Promise<VerifiedBearer> {
  const key = await issuer.keys.find(header).catch(error => {
    const why = error instanceof IssuerError ? error.message : 'no reason known'
    throw new IssuerError('ISSUER_UNREACHABLE', `the keys of ${issuer.url} cannot be had: ${why}`)
  })
  if (!key) throw refusal('TOKEN_SIGNATURE', 'is signed with a key that its issuer does not publish')
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: ALGORITHMS,
      issuer: issuer.url,
      audience: issuer.audience,
      requiredClaims: ['exp'],
      currentDate: new Date(now),
    })
    return bearerOf(issuer.url, payload)
  } catch (error) {
    throw error instanceof WaybillError ? error : refusalFor(error)
  }
}

function bearerOf(issuer: string, claims: JWTPayload): VerifiedBearer {
  const { sub, exp } = claims
  const scopes = scopesOf(claims)
  if (
    typeof sub !== 'string' ||
    sub.length > LONGEST_SUBJECT ||
    !/^[^\p{Cc}\p{Cs}]+$/u.test(sub) ||
    typeof exp !== 'number' ||
    scopes === undefined ||
    !isKnownProfile(claims)
  ) {
    throw refusal(
      'TOKEN_MALFORMED',
      'lacks a usable `sub`, has a `scope` that is no string, or follows an unknown profile',
    )
  }
  const clientId = claims.client_id ?? claims.azp
  return {
    issuer,
    subject: sub,
    clientId: typeof clientId === 'string' ? clientId : undefined,
    groups: groupsOf(claims),
    entitlements: entitlementsOf(claims),
    scopes: scopes.slice(0, MOST_SCOPES),
    expiresAt: exp * 1000,
  }
}

function charactersOf({ groups, entitlements, scopes }: VerifiedBearer): number {
  return [...groups, ...entitlements, ...scopes].reduce((sum, text) => sum + text.length, 0)
}

/** jose's errors hang the whole payload on themselves, so none of them is passed on. */
function refusalFor(error: unknown): WaybillError {
  if (error instanceof errors.JWTExpired) return refusal('TOKEN_EXPIRED', 'has expired')
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud') return refusal('TOKEN_AUDIENCE', 'is for another audience than this server')
    if (error.claim === 'nbf') return refusal('TOKEN_NOT_YET_VALID', 'is not valid yet: compare the clocks')
    return refusal('TOKEN_MALFORMED', `lacks a usable \`${error.claim}\``)
  }
  if (
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWTInvalid ||
    error instanceof errors.JOSENotSupported
  ) {
    return refusal('TOKEN_MALFORMED', 'is no JWT that this server can read')
  }
  return refusal('TOKEN_SIGNATURE', 'has a signature that its issuer did not make')
}

function refusal(code: string, what: string): WaybillError {
  return new WaybillError(code, `the access token ${what}`, { status: 401 })
}
