import type { Secret } from '../domain/secret.ts'
import { type ExchangeRequest, exchange } from './exchange.ts'
import { type MintRequest, mint } from './mint.ts'
import { type RefreshRequest, refresh } from './refresh.ts'
import { revoke } from './revoke.ts'
import type { TokenSet } from './token-answer.ts'
import { createTokenEndpoint, type IssuerClientOptions } from './token-endpoint.ts'

export type { ExchangeRequest } from './exchange.ts'
export type { Fetch } from './issuer-fetch.ts'
export type { MintRequest } from './mint.ts'
export type { RefreshRequest } from './refresh.ts'
export type { TokenSet } from './token-answer.ts'
export type { GrantType, IssuerClientOptions } from './token-endpoint.ts'

/**
 * One client at one issuer. Every verb rejects with an `IssuerError`, none tries twice, and none looks whether the token is
 * the one asked for: `checkToken` does.
 */
export interface IssuerClient {
  mint(request: MintRequest): Promise<TokenSet>
  exchange(request: ExchangeRequest): Promise<TokenSet>
  refresh(request: RefreshRequest): Promise<TokenSet>
  revoke(refreshToken: Secret): Promise<void>
  /** Loads the issuer's metadata, so that the next verb costs its own request only. */
  discover(): Promise<void>
}

/** No request is made before the first verb. Throws `ISSUER_URL_INVALID`, for one for an issuer that is not https. */
export function createIssuerClient(options: IssuerClientOptions): IssuerClient {
  const endpoint = createTokenEndpoint(options)
  return {
    mint: request => mint(endpoint, request),
    exchange: request => exchange(endpoint, request),
    refresh: request => refresh(endpoint, request),
    revoke: refreshToken => revoke(endpoint, refreshToken),
    discover: endpoint.discover,
  }
}
