import { expect } from 'chai'
import { UnsecuredJWT } from 'jose'
import { Secret } from '../../shared/domain/secret.ts'
import { checkToken, type TokenFault } from '../../shared/oidc/check-token.ts'
import { refusal } from './oidc-local-issuer.ts'

type Claims = Record<string, unknown>

const NOW = Date.parse('2026-11-22T12:00:00Z')
const ISSUER = 'https://iam.example/'
const AUDIENCE = 'https://storage.example'
const EXPECTED = { issuer: ISSUER, audience: AUDIENCE, scopes: ['storage.create:/ds', 'storage.read:/ds'], now: NOW }
const GOOD = {
  iss: ISSUER,
  aud: AUDIENCE,
  sub: 'waybill',
  jti: '3f0e',
  iat: NOW / 1000,
  exp: NOW / 1000 + 3600,
  'wlcg.ver': '1.0',
  scope: 'storage.read:/ds storage.create:/ds',
}

function token(claims: Claims): Secret {
  return new Secret(new UnsecuredJWT(claims).encode())
}

describe('check of a token that an issuer gave', () => {
  const good: [what: string, claims: Claims][] = [
    ['as asked', {}],
    ['an audience in a list of one', { aud: [AUDIENCE] }],
    ['a newer minor of the profile', { 'wlcg.ver': '1.3' }],
    ['no profile version (Keycloak)', { 'wlcg.ver': undefined }],
    ['scopes in another order, repeated', { scope: 'storage.create:/ds  storage.read:/ds storage.read:/ds' }],
    ['scopes in another spelling', { scope: 'storage.create:/%64s storage.read:/d%73' }],
    ['scopes that are not about storages', { scope: `${GOOD.scope} openid offline_access` }],
    ['groups', { 'wlcg.groups': ['/cms'] }],
    ['no iat', { iat: undefined }],
    ['one second left', { exp: NOW / 1000 + 1 }],
  ]
  for (const [what, claims] of good) {
    it(`takes ${what}`, () => expect(checkToken(token({ ...GOOD, ...claims }), EXPECTED)).to.include({ jti: '3f0e' }))
  }

  it('compares encoded paths in one spelling', () => {
    const given = token({ ...GOOD, scope: 'storage.read:/%c3%a9/%7Ea' })
    expect(checkToken(given, { ...EXPECTED, scopes: ['storage.read:/%C3%A9/~a'] })).to.include({ jti: '3f0e' })
    expect(checkToken(given, { ...EXPECTED, scopes: ['storage.read:/%c3%a9/%7ea'] })).to.include({ jti: '3f0e' })
  })

  it('returns what may be kept of it', () => {
    expect(checkToken(token(GOOD), EXPECTED)).to.deep.equal({
      jti: '3f0e',
      expiresAt: NOW + 3_600_000,
      // of the whole token, by sha256sum
      sha256: 'e36d22f29bac44695a21c13d83c09358a5a545eef4a67a78d635a3c366afea35',
    })
  })

  const bad: [what: string, claims: Claims, code: TokenFault][] = [
    ['another issuer', { iss: 'https://iam.example' }, 'TOKEN_ISSUER'],
    ['no issuer', { iss: undefined }, 'TOKEN_ISSUER'],
    ['the `any` audience', { aud: 'https://wlcg.cern.ch/jwt/v1/any' }, 'TOKEN_AUDIENCE'],
    ['a second audience', { aud: [AUDIENCE, 'https://other.example'] }, 'TOKEN_AUDIENCE'],
    ['an audience with a slash more', { aud: `${AUDIENCE}/` }, 'TOKEN_AUDIENCE'],
    ['an audience in other letters', { aud: AUDIENCE.toUpperCase() }, 'TOKEN_AUDIENCE'],
    ['no audience', { aud: undefined }, 'TOKEN_AUDIENCE'],
    ['an empty list of audiences', { aud: [] }, 'TOKEN_AUDIENCE'],
    ['an unknown major of the profile', { 'wlcg.ver': '2.0' }, 'TOKEN_MALFORMED'],
    ['a profile version that is none', { 'wlcg.ver': 1 }, 'TOKEN_MALFORMED'],
    ['another storage scope', { scope: `${GOOD.scope} storage.modify:/ds` }, 'TOKEN_WIDER'],
    ['the whole storage', { scope: `${GOOD.scope} storage.read:/` }, 'TOKEN_WIDER'],
    ['a directory inside', { scope: `${GOOD.scope} storage.read:/ds/x` }, 'TOKEN_WIDER'],
    ['a storage scope without a path', { scope: `${GOOD.scope} storage.read` }, 'TOKEN_WIDER'],
    ['a path that climbs', { scope: `${GOOD.scope} storage.read:/ds/%2e%2E` }, 'TOKEN_WIDER'],
    ['one scope less', { scope: 'storage.read:/ds' }, 'TOKEN_NARROWER'],
    ['no scopes', { scope: undefined }, 'TOKEN_NARROWER'],
    ['scopes in a list', { scope: ['storage.read:/ds'] }, 'TOKEN_MALFORMED'],
    ['no jti', { jti: undefined }, 'TOKEN_MALFORMED'],
    ['a jti with a line break', { jti: 'a\nb' }, 'TOKEN_MALFORMED'],
    ['no sub', { sub: undefined }, 'TOKEN_MALFORMED'],
    ['a sub that is too long', { sub: 's'.repeat(256) }, 'TOKEN_MALFORMED'],
    ['its end now', { exp: NOW / 1000 }, 'TOKEN_EXPIRED'],
    ['no end', { exp: undefined }, 'TOKEN_EXPIRED'],
    ['an end that is no number', { exp: 'tomorrow' }, 'TOKEN_EXPIRED'],
  ]
  for (const [what, claims, code] of bad) {
    it(`${what}: ${code}`, () => {
      const error = refusal(() => checkToken(token({ ...GOOD, ...claims }), EXPECTED))
      expect(error.code).to.equal(code)
      expect(error.message).to.match(/^[\x20-\x7e]{20,600}$/)
    })
  }

  for (const opaque of ['8f2c77d0-1d2e-4a7b', 'a.b', 'a.b.c', 'a.b.c.d.e', '']) {
    it(`${JSON.stringify(opaque)}: TOKEN_OPAQUE`, () =>
      expect(refusal(() => checkToken(new Secret(opaque), EXPECTED)).code).to.equal('TOKEN_OPAQUE'))
  }
})
