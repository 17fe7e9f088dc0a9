import type { Secret } from '../shared/domain/secret.ts'
import type { HttpClient } from '../shared/http/client.ts'
import type { IssuerClient, TokenSet } from '../shared/oidc/issuer-client.ts'
import type { Clock } from '../shared/runtime/clock.ts'

export interface ApiTokenOptions {
  readonly issuer: Pick<IssuerClient, 'mint'>
  /** What the rules server calls itself in tokens. */
  readonly audience: string
  readonly scopes: readonly string[]
  readonly clock: Clock
}

/** The worker's own token for the rules server: minted with client credentials, kept for half of its life. */
export class ApiToken {
  readonly #options: ApiTokenOptions
  #held: { token: Secret; until: number } | undefined
  #minting: Promise<TokenSet> | undefined

  constructor(options: ApiTokenOptions) {
    this.#options = options
  }

  /** Rejects with `IssuerError`. */
  async get(): Promise<Secret> {
    const { issuer, audience, scopes, clock } = this.#options
    if (this.#held !== undefined && clock.monotonic() < this.#held.until) return this.#held.token
    this.#minting ??= issuer.mint({ audience, scopes }).finally(() => {
      this.#minting = undefined
    })
    const { accessToken, expiresAt } = await this.#minting
    this.#held = { token: accessToken, until: clock.monotonic() + (expiresAt - clock.now()) / 2 }
    return accessToken
  }

  /** The client, with one thing more: after a 401 the next request brings a new token. */
  watching(client: HttpClient): HttpClient {
    return {
      request: async request => {
        const response = await client.request(request)
        if (response.status === 401) this.#held = undefined
        return response
      },
      close: () => client.close(),
    }
  }
}
