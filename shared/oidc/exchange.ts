import { genericGrantRequest } from 'openid-client'
import type { Secret } from '../domain/secret.ts'
import { IssuerError } from './issuer-error.ts'
import { printable } from './printable.ts'
import { refresh } from './refresh.ts'
import { scopeParameter } from './scope-parameter.ts'
import { readRefreshToken, readTokenSet, type TokenAnswer, type TokenSet } from './token-answer.ts'
import type { TokenEndpoint } from './token-endpoint.ts'

export interface ExchangeRequest {
  /** An access token that another client minted; its `sub` is kept. */
  subjectToken: Secret
  audience: string
  scopes: readonly string[]
  /** Also ask for a refresh token. The issuer may give none: look at `refreshToken`. */
  offline: boolean
  /** On the client's monotonic clock, milliseconds: the exchange is not sent from then on. */
  sendBy?: number
}

const GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'
const TYPE = 'urn:ietf:params:oauth:token-type:'
/** An issuer that names no type gave what the field's name says. */
const ACCESS_TOKEN_TYPES: readonly unknown[] = [`${TYPE}access_token`, `${TYPE}jwt`, undefined]

/**
 * Token exchange, RFC 8693. What came is told by `issued_token_type`, not by the field's name: some issuers put the refresh
 * token into `access_token` (facts/tokens.md section 2). It is then refreshed at once, which is a second request.
 */
export async function exchange(endpoint: TokenEndpoint, request: ExchangeRequest): Promise<TokenSet> {
  const { subjectToken, audience, scopes, offline, sendBy } = request
  const scope = scopeParameter(scopes)
  const parameters = {
    subject_token: subjectToken.reveal(),
    subject_token_type: `${TYPE}access_token`,
    // What FTS asks of every IAM in production; an issuer may ignore it.
    requested_token_type: `${TYPE}${offline ? 'refresh_token' : 'access_token'}`,
    scope: offline ? `${scope} offline_access` : scope,
    ...endpoint.audience(audience),
  }
  const tokens = await endpoint.send(
    'token_exchange',
    async (configuration, requestedAt) =>
      readExchanged(await genericGrantRequest(configuration, GRANT, parameters), requestedAt),
    sendBy,
  )
  if ('accessToken' in tokens) return tokens
  // At any time: nobody else has this refresh token.
  return { ...tokens, ...(await refresh(endpoint, { ...tokens, scopes, audience })) }
}

function readExchanged(answer: TokenAnswer, requestedAt: number): TokenSet | { refreshToken: Secret } {
  const issued = answer.issued_token_type
  if (ACCESS_TOKEN_TYPES.includes(issued)) return readTokenSet(answer, requestedAt)
  if (issued === `${TYPE}refresh_token`) return { refreshToken: readRefreshToken(answer.access_token) }
  const what = typeof issued === 'string' ? printable(issued) : 'an unreadable type'
  throw new IssuerError('ISSUER_NONSENSE', `asked to exchange a token, the issuer gave ${what}`)
}
