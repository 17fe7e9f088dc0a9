import { errors, type JWTPayload, jwtVerify, SignJWT } from 'jose'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Random } from '../../shared/runtime/random.ts'
import { ANY_AUDIENCE } from '../wlcg.ts'
import { words } from './oauth.ts'
import type { SigningKey } from './signing-key.ts'

export interface TokenRequest {
  readonly clientId: string
  readonly subject: string
  readonly audience: readonly string[]
  readonly scopes: readonly string[]
  readonly seconds: number
}

export interface AccessToken {
  readonly jti: string
  readonly clientId: string
  readonly subject: string
  readonly audience: readonly string[]
  readonly scopes: readonly string[]
  /** Seconds since the epoch. */
  readonly expiresAt: number
  readonly claims: JWTPayload
}

/**
 * Signs and reads the issuer's access tokens: JWTs of the WLCG profile. Remembers which were revoked until they
 * expire.
 */
export class AccessTokens {
  readonly #issuer: string
  readonly #key: SigningKey
  readonly #clock: Clock
  readonly #random: Random
  /** jti -> expiry, seconds. In memory: a revoked access token lives for an hour at most, and storages never ask. */
  readonly #revoked = new Map<string, number>()

  constructor(options: { issuer: string; key: SigningKey; clock: Clock; random: Random }) {
    this.#issuer = options.issuer
    this.#key = options.key
    this.#clock = options.clock
    this.#random = options.random
  }

  sign(request: TokenRequest): Promise<string> {
    const now = Math.floor(this.#clock.now() / 1000)
    const audience = request.audience.length === 0 ? [ANY_AUDIENCE] : request.audience
    const claims: JWTPayload = {
      iss: this.#issuer,
      sub: request.subject,
      // A lone audience is a string: older verifiers know no arrays.
      aud: audience.length === 1 ? String(audience[0]) : [...audience],
      iat: now,
      nbf: now,
      exp: now + request.seconds,
      jti: this.#random.uuid(),
      client_id: request.clientId,
      'wlcg.ver': '1.0',
      ...(request.scopes.length > 0 && { scope: request.scopes.join(' ') }),
    }
    return new SignJWT(claims)
      .setProtectedHeader({ alg: this.#key.algorithm, kid: this.#key.kid, typ: 'at+jwt' })
      .sign(this.#key.privateKey)
  }

  /** `undefined` when it isn't one of ours, has expired or was revoked. */
  async read(token: string): Promise<AccessToken | undefined> {
    const claims = await this.#verify(token)
    if (claims?.jti === undefined || claims.exp === undefined || this.#revoked.has(claims.jti)) return undefined
    return {
      jti: claims.jti,
      clientId: String(claims.client_id),
      subject: String(claims.sub),
      audience: [claims.aud ?? []].flat(),
      scopes: words(typeof claims.scope === 'string' ? claims.scope : ''),
      expiresAt: claims.exp,
      claims,
    }
  }

  revoke(token: AccessToken): void {
    const now = this.#clock.now() / 1000
    for (const [jti, expiresAt] of this.#revoked) if (expiresAt < now) this.#revoked.delete(jti)
    this.#revoked.set(token.jti, token.expiresAt)
  }

  async #verify(token: string): Promise<JWTPayload | undefined> {
    try {
      const { payload } = await jwtVerify(token, this.#key.publicKey, {
        algorithms: [this.#key.algorithm],
        issuer: this.#issuer,
        currentDate: new Date(this.#clock.now()),
      })
      return payload
    } catch (error) {
      if (error instanceof errors.JOSEError) return undefined
      throw error
    }
  }
}
