import { createHash } from 'node:crypto'
import { decodeProtectedHeader, errors, jwtVerify } from 'jose'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Parsed } from '../wlcg.ts'
import { type Claims, judgeToken, type TokenRules } from './authorize.ts'
import type { IssuerKeys } from './issuer-keys.ts'
import type { Verified } from './macaroons.ts'

/** HMAC never: facts/tokens.md section 1, statement 4. */
const ALGORITHMS = ['RS256', 'ES256']
const MAX_REMEMBERED = 10_000

/** What a bearer token is good for here. A signature is checked once; times and audience every time. */
export class TokenVerifier {
  readonly #rules: TokenRules
  readonly #keys: IssuerKeys
  readonly #clock: Clock
  /** SHA-256 of the token -> the claims that its signature vouches for. */
  readonly #verified = new Map<string, Claims>()

  constructor(rules: TokenRules, keys: IssuerKeys, clock: Clock) {
    this.#rules = rules
    this.#keys = keys
    this.#clock = clock
  }

  /** Throws 503 when the issuer's keys can't be had. */
  async verify(token: string): Promise<Parsed<Verified>> {
    const key = createHash('sha256').update(token).digest('base64')
    const claims = this.#verified.get(key) ?? (await this.#checkSignature(token))
    if (claims === undefined) return { ok: false, reason: 'it is no JWT signed by the issuer with RS256 or ES256' }
    this.#remember(key, claims)
    const capabilities = judgeToken(claims, this.#rules, this.#clock.now() / 1000)
    if (!capabilities.ok) return capabilities
    return { ok: true, value: { capabilities: capabilities.value, expires: Number(claims.exp) } }
  }

  async #checkSignature(token: string): Promise<Claims | undefined> {
    try {
      const { kid } = decodeProtectedHeader(token)
      if (kid === undefined) return undefined
      const { payload } = await jwtVerify(token, await this.#keys.forKid(kid), {
        algorithms: ALGORITHMS,
        currentDate: new Date(this.#clock.now()),
      })
      return payload
    } catch (error) {
      // decodeProtectedHeader throws a TypeError on what is no JWT at all.
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined
      throw error
    }
  }

  #remember(key: string, claims: Claims): void {
    this.#verified.set(key, claims)
    if (this.#verified.size <= MAX_REMEMBERED) return
    const oldest = this.#verified.keys().next()
    if (!oldest.done) this.#verified.delete(oldest.value)
  }
}
