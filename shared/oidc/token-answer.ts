import { decodeJwt } from 'jose'
import { Secret } from '../domain/secret.ts'
import { IssuerError } from './issuer-error.ts'

/** What a token endpoint gave. Nothing in it is checked against what was asked: `checkToken` does that before any use. */
export interface TokenSet {
  accessToken: Secret
  refreshToken?: Secret
  /** When the access token ends, epoch milliseconds, on the safe side: counted from when it was asked for. */
  expiresAt: number
}

/** The fields of a token answer that matter here (RFC 6749 section 5.1, RFC 8693 section 2.2.1), not yet believed. */
export interface TokenAnswer {
  readonly access_token: string
  readonly token_type: string
  readonly expires_in?: number | undefined
  readonly refresh_token?: string | undefined
  readonly issued_token_type?: unknown
}

const MAX_TOKEN_LENGTH = 16_384
/** RFC 6750 section 2.1, so that a token can go into a header as it is. */
const BEARER = /^[A-Za-z0-9\-._~+/]+=*$/
/** VSCHAR, RFC 6749 appendix A.17. */
const REFRESH = /^[\x20-\x7e]+$/

/** True for what can stand behind `Bearer ` in a header: RFC 6750 section 2.1, and of a length that servers take. */
export function isBearerToken(text: string): boolean {
  return text.length <= MAX_TOKEN_LENGTH && BEARER.test(text)
}

/** `requestedAt` in epoch milliseconds. Throws `ISSUER_NONSENSE`. */
export function readTokenSet(answer: TokenAnswer, requestedAt: number): TokenSet {
  if (answer.token_type.toLowerCase() !== 'bearer') throw nonsense('a token that is no bearer token')
  if (!isBearerToken(answer.access_token)) throw nonsense('an access token that fits in no header')
  const tokens = { accessToken: new Secret(answer.access_token), expiresAt: expiryOf(answer, requestedAt) }
  if (answer.refresh_token === undefined) return tokens
  return { ...tokens, refreshToken: readRefreshToken(answer.refresh_token) }
}

export function readRefreshToken(text: string): Secret {
  if (text.length > MAX_TOKEN_LENGTH || !REFRESH.test(text)) throw nonsense('an unreadable refresh token')
  return new Secret(text)
}

/** `expires_in` is only recommended (RFC 6749 section 5.1); the token may say `exp` itself. The earlier of the two counts. */
function expiryOf(answer: TokenAnswer, requestedAt: number): number {
  const ends = [answer.expires_in === undefined ? undefined : requestedAt + answer.expires_in * 1000, ownExpiry(answer)]
  const expiresAt = Math.floor(Math.min(...ends.filter(end => end !== undefined)))
  if (!Number.isSafeInteger(expiresAt)) throw nonsense('a token without an end')
  return expiresAt
}

function ownExpiry({ access_token }: TokenAnswer): number | undefined {
  try {
    const { exp } = decodeJwt(access_token)
    return typeof exp === 'number' ? exp * 1000 : undefined
  } catch {
    return undefined // opaque: `checkToken` has a word about it
  }
}

function nonsense(what: string): IssuerError {
  return new IssuerError('ISSUER_NONSENSE', `the issuer's token endpoint answered with ${what}`)
}
