import { tokenRevocation } from 'openid-client'
import type { Secret } from '../domain/secret.ts'
import type { TokenEndpoint } from './token-endpoint.ts'

/**
 * RFC 7009, for refresh tokens: an access token at a foreign storage cannot be called back and ends at its `exp`. An issuer
 * that does not know the token answers as if it had revoked it.
 */
export async function revoke(endpoint: TokenEndpoint, refreshToken: Secret): Promise<void> {
  await endpoint.send('revocation', configuration =>
    tokenRevocation(configuration, refreshToken.reveal(), { token_type_hint: 'refresh_token' }),
  )
}
