import { createHash } from 'node:crypto'
import { decodeJwt, type JWTPayload } from 'jose'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import { printable } from './printable.ts'
import { isKnownProfile, scopesOf } from './profile.ts'
import { isStorageScope, normaliseScope } from './storage-scope.ts'

/** What was asked for. */
export interface TokenExpectation {
  issuer: string
  audience: string
  /** All that the token must say; `offline_access` is about the grant and is not among them. */
  scopes: readonly string[]
  /** Epoch milliseconds. */
  now: number
}

/** What may be kept, logged and shown of a token. Times are epoch milliseconds. */
export interface CheckedToken {
  jti: string
  expiresAt: number
  /** Of the whole token, in hex: with it a leaked token finds its grant. */
  sha256: string
}

export type TokenFault =
  | 'TOKEN_OPAQUE'
  | 'TOKEN_MALFORMED'
  | 'TOKEN_ISSUER'
  | 'TOKEN_AUDIENCE'
  | 'TOKEN_WIDER'
  | 'TOKEN_NARROWER'
  | 'TOKEN_EXPIRED'

/**
 * Checks, before anyone uses it, that an access token from an issuer is the one that was asked for. Throws a `WaybillError`
 * with a `TokenFault` for a code.
 *
 * The signature is not looked at. Who asked the issuer has the token straight from its token endpoint over TLS, which vouches
 * for the sender at least as well (OpenID Connect Core section 3.1.3.7 point 6 says the same of ID tokens). What a worker
 * hands in after an exchange or refresh has no such warrant: a worker that lies can spoil a grant, and no more, since every
 * storage verifies the token that it is shown. This guards against an issuer configured wrong, not against a forger.
 */
export function checkToken(token: Secret, expected: TokenExpectation): CheckedToken {
  const claims = decode(token)
  const { jti, sub, exp } = claims
  if (claims.iss !== expected.issuer) {
    throw fault('TOKEN_ISSUER', `says it is from ${show(claims.iss)}, not from ${expected.issuer}`)
  }
  if (!isAudience(claims.aud, expected.audience)) {
    throw fault('TOKEN_AUDIENCE', `is for ${show(claims.aud)}, not for ${expected.audience} alone`)
  }
  if (!isKnownProfile(claims)) {
    throw fault('TOKEN_MALFORMED', `follows version ${show(claims['wlcg.ver'])} of the WLCG profile, not 1.x`)
  }
  checkScopes(claims, expected.scopes)
  if (!isText(jti) || !isText(sub)) throw fault('TOKEN_MALFORMED', 'has no usable `jti` or `sub`')
  if (typeof exp !== 'number' || exp * 1000 <= expected.now)
    throw fault('TOKEN_EXPIRED', `ends at ${show(exp)}: too early`)
  return {
    jti,
    expiresAt: exp * 1000,
    sha256: createHash('sha256').update(token.reveal()).digest('hex'),
  }
}

function decode(token: Secret): JWTPayload {
  try {
    return decodeJwt(token.reveal())
  } catch {
    throw fault('TOKEN_OPAQUE', 'is no JWT: storages could not judge it')
  }
}

/** Exactly the one asked for: a second audience would let the token be replayed there (facts/tokens.md section 1). */
function isAudience(aud: unknown, audience: string): boolean {
  return Array.isArray(aud) ? aud.length === 1 && aud[0] === audience : aud === audience
}

function checkScopes(claims: JWTPayload, asked: readonly string[]): void {
  const scopes = scopesOf(claims)
  if (!scopes) throw fault('TOKEN_MALFORMED', 'has a `scope` claim that is no string')
  const given = new Set(scopes.map(normaliseScope))
  const wanted = new Set(asked.map(normaliseScope))
  const excess = [...given].filter(scope => isStorageScope(scope) && !wanted.has(scope))
  if (excess.length > 0) throw fault('TOKEN_WIDER', `also grants ${show(excess.join(' '))}`)
  const missing = [...wanted].filter(scope => !given.has(scope))
  if (missing.length > 0) throw fault('TOKEN_NARROWER', `does not grant ${show(missing.join(' '))}`)
}

/** Printable ASCII of at most 255 characters, as the profile has `sub`; it stands in logs and in the ledger. */
function isText(value: unknown): value is string {
  return typeof value === 'string' && /^[\x20-\x7e]{1,255}$/.test(value)
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : printable(JSON.stringify(value))
}

function fault(code: TokenFault, what: string): WaybillError {
  return new WaybillError(code, `the token that the issuer gave ${what}`, { status: 502 })
}
