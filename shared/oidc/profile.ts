import type { JWTPayload } from 'jose'

/** The `scope` claim as a set. Undefined if it is there and no string. */
export function scopesOf({ scope }: JWTPayload): string[] | undefined {
  if (scope === undefined) return []
  return typeof scope === 'string' ? scope.split(' ').filter(part => part !== '') : undefined
}

/**
 * False for a `wlcg.ver` of another major than 1: what its claims mean is not known (facts/tokens.md section 1, statement 3).
 * A token without it is taken: Keycloak and EGI Check-in issue such, and no claim used here depends on it.
 */
export function isKnownProfile(claims: JWTPayload): boolean {
  const version = claims['wlcg.ver']
  return version === undefined || (typeof version === 'string' && /^1\.\d{1,6}$/.test(version))
}
