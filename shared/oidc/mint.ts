import { clientCredentialsGrant } from 'openid-client'
import { scopeParameter } from './scope-parameter.ts'
import { readTokenSet, type TokenSet } from './token-answer.ts'
import type { TokenEndpoint } from './token-endpoint.ts'

export interface MintRequest {
  /** Exactly one storage, or the server itself. Never empty: IAM would make a token for `any` storage. */
  audience: string
  scopes: readonly string[]
}

/** A token for the client itself: client credentials, RFC 6749 section 4.4. */
export async function mint(endpoint: TokenEndpoint, { audience, scopes }: MintRequest): Promise<TokenSet> {
  const parameters = { scope: scopeParameter(scopes), ...endpoint.audience(audience) }
  return endpoint.send('client_credentials', async (configuration, requestedAt) =>
    readTokenSet(await clientCredentialsGrant(configuration, parameters), requestedAt),
  )
}
