import { expect } from 'chai'
import { firstMatch, type Mapping, type Presented } from '../../server/accounts/mapping.ts'

const IAM = 'https://iam.example.org/'
const CHECKIN = 'https://aai.egi.eu/auth/realms/egi'

function mapping(
  id: number,
  claim: Mapping['claim'],
  pattern: string,
  name: string,
  more: Partial<Mapping> = {},
): Mapping {
  return { id, issuer: IAM, claim, pattern, voId: 1, vo: 'exp', target: 'account', name, ...more }
}

/** In the order in which they are asked. */
const MAPPINGS: readonly Mapping[] = [
  mapping(1, 'sub', 'robot-*', 'robot-{1}'),
  mapping(2, 'client_id', 'webapp', 'web'),
  mapping(3, 'group', '/exp/users/*', '{1}'),
  mapping(4, 'group', '/exp/production', 'production'),
  mapping(5, 'entitlement', 'urn:mace:egi.eu:group:exp:role=*#aai.egi.eu', 'exp-{1}', { issuer: CHECKIN }),
  mapping(6, 'scope', 'waybill.export', 'export'),
  mapping(7, 'group', '/exp/**', 'exp', { target: 'pool' }),
]

const NOBODY: Presented = { issuer: IAM, subject: 's', clientId: undefined, groups: [], entitlements: [], scopes: [] }
const ROLE = 'urn:mace:egi.eu:group:exp:role=member#aai.egi.eu'

/** What a token says, and which mapping counts with which name; undefined: none. */
const TABLE: [string, Partial<Presented>, [id: number, name: string | undefined] | undefined][] = [
  ['nothing', {}, undefined],
  ['a subject', { subject: 'robot-7' }, [1, 'robot-7']],
  ['a subject of another issuer', { issuer: CHECKIN, subject: 'robot-7' }, undefined],
  ['an issuer but for its slash', { issuer: IAM.slice(0, -1), subject: 'robot-7' }, undefined],
  ['a client', { clientId: 'webapp' }, [2, 'web']],
  ['a client that only begins so', { clientId: 'webapp2' }, undefined],
  ['a group', { groups: ['/exp', '/exp/production'] }, [4, 'production']],
  ['a group that another claim has', { scopes: ['/exp/production'], entitlements: ['/exp/production'] }, undefined],
  ['a group below', { groups: ['/exp', '/exp/analysis/eu'] }, [7, 'exp']],
  ['the group itself, not below', { groups: ['/exp'] }, undefined],
  ['several groups: the order of the mappings counts', { groups: ['/exp/production', '/exp/users/al'] }, [3, 'al']],
  ['several that one matches: the order of the token', { groups: ['/exp/users/b', '/exp/users/a'] }, [3, 'b']],
  [
    'a capture that is no name: the first match counts',
    { groups: ['/exp/users/Al', '/exp/production'] },
    [3, undefined],
  ],
  ['a capture that is too long', { groups: [`/exp/users/${'x'.repeat(26)}`] }, [3, undefined]],
  ['an entitlement', { issuer: CHECKIN, entitlements: ['urn:x', ROLE] }, [5, 'exp-member']],
  ['an entitlement of another issuer', { entitlements: [ROLE] }, undefined],
  ['a scope', { scopes: ['openid', 'waybill.export'] }, [6, 'export']],
  ['a subject before all groups', { subject: 'robot-7', groups: ['/exp/production'] }, [1, 'robot-7']],
]

describe('mappings: which counts', () => {
  for (const [what, claims, expected] of TABLE) {
    it(`${what}: ${expected === undefined ? 'none' : `mapping ${expected[0]}`}`, () => {
      const match = firstMatch(MAPPINGS, { ...NOBODY, ...claims })
      expect(match && [match.mapping.id, match.name]).to.deep.equal(expected)
    })
  }
})
