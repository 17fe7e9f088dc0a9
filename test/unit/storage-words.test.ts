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

  it('lose the very token that was sent, whatever it looks like', () => {
    const token = new Secret('opaque-token-0123')
    expect(storageWords('who is opaque-token-0123?', [undefined, token])).to.equal('who is [secret]?')
  })

  it('have 1000 characters at most', () => {
    expect(storageWords('x'.repeat(1000))).to.have.length(1000)
    expect(storageWords('x'.repeat(1001)))
      .to.have.length(1000)
      .and.match(/\.\.\.$/)
  })
})
