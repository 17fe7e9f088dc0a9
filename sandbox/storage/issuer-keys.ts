import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'
import type { HttpClient } from '../../shared/http/client.ts'
import type { Clock } from '../../shared/runtime/clock.ts'

/** facts/tokens.md section 1, "Lifetimes". */
const REFRESH_MS = 6 * 60 * 60 * 1000
/** An unknown kid asks again, but no more often than this, or strangers' tokens would make us ask all the time. */
const UNKNOWN_KID_MS = 5_000
const MAX_BYTES = 256 * 1024

/** The issuer's public keys, fetched when they are first needed. */
export class IssuerKeys {
  readonly #issuer: string
  readonly #http: HttpClient
  readonly #clock: Clock
  #fetched: { keys: JWTVerifyGetKey; kids: ReadonlySet<string | undefined>; at: number } | undefined
  #fetching: Promise<void> | undefined

  constructor(issuer: string, http: HttpClient, clock: Clock) {
    this.#issuer = issuer
    this.#http = http
    this.#clock = clock
  }

  /** A key source for `jwtVerify` that surely knows `kid`, if the issuer does. Throws `HttpFailure` when it can't be asked. */
  async forKid(kid: string): Promise<JWTVerifyGetKey> {
    const age = this.#fetched === undefined ? Number.POSITIVE_INFINITY : this.#clock.monotonic() - this.#fetched.at
    const known = this.#fetched?.kids.has(kid) === true
    if (age > REFRESH_MS || (!known && age > UNKNOWN_KID_MS)) {
      this.#fetching ??= this.#fetch().finally(() => {
        this.#fetching = undefined
      })
      await this.#fetching
    }
    if (this.#fetched === undefined) throw new Error('the keys of the issuer were fetched and are not there')
    return this.#fetched.keys
  }

  async #fetch(): Promise<void> {
    const metadata = await this.#get(`${this.#issuer}/.well-known/openid-configuration`)
    const jwks = (await this.#get(String(metadata.jwks_uri))) as unknown as JSONWebKeySet
    const keys = createLocalJWKSet(jwks)
    this.#fetched = { keys, kids: new Set(jwks.keys.map(key => key.kid)), at: this.#clock.monotonic() }
  }

  async #get(url: string): Promise<Record<string, unknown>> {
    const response = await this.#http.request({ method: 'GET', url })
    const text = await response.text(MAX_BYTES)
    if (response.status !== 200) throw new Error(`GET ${url}: ${response.status}`)
    return JSON.parse(text)
  }
}
