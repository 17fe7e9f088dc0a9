import { type ClientAuth, ClientSecretPost, Configuration, customFetch } from 'openid-client'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import type { Clock } from '../runtime/clock.ts'
import { createDiscovery } from './discovery.ts'
import { findIssuerError, IssuerError } from './issuer-error.ts'
import { createIssuerFetch, type Fetch } from './issuer-fetch.ts'

/** The kinds of request that are counted. */
export type GrantType = 'client_credentials' | 'token_exchange' | 'refresh_token' | 'revocation'

export interface IssuerClientOptions {
  /** What the issuer calls itself: https, with or without a slash at the end, exactly as in its tokens' `iss`. */
  url: string
  clientId: string
  clientSecret: Secret
  authentication: 'basic' | 'post'
  /** How the issuer wants to be told the audience: IAM and Keycloak `audience`, RFC 8707 `resource`, older IAM `aud`. */
  audienceParameter: 'audience' | 'resource' | 'aud'
  fetch: Fetch
  clock: Clock
  /** For each request, in milliseconds. IAM has taken 5 to 20 s for a refresh under load (facts/tokens.md section 2). */
  timeoutMs: number
  /** Called once for each request of tokens or revocation: `outcome` is `ok` or the error's code. */
  onRequest?: (grantType: GrantType, outcome: string, seconds: number) => void
}

/** One client at one issuer's token endpoint: what the verbs (mint, exchange, refresh, revoke) are made of. */
export interface TokenEndpoint {
  /** The audience under the name this issuer wants. */
  audience(value: string): Record<string, string>
  /**
   * Runs one request and the reading of its answer, counts it, and turns whatever goes wrong into an `IssuerError`.
   * `requestedAt` is epoch milliseconds. Nothing is sent from `sendBy` on (on the client's monotonic clock): the metadata may
   * have to be loaded first, which takes as long as the issuer likes.
   */
  send<T>(
    grantType: GrantType,
    request: (configuration: Configuration, requestedAt: number) => Promise<T>,
    sendBy?: number,
  ): Promise<T>
  /** Loads the issuer's metadata, unless they are there. */
  discover(): Promise<void>
}

export function createTokenEndpoint(options: IssuerClientOptions): TokenEndpoint {
  const { url, clientId, clientSecret, clock, audienceParameter, onRequest } = options
  const issuerFetch = createIssuerFetch({ ...options, secrets: [clientSecret] })
  const metadata = createDiscovery(url, issuerFetch, clock)
  const authentication =
    options.authentication === 'basic' ? basic(clientId, clientSecret) : ClientSecretPost(clientSecret.reveal())

  async function configuration(): Promise<Configuration> {
    const configured = new Configuration(await metadata.get(), clientId, undefined, authentication)
    configured[customFetch] = issuerFetch
    configured.timeout = undefined // the deadline is `issuerFetch`'s
    return configured
  }

  return {
    audience: value => ({ [audienceParameter]: value }),
    async discover() {
      await metadata.get()
    },
    async send(grantType, request, sendBy = Number.POSITIVE_INFINITY) {
      const began = clock.monotonic()
      const report = (outcome: string): void => onRequest?.(grantType, outcome, (clock.monotonic() - began) / 1000)
      try {
        const configured = await configuration()
        if (clock.monotonic() >= sendBy) {
          throw new IssuerError('ISSUER_UNREACHABLE', `${url} told where to ask too late: nothing was sent`)
        }
        const result = await request(configured, clock.now())
        report('ok')
        return result
      } catch (error) {
        const failure =
          error instanceof WaybillError ? error : (findIssuerError(error) ?? unexpected(url, grantType, error))
        report(failure.code)
        throw failure
      }
    },
  }
}

/**
 * HTTP Basic as RFC 6749 section 2.3.1 has it (form-encoded, then base64), but leaving `-`, `_` and `.` alone, as form
 * encoding may: openid-client writes `%2D`, and issuers that never decode (Spring's Basic, in IAM) then know no client whose
 * id is a UUID.
 */
function basic(clientId: string, clientSecret: Secret): ClientAuth {
  const formEncoded = (text: string): string => new URLSearchParams([['', text]]).toString().slice(1)
  return (_server, _client, _body, headers) => {
    const credentials = `${formEncoded(clientId)}:${formEncoded(clientSecret.reveal())}`
    headers.set('authorization', `Basic ${Buffer.from(credentials).toString('base64')}`)
  }
}

/** openid-client's own refusals of an answer. Their code says which rule was broken; their text and cause may hold tokens. */
function unexpected(url: string, grantType: GrantType, error: unknown): IssuerError {
  const rule = error instanceof Error && 'code' in error && typeof error.code === 'string' ? ` (${error.code})` : ''
  return new IssuerError('ISSUER_NONSENSE', `${url} answered a ${grantType} request against the specification${rule}`)
}
