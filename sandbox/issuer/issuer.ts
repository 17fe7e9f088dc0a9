import { mkdir } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { Secret } from '../../shared/domain/secret.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import type { Random } from '../../shared/runtime/random.ts'
import type { Authority } from '../authority.ts'
import { type RunningService, serveHttps } from '../https-service.ts'
import { AccessTokens } from './access-tokens.ts'
import { authenticate, type Client } from './clients.ts'
import { answerStatus, Conduct, type Misbehaviour, quote } from './misbehaviour.ts'
import { answerError, answerJson, type Form, GRANT, OAuthError, readForm, TOKEN_TYPE } from './oauth.ts'
import { RefreshTokens } from './refresh-tokens.ts'
import { OFFLINE_ACCESS } from './scope-policy.ts'
import { ensureSigningKey, type SigningAlgorithm, type SigningKey } from './signing-key.ts'
import { answerTokenRequest, type ExchangeShape, type TokenEndpoint } from './token-endpoint.ts'

export interface IssuerOptions {
  readonly url: string
  readonly port: number
  /** Where the signing key and the hashes of refresh tokens are kept. */
  readonly directory: string
  readonly authority: Authority
  readonly clients: readonly Client[]
  readonly algorithm: SigningAlgorithm
  readonly exchangeShape: ExchangeShape
  readonly refreshTokenSeconds: number
  /** How long a refresh token that was used remains good. */
  readonly rotationGraceSeconds: number
  /** Told every access and refresh token that is given out: for tests that look where they went. */
  readonly onToken?: ((token: Secret) => void) | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
}

export interface RunningIssuer extends RunningService {
  /** Requests to the token endpoint so far, by grant type. */
  readonly requests: ReadonlyMap<string, number>
  /** From now on, until called again; `undefined` ends it. */
  misbehave(misbehaviour: Misbehaviour | undefined): void
}

/** Starts the issuer: an OpenID provider with just what machines need. */
export async function serveIssuer(options: IssuerOptions): Promise<RunningIssuer> {
  const { clock, random, url } = options
  await mkdir(options.directory, { recursive: true, mode: 0o700 })
  const key = await ensureSigningKey(
    join(options.directory, `${options.algorithm.toLowerCase()}.jwk`),
    options.algorithm,
  )
  const refreshTokens = await RefreshTokens.load({
    file: join(options.directory, 'refresh-tokens.ndjson'),
    lifetimeSeconds: options.refreshTokenSeconds,
    graceSeconds: options.rotationGraceSeconds,
    clock,
    random,
  })
  const accessTokens = new AccessTokens({ issuer: url, key, clock, random })
  const issuer = new Issuer(options, key, { accessTokens, refreshTokens, exchangeShape: options.exchangeShape, random })
  const service = await serveHttps('issuer', options.port, options.authority, (request, response) =>
    issuer.handle(request, response),
  )
  return {
    ...service,
    requests: issuer.requests,
    misbehave: misbehaviour => issuer.conduct.set(misbehaviour),
  }
}

class Issuer {
  readonly requests = new Map<string, number>()
  readonly conduct = new Conduct()
  readonly #options: IssuerOptions
  readonly #metadata: object
  readonly #jwks: object
  readonly #endpoint: TokenEndpoint

  constructor(options: IssuerOptions, key: SigningKey, endpoint: TokenEndpoint) {
    this.#options = options
    this.#metadata = metadata(options.url, key.algorithm)
    this.#jwks = { keys: [key.publicJwk] }
    this.#endpoint = endpoint
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#route(request, response)
    } catch (error) {
      if (error instanceof OAuthError) return answerError(response, error)
      if (response.destroyed) return
      this.#options.log.error({ err: error }, 'issuer: a request failed')
      answerError(response, new OAuthError('server_error', 'the issuer failed; its log says why', 500))
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // XRootD's token library asks for `//.well-known/...` when the issuer ends in `/` (facts/tokens.md section 2).
    const path = (request.url ?? '/').replace(/\?.*$/s, '').replace(/^\/+/, '/')
    switch (`${request.method} ${path}`) {
      case 'GET /.well-known/openid-configuration':
      case 'GET /.well-known/oauth-authorization-server':
        return answerJson(response, 200, this.#metadata)
      case 'GET /jwks':
        return answerJson(response, 200, this.#jwks, { 'Cache-Control': 'max-age=21600' })
      case 'POST /token':
        return this.#token(request, response)
      case 'POST /introspect':
        return this.#introspect(request, response)
      case 'POST /revoke':
        return this.#revoke(request, response)
      default:
        return answerJson(response, 404, { error: 'not_found' })
    }
  }

  async #token(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const form = await readForm(request)
    const grantType = form.get('grant_type')
    if (grantType !== undefined) this.requests.set(grantType, (this.requests.get(grantType) ?? 0) + 1)
    const misbehaviour = this.conduct.next(grantType, form.list('scope'))
    if (misbehaviour?.kind === 'status') return answerStatus(response, misbehaviour)
    if (misbehaviour?.kind === 'quote') throw quote(request, form)
    const client = this.#authenticate(request, form)
    const answer = await answerTokenRequest(this.#endpoint, client, form, misbehaviour)
    for (const token of [answer.access_token, answer.refresh_token]) {
      if (token !== undefined) this.#options.onToken?.(new Secret(token))
    }
    answerJson(response, 200, answer)
  }

  /** RFC 7662. Any client may ask about any token: storages of a sandbox share its issuer. */
  async #introspect(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const form = await readForm(request)
    this.#authenticate(request, form)
    const token = form.require('token')
    const access = await this.#endpoint.accessTokens.read(token)
    if (access !== undefined) return answerJson(response, 200, { active: true, token_type: 'Bearer', ...access.claims })
    const refresh = this.#endpoint.refreshTokens.read(token)
    if (refresh === undefined) return answerJson(response, 200, { active: false })
    answerJson(response, 200, {
      active: true,
      token_type: TOKEN_TYPE.refresh,
      client_id: refresh.clientId,
      sub: refresh.subject,
      aud: refresh.audience,
      scope: refresh.scopes.join(' '),
      exp: Math.floor(refresh.expiresAt / 1000),
    })
  }

  /** RFC 7009: what is unknown is revoked already; what was issued to another client is refused. */
  async #revoke(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const form = await readForm(request)
    const client = this.#authenticate(request, form)
    const token = form.require('token')
    const access = await this.#endpoint.accessTokens.read(token)
    const owner = access?.clientId ?? this.#endpoint.refreshTokens.ownerOf(token)
    if (owner !== undefined && owner !== client.id) {
      throw new OAuthError('unauthorized_client', 'the token was issued to another client')
    }
    if (access !== undefined) this.#endpoint.accessTokens.revoke(access)
    else this.#endpoint.refreshTokens.revoke(token)
    response.writeHead(200, { 'Content-Length': 0, 'Cache-Control': 'no-store' }).end()
  }

  #authenticate(request: IncomingMessage, form: Form): Client {
    return authenticate(this.#options.clients, request, form)
  }
}

/** OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2. */
function metadata(url: string, algorithm: SigningAlgorithm): object {
  return {
    issuer: url,
    token_endpoint: `${url}/token`,
    jwks_uri: `${url}/jwks`,
    introspection_endpoint: `${url}/introspect`,
    revocation_endpoint: `${url}/revoke`,
    grant_types_supported: Object.values(GRANT),
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    response_types_supported: [],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: [algorithm],
    scopes_supported: ['storage.read:', 'storage.create:', 'storage.modify:', 'storage.stage:', OFFLINE_ACCESS],
  }
}
