import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { calculateJwkThumbprint, importJWK, type JWK, type JWTPayload, SignJWT } from 'jose'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { AUDIENCE, type House } from './house.ts'

/** Signs with the house's issuer's own key: tokens for the API with whatever claims, for people that the issuer has none of. */
export async function signerOf(house: House): Promise<(claims: JWTPayload) => Promise<Secret>> {
  const jwk = JSON.parse(await readFile(join(house.sandbox.directory, 'issuer/es256.jwk'), 'utf8')) as JWK
  const key = await importJWK(jwk, 'ES256')
  const kid = await calculateJwkThumbprint(jwk)
  return async claims => {
    const now = Math.floor(systemClock.now() / 1000)
    const common = { iss: house.sandbox.issuer, aud: AUDIENCE, iat: now, exp: now + 600, jti: 'j', 'wlcg.ver': '1.0' }
    const signed = new SignJWT({ ...common, ...claims }).setProtectedHeader({ alg: 'ES256', kid })
    const token = new Secret(await signed.sign(key))
    house.leaks.guard('a token of a person', token)
    return token
  }
}
