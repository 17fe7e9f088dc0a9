import type { MappingClaim } from '../../shared/contract/routes/mappings.ts'
import { fillTemplate, matchPattern } from '../../shared/domain/claim-pattern.ts'
import { checkName } from '../../shared/domain/names.ts'
import type { VerifiedBearer } from '../../shared/oidc/verify-bearer.ts'

/** One line of the list that an admin keeps, as HTCondor's map file has them. */
export interface Mapping {
  readonly id: number
  readonly issuer: string
  readonly claim: MappingClaim
  readonly pattern: string
  readonly voId: number
  readonly vo: string
  readonly target: 'account' | 'pool'
  /** `{1}` is what the first wildcard stood for. */
  readonly name: string
}

/** What of a token can be matched. */
export type Presented = Pick<VerifiedBearer, 'issuer' | 'subject' | 'clientId' | 'groups' | 'entitlements' | 'scopes'>

export interface Match {
  readonly mapping: Mapping
  /** Of an account or pool, which need not be there; undefined: what came out is no name of one. */
  readonly name: string | undefined
}

/**
 * The first mapping that matches decides, also when it leads nowhere: the next may be for everybody else. Of a claim with
 * several elements the first that matches, in the token's order. Pure.
 */
export function firstMatch(mappings: readonly Mapping[], who: Presented): Match | undefined {
  for (const mapping of mappings) {
    if (mapping.issuer !== who.issuer) continue
    for (const value of valuesOf(who, mapping.claim)) {
      const captures = matchPattern(mapping.pattern, value)
      if (captures === undefined) continue
      // As it is in the token: lower case would make one account of two people.
      const name = fillTemplate(mapping.name, captures)
      return { mapping, name: checkName('account', name) === undefined ? name : undefined }
    }
  }
  return undefined
}

function valuesOf(who: Presented, claim: MappingClaim): readonly string[] {
  switch (claim) {
    case 'sub':
      return [who.subject]
    case 'client_id':
      return who.clientId === undefined ? [] : [who.clientId]
    case 'group':
      return who.groups
    case 'entitlement':
      return who.entitlements
    case 'scope':
      return who.scopes
  }
}
