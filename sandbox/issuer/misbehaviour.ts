import type { IncomingMessage, ServerResponse } from 'node:http'
import { isStorageScope } from '../wlcg.ts'
import type { TokenRequest } from './access-tokens.ts'
import { answerError, type Form, type GrantType, OAuthError } from './oauth.ts'

/**
 * What a test may ask the issuer to do wrong, in process only. Tokens that come out wrong are still validly signed: a
 * client must find the fault by itself.
 */
export type Misbehaviour = {
  /** Only for this grant; without it for every request to the token endpoint. */
  readonly grantType?: GrantType
  /** Only for requests of storage scopes: tokens for the API stay good. */
  readonly storageOnly?: boolean
  /** How many times; without it until told otherwise. */
  readonly times?: number
} & (
  | { readonly kind: 'wider' | 'narrower' | 'opaque' | 'wrong-audience' }
  /** Refuses, and quotes in its words all that it was sent, secrets too. */
  | { readonly kind: 'quote' }
  | { readonly kind: 'status'; readonly status: number; readonly retryAfterSeconds?: number }
)

/** Holds the misbehaviour that is set, and counts it down. */
export class Conduct {
  #misbehaviour: Misbehaviour | undefined
  #left = 0

  set(misbehaviour: Misbehaviour | undefined): void {
    this.#misbehaviour = misbehaviour
    this.#left = misbehaviour?.times ?? Number.POSITIVE_INFINITY
  }

  /** The misbehaviour that this request meets. */
  next(grantType: string | undefined, scopes: readonly string[]): Misbehaviour | undefined {
    const current = this.#misbehaviour
    if (current === undefined || this.#left <= 0) return undefined
    if (current.grantType !== undefined && current.grantType !== grantType) return undefined
    if (current.storageOnly === true && !scopes.some(isStorageScope)) return undefined
    this.#left -= 1
    return current
  }
}

export function spoil(request: TokenRequest, misbehaviour: Misbehaviour | undefined): TokenRequest {
  switch (misbehaviour?.kind) {
    case 'wider':
      return { ...request, scopes: [...request.scopes, 'storage.modify:/'] }
    case 'narrower':
      return { ...request, scopes: request.scopes.slice(1) }
    case 'wrong-audience':
      return { ...request, audience: ['https://elsewhere.example.org'] }
    default:
      return request
  }
}

export function quote(request: IncomingMessage, form: Form): OAuthError {
  const { authorization = '' } = request.headers
  const basic = Buffer.from(authorization.replace(/^basic +/i, ''), 'base64').toString('utf8')
  const sent = ['subject_token', 'refresh_token', 'client_secret'].flatMap(name => form.get(name) ?? [])
  return new OAuthError('invalid_grant', `not good: ${[authorization, basic, ...sent].join(', ')}`)
}

export function answerStatus(
  response: ServerResponse,
  { status, retryAfterSeconds }: { status: number; retryAfterSeconds?: number },
): void {
  const error = new OAuthError(
    status < 500 ? 'temporarily_unavailable' : 'server_error',
    'the issuer was told to misbehave',
    status,
  )
  answerError(response, error, retryAfterSeconds === undefined ? {} : { 'Retry-After': String(retryAfterSeconds) })
}
