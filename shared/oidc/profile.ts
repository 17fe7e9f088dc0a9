import type { JWTPayload } from 'jose'

/** The `scope` claim as a set. Undefined if it is there and no string. */
export function scopesOf({ scope }: JWTPayload): string[] | undefined {
  if (scope === undefined) return []
  return typeof scope === 'string' ? scope.split(' ').filter(part => part !== '') : undefined
}

/** More of a claim's elements are not looked at, nor longer ones: an issuer may give out what it likes. */
const MOST_ELEMENTS = 200
const LONGEST_ELEMENT = 300

/** `wlcg.groups` (facts/tokens.md section 1, statement 19), then `groups`, as Keycloak and others have it; in the token's order. */
export function groupsOf(claims: JWTPayload): string[] {
  return elementsOf(claims['wlcg.groups'], claims.groups)
}

/** Of EGI Check-in and others (AARC-G069): URNs. */
export function entitlementsOf(claims: JWTPayload): string[] {
  return elementsOf(claims.eduperson_entitlement, claims.entitlements)
}

/** Lists, or a single text; what is no text of a line is left out. */
function elementsOf(...claims: unknown[]): string[] {
  const given: unknown[] = claims.flatMap(claim => claim ?? []).slice(0, MOST_ELEMENTS)
  const isGood = (value: unknown): value is string =>
    typeof value === 'string' && value.length <= LONGEST_ELEMENT && /^[^\p{Cc}\p{Cs}]+$/u.test(value)
  return [...new Set(given.filter(isGood))]
}

/**
 * False for a `wlcg.ver` of another major than 1: what its claims mean is not known (facts/tokens.md section 1, statement 3).
 * A token without it is taken: Keycloak and EGI Check-in issue such, and no claim used here depends on it.
 */
export function isKnownProfile(claims: JWTPayload): boolean {
  const version = claims['wlcg.ver']
  return version === undefined || (typeof version === 'string' && /^1\.\d{1,6}$/.test(version))
}
