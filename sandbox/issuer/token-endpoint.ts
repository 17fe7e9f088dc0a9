import type { Random } from '../../shared/runtime/random.ts'
import { ANY_AUDIENCE } from '../wlcg.ts'
import type { AccessTokens } from './access-tokens.ts'
import { type Client, requireGrant } from './clients.ts'
import { type Misbehaviour, spoil } from './misbehaviour.ts'
import { type Form, GRANT, OAuthError, TOKEN_TYPE } from './oauth.ts'
import type { RefreshGrant, RefreshTokens } from './refresh-tokens.ts'
import { exchangeableScopes, mintableScopes, narrowedScopes, OFFLINE_ACCESS } from './scope-policy.ts'

/** Where the refresh token of an exchange goes: both are seen in the field (facts/tokens.md section 2). */
export type ExchangeShape = 'access_token' | 'refresh_token'

export interface TokenEndpoint {
  readonly accessTokens: AccessTokens
  readonly refreshTokens: RefreshTokens
  readonly exchangeShape: ExchangeShape
  readonly random: Random
}

interface TokenAnswer {
  access_token: string
  token_type: string
  expires_in?: number
  scope?: string
  refresh_token?: string
  issued_token_type?: string
}

/** Answers one token request of an authenticated client. Throws `OAuthError`. */
export function answerTokenRequest(
  endpoint: TokenEndpoint,
  client: Client,
  form: Form,
  misbehaviour: Misbehaviour | undefined,
): Promise<TokenAnswer> {
  const grantType = form.require('grant_type')
  switch (grantType) {
    case GRANT.clientCredentials:
      requireGrant(client, grantType)
      return mint(endpoint, client, form, misbehaviour)
    case GRANT.exchange:
      requireGrant(client, grantType)
      return exchange(endpoint, client, form, misbehaviour)
    case GRANT.refresh:
      requireGrant(client, grantType)
      return refresh(endpoint, client, form, misbehaviour)
    default:
      throw new OAuthError('unsupported_grant_type', `the grant type ${grantType} is not supported`)
  }
}

/** RFC 6749 section 4.4. The subject is the client itself (facts/tokens.md section 1, statement 5). */
function mint(
  endpoint: TokenEndpoint,
  client: Client,
  form: Form,
  misbehaviour: Misbehaviour | undefined,
): Promise<TokenAnswer> {
  const scopes = mintableScopes(client, form.list('scope'))
  const grant = { clientId: client.id, subject: client.id, audience: askedAudience(form), scopes }
  return accessAnswer(endpoint, client, grant, misbehaviour)
}

/** RFC 8693. The subject stays; scopes and audience stay or get narrower. */
async function exchange(
  endpoint: TokenEndpoint,
  client: Client,
  form: Form,
  misbehaviour: Misbehaviour | undefined,
): Promise<TokenAnswer> {
  const type = form.require('subject_token_type')
  if (type !== TOKEN_TYPE.access && type !== TOKEN_TYPE.jwt) {
    throw new OAuthError('invalid_request', `subject tokens of the type ${type} are not supported`)
  }
  const subject = await endpoint.accessTokens.read(form.require('subject_token'))
  if (subject === undefined) throw new OAuthError('invalid_grant', 'the subject token is not good here')
  const asked = form.list('scope')
  const scopes = exchangeableScopes(client, subject.scopes, asked)
  const offline = asked.includes(OFFLINE_ACCESS)
  if (offline && subject.clientId === client.id) {
    throw new OAuthError('access_denied', 'a client may not exchange its own token for a refresh token')
  }
  const audience = narrowedAudience(subject.audience, askedAudience(form))
  const grant: RefreshGrant = { clientId: client.id, subject: subject.subject, audience, scopes }
  const refreshToken = offline ? endpoint.refreshTokens.issue(grant) : undefined
  if (refreshToken !== undefined && endpoint.exchangeShape === 'refresh_token') {
    // RFC 8693 section 2.2.1: what isn't an access token has the token type N_A.
    return {
      access_token: refreshToken,
      token_type: 'N_A',
      issued_token_type: TOKEN_TYPE.refresh,
      scope: asked.join(' '),
    }
  }
  return {
    ...(await accessAnswer(endpoint, client, grant, misbehaviour)),
    issued_token_type: TOKEN_TYPE.access,
    ...(refreshToken !== undefined && { refresh_token: refreshToken }),
  }
}

/** RFC 6749 section 6. The access token may be narrower; the new refresh token is good for what the old one was. */
async function refresh(
  endpoint: TokenEndpoint,
  client: Client,
  form: Form,
  misbehaviour: Misbehaviour | undefined,
): Promise<TokenAnswer> {
  const token = form.require('refresh_token')
  const held = endpoint.refreshTokens.read(token)
  if (held !== undefined && held.clientId !== client.id) {
    throw new OAuthError('invalid_grant', 'the refresh token was issued to another client')
  }
  const asked = form.list('scope').filter(scope => scope !== OFFLINE_ACCESS)
  const narrowed = held && {
    ...held,
    scopes: narrowedScopes(held.scopes, asked),
    audience: narrowedAudience(held.audience, askedAudience(form)),
  }
  const rotated = endpoint.refreshTokens.rotate(token)
  if (narrowed === undefined || rotated === undefined) {
    throw new OAuthError('invalid_grant', 'the refresh token is unknown, has expired or was used before')
  }
  return {
    ...(await accessAnswer(endpoint, client, narrowed, misbehaviour)),
    refresh_token: rotated.successor,
  }
}

async function accessAnswer(
  endpoint: TokenEndpoint,
  client: Client,
  grant: RefreshGrant,
  misbehaviour: Misbehaviour | undefined,
): Promise<TokenAnswer> {
  const request = spoil({ ...grant, seconds: client.accessTokenSeconds }, misbehaviour)
  const opaque = misbehaviour?.kind === 'opaque'
  return {
    access_token: opaque ? endpoint.random.bytes(24).toString('hex') : await endpoint.accessTokens.sign(request),
    token_type: 'Bearer',
    expires_in: client.accessTokenSeconds,
    ...(request.scopes.length > 0 && { scope: request.scopes.join(' ') }),
  }
}

/** INDIGO IAM takes it from any of the three, split at spaces. */
function askedAudience(form: Form): string[] {
  return form.list('audience', 'aud', 'resource')
}

/** RFC 8693 section 2.2.2 has a code of its own for this: `invalid_target`. */
function narrowedAudience(held: readonly string[], asked: readonly string[]): string[] {
  if (asked.length === 0) return [...held]
  const foreign = held.includes(ANY_AUDIENCE) ? undefined : asked.find(audience => !held.includes(audience))
  if (foreign !== undefined) throw new OAuthError('invalid_target', `the token presented is not for ${foreign}`)
  return [...asked]
}
