import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { storageWords } from '../../shared/storage/words.ts'

const JWT = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl-_'

describe("a storage's words", () => {
  const cases: [string, string, string][] = [
    ['stay as they are', 'Unable to create /exp/a; file exists', 'Unable to create /exp/a; file exists'],
    ['keep long file names', `/exp/${'Data_18.AOD-'.repeat(9)}.root`, `/exp/${'Data_18.AOD-'.repeat(9)}.root`],
    ['keep other scripts', 'kein Platz für Müller', 'kein Platz für Müller'],
    ['become one line', ' a\r\n\tb\u0000\u001b[31mc\u2028d\u202e ', 'a b [31mc d'],
    ['lose the tags of a page', '<html><body><h1>507</h1>No space</body></html>', '507 No space'],
    ['lose a JWT', `Invalid token ${JWT} here`, 'Invalid token [secret] here'],
    ['lose a JWT cut short', `Invalid token ${JWT.slice(0, 30)}`, 'Invalid token [secret]'],
    ['lose a bearer header', 'got Bearer abc.def', 'got [secret]'],
    ['lose an encoded bearer header', '/f?authz=Bearer%20abc&x=1', '/f?[secret]&x=1'],
    ['lose a query parameter', '/f?access_token=abcdef&x=1', '/f?[secret]&x=1'],
    ['lose a JSON member', '{"access_token": "abcdef"}', '{"[secret]"}'],
    ['lose a macaroon', 'MDAxY2xvY2F0aW9uIE9wdGlvbmFsLmVtcHR5Cg', '[secret]'],
    ['keep what is said of a token', 'token: expired', 'token: expired'],
  ]
  for (const [name, text, words] of cases) it(name, () => expect(storageWords(text)).to.equal(words))

  const OPAQUE = 'f3b0c442-98fc-4c14-9afb-f4c8996fb924'
  const BASE64 = 'q83vEjRWeJq8/d4SNFZ4mrze+BI0Vnia=='
  const LETTERS = 'abcdefghijklmnopqrstuvwxyz'
  const MACAROON = 'MDAxY2xvY2F0aW9uIE9wdGlvbmFsLmVtcHR5CjAwMThpZGVudGlmaWVy'
  /** `%` is the credential. */
  const credentials: [string, string][] = [
    ['Bearer %', JWT],
    ['bearer %', JWT.slice(0, 20)],
    ['BEARER %', OPAQUE],
    ['Authorization: Bearer %', BASE64],
    ['bearer token %', JWT],
    ['bearer token: %', OPAQUE],
    ['bearer token %', OPAQUE],
    ['Bearer: %', OPAQUE],
    ['Bearer "%"', OPAQUE],
    ['Bearer %', 'abc123'],
    ['Bearer %', 'aBcDeFgH'],
    ['Bearer %', LETTERS],
    ['Bearer %', 'x.y'],
    ['Bearer%20%', 'abc'],
    ['Bearer+%', 'abc'],
    ['Basic %', 'd2F5YmlsbC1zZXJ2ZXI6c2VjcmV0'],
    ['token=%', OPAQUE],
    ['token=%', 'abc'],
    ['token: %', OPAQUE],
    ['token %', BASE64],
    ['{"token":"%"}', OPAQUE],
    ['authorization: %', OPAQUE],
    ['access_token=%', 'abc'],
    ['access_token: %', OPAQUE],
    ['"refresh_token":"%"', 'abc'],
    ['client_secret=%', 'correct'],
    ['client_secret=%', BASE64],
    ['client_secret: %', OPAQUE],
    ['authz=%', 'abc'],
    ['%', JWT],
    ['%', MACAROON],
  ]
  for (const [said, credential] of credentials) {
    // The last one: one of them is an encoded space.
    const at = said.lastIndexOf('%')
    const text = `${said.slice(0, at)}${credential}${said.slice(at + 1)}`
    it(`lose the credential of ${text}`, () => {
      const words = storageWords(`heard ${text} here`)
      expect(words).to.match(/^heard .*\[secret\].* here$/)
      expect(words).not.to.contain(credential)
    })
  }

  const innocent = [
    'a bearer token is needed',
    'a bearer token, please',
    'Bearer tokens are not accepted here',
    'no Bearer token.',
    'Bearer authentication failed',
    'Bearer: missing',
    'BEARER TOKEN REQUIRED',
    'WWW-Authenticate: Bearer realm="dCache"',
    'Bearer error="invalid_token"',
    'Basic authentication is off',
    'access_token: expired',
    'client_secret: wrong',
    'token: expired',
    'token is not valid here: the claim exp is missing',
    'token misconfiguration',
    'token_endpoint_auth_method is unknown',
    'the token does not grant create on /data/exp/run1/AOD.12345678._000001.pool.root.1',
    'token storage.modify:/exp is too wide',
    'authorization denied for user',
  ]
  for (const text of innocent) it(`keep: ${text}`, () => expect(storageWords(text)).to.equal(text))

  it('lose the very token that was sent, whatever it looks like', () => {
    const token = new Secret('opaque-token-0123')
    expect(storageWords('who is opaque-token-0123?', [undefined, token])).to.equal('who is [secret]?')
  })

  it('have 1000 characters at most', () => {
    expect(storageWords(`${'x'.repeat(996)}\u{1F4BE}${'x'.repeat(10)}`)).to.equal(`${'x'.repeat(996)}...`)
    expect(storageWords('x'.repeat(1000))).to.have.length(1000)
    expect(storageWords('x'.repeat(1001)))
      .to.have.length(1000)
      .and.match(/\.\.\.$/)
  })
})
