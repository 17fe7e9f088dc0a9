import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import type { HttpClient } from '../../shared/http/client.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import { Refusal } from './refusal.ts'

/** facts/tokens.md section 1, "Lifetimes". */
const REFRESH_MS = 6 * 60 * 60 * 1000
/** Neither tokens of strangers with unknown kids nor an issuer that is down make us ask more often than this. */
const PAUSE_MS = 1_000
const MAX_BYTES = 256 * 1024

interface FetchedKeys {
  readonly keys: JWTVerifyGetKey
  readonly kids: ReadonlySet<string | undefined>
  readonly at: number
}

/** The issuer's public keys, fetched when they are first needed. Old ones stay good while the issuer can't be asked. */
export class IssuerKeys {
  readonly #issuer: string
  readonly #http: HttpClient
  readonly #clock: Clock
  readonly #log: Logger
  #fetched: FetchedKeys | undefined
  #askedAt = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | undefined

  constructor(issuer: string, http: HttpClient, clock: Clock, log: Logger) {
    this.#issuer = issuer
    this.#http = http
    this.#clock = clock
    this.#log = log
  }

  /** A key source for `jwtVerify` that knows `kid`, if the issuer does. Throws 503 when there are no keys at all. */
  async forKid(kid: string): Promise<JWTVerifyGetKey> {
    if (this.#asking !== undefined || this.#shouldAsk(kid)) {
      this.#asking ??= this.#ask().finally(() => {
        this.#asking = undefined
      })
      await this.#asking
    }
    if (this.#fetched === undefined) throw new Refusal(503, 'the keys of the token issuer can`t be had')
    return this.#fetched.keys
  }

  #shouldAsk(kid: string): boolean {
    const now = this.#clock.monotonic()
    if (now - this.#askedAt < PAUSE_MS) return false
    return this.#fetched === undefined || !this.#fetched.kids.has(kid) || now - this.#fetched.at > REFRESH_MS
  }

  async #ask(): Promise<void> {
    this.#askedAt = this.#clock.monotonic()
    try {
      const metadata = await this.#get(`${this.#issuer}/.well-known/openid-configuration`)
      const jwks = (await this.#get(String(metadata.jwks_uri))) as unknown as JSONWebKeySet
      const keys = createLocalJWKSet(jwks)
      this.#fetched = { keys, kids: new Set(jwks.keys.map(key => key.kid)), at: this.#clock.monotonic() }
    } catch (error) {
      this.#log.warn({ issuer: this.#issuer, err: error }, 'the keys of the token issuer could not be fetched')
    }
  }

  async #get(url: string): Promise<Record<string, unknown>> {
    const response = await this.#http.request({ method: 'GET', url })
    const text = await response.text(MAX_BYTES)
    if (response.status !== 200) throw new Error(`GET ${url}: ${response.status}`)
    return JSON.parse(text)
  }
}
