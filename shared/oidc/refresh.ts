import { refreshTokenGrant } from 'openid-client'
import type { Secret } from '../domain/secret.ts'
import { scopeParameter } from './scope-parameter.ts'
import { readTokenSet, type TokenSet } from './token-answer.ts'
import type { TokenEndpoint } from './token-endpoint.ts'

export interface RefreshRequest {
  refreshToken: Secret
  /** May be narrower than what the refresh token is good for. */
  scopes: readonly string[]
  /** For issuers that do not remember it with the refresh token. */
  audience?: string
  /** On the client's monotonic clock, milliseconds: nothing is sent from then on. */
  sendBy?: number
}

/**
 * RFC 6749 section 6. `refreshToken` in the result is the new one of an issuer that rotates: it must be stored before the
 * access token is used, and the old one is spent. Without it the old one stays good.
 */
export async function refresh(endpoint: TokenEndpoint, request: RefreshRequest): Promise<TokenSet> {
  const { refreshToken, scopes, audience, sendBy } = request
  const parameters = {
    scope: scopeParameter(scopes),
    ...(audience === undefined ? {} : endpoint.audience(audience)),
  }
  return endpoint.send(
    'refresh_token',
    async (configuration, requestedAt) =>
      readTokenSet(await refreshTokenGrant(configuration, refreshToken.reveal(), parameters), requestedAt),
    sendBy,
  )
}
