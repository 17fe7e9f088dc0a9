import { expect } from 'chai'
import { type Claims, judgeToken, type Operation, permits } from '../../../sandbox/storage/authorize.ts'

/** facts/tokens.md section 1, statement by statement: the numbers are those of the list there. */
const STORAGE = 'https://se.example.org:8443'
const NOW = 1_800_000_000
const RULES = { issuer: 'https://iam.example.org', audiences: [STORAGE], basePath: ['vo'] }
const GOOD: Claims = {
  sub: 'waybill',
  exp: NOW + 600,
  iss: 'https://iam.example.org',
  'wlcg.ver': '1.0',
  aud: STORAGE,
  iat: NOW,
  jti: '4711',
  scope: 'storage.read:/foo/bar',
}

const judge = (changes: Claims) => judgeToken({ ...GOOD, ...changes }, RULES, NOW)

describe('a token at a storage is valid', () => {
  const cases: [statement: string, changes: Claims, valid: boolean][] = [
    ['as a whole', {}, true],
    ...['sub', 'exp', 'iss', 'wlcg.ver', 'aud', 'iat', 'jti'].map(
      claim => [`1: not without ${claim}`, { [claim]: undefined }, false] as [string, Claims, boolean],
    ),
    ['1: without a scope', { scope: undefined }, true],
    ['2: with a subject of 255 characters', { sub: 'x'.repeat(255) }, true],
    ['2: not with a subject of 256 characters', { sub: 'x'.repeat(256) }, false],
    ['2: not with a subject beyond ASCII', { sub: 'Zoë' }, false],
    ['3: with a newer minor version', { 'wlcg.ver': '1.99' }, true],
    ['3: not with an unknown major version', { 'wlcg.ver': '2.0' }, false],
    ['3: not with a version that is none', { 'wlcg.ver': '1' }, false],
    ['3: whatever claims it has besides', { admin: true, roles: ['root'] }, true],
    ['6: with the audience that every storage accepts', { aud: 'https://wlcg.cern.ch/jwt/v1/any' }, true],
    ['6: with an array of audiences that holds ours', { aud: ['https://other.example.org', STORAGE] }, true],
    ['6: not with an empty array of audiences', { aud: [] }, false],
    ['7: not with another audience', { aud: 'https://other.example.org' }, false],
    ['7: not with our audience in other letters', { aud: 'https://SE.example.org:8443' }, false],
    ['7: not with our audience and a slash', { aud: `${STORAGE}/` }, false],
    ['7: not with our bare host name', { aud: 'se.example.org' }, false],
    ['9: not with a storage scope without a path', { scope: 'storage.read:/foo storage.create' }, false],
    ['9: not with a storage scope with an empty path', { scope: 'storage.read: storage.create:/a' }, false],
    ['16: not with a dot segment in a scope', { scope: 'storage.read:/foo/../bar' }, false],
    ['16: not with a dot segment encoded twice', { scope: 'storage.read:/%252e%252e/bar' }, false],
    ['lifetimes: until the last second', { exp: NOW + 1 }, true],
    ['lifetimes: with no grace on exp', { exp: NOW }, false],
    ['lifetimes: not before nbf', { nbf: NOW + 1 }, false],
    ['lifetimes: from nbf on', { nbf: NOW }, true],
    ['not with an expiry that is no number', { exp: 'tomorrow' }, false],
    ['not from another issuer', { iss: 'https://iam.example.com' }, false],
    ['not with a scope that is no string', { scope: ['storage.read:/foo'] }, false],
  ]
  for (const [statement, changes, valid] of cases) {
    it(statement, () => expect(judge(changes).ok).to.equal(valid))
  }
})

describe('a valid token grants', () => {
  type Case = [statement: string, scope: string, operation: Operation, path: string, granted: boolean]
  const cases: Case[] = [
    ['10', 'storage.read:/foo', 'read', '/vo/foo/x', true],
    ['10', 'storage.read:/foo', 'list', '/vo/foo', true],
    ['10', 'storage.read:/foo', 'create', '/vo/foo/x', false],
    ['10', 'storage.read:/foo', 'delete', '/vo/foo/x', false],
    ['11', 'storage.create:/foo', 'create', '/vo/foo/x', true],
    ['11', 'storage.create:/foo', 'mkdir', '/vo/foo/x', true],
    ['11', 'storage.create:/foo/bar', 'mkdir', '/vo/foo', true],
    ['11', 'storage.create:/foo', 'rename', '/vo/foo/x', true],
    ['11', 'storage.create:/foo', 'replace', '/vo/foo/x', false],
    ['11', 'storage.create:/foo', 'delete', '/vo/foo/x', false],
    ['12', 'storage.modify:/foo', 'create', '/vo/foo/x', true],
    ['12', 'storage.modify:/foo', 'mkdir', '/vo/foo/x', true],
    ['12', 'storage.modify:/foo', 'rename', '/vo/foo/x', true],
    ['12', 'storage.modify:/foo', 'replace', '/vo/foo/x', true],
    ['12', 'storage.modify:/foo', 'delete', '/vo/foo/x', true],
    ['12', 'storage.modify:/foo', 'read', '/vo/foo/x', false],
    ['12', 'storage.modify:/foo', 'list', '/vo/foo', false],
    ['13', 'storage.stage:/foo', 'read', '/vo/foo/x', false],
    ['13', 'storage.stage:/foo', 'stage', '/vo/foo/x', true],
    ['13', 'storage.read:/foo', 'stage', '/vo/foo/x', false],
    ['13', 'storage.modify:/foo', 'stage', '/vo/foo/x', false],
    ['13', 'storage.stage:/foo', 'poll', '/vo/foo/x', true],
    ['14', 'storage.poll:/foo', 'poll', '/vo/foo/x', true],
    ['14', 'storage.poll:/foo', 'stage', '/vo/foo/x', false],
    ['14', 'storage.read:/foo', 'poll', '/vo/foo/x', true],
    ['14', 'storage.create:/foo', 'poll', '/vo/foo/x', true],
    ['14', 'storage.read:/foo', 'stat', '/vo/foo/x', true],
    ['14', 'storage.create:/foo', 'stat', '/vo/foo/x', true],
    ['14', 'storage.modify:/foo', 'stat', '/vo/foo/x', true],
    ['14', 'storage.stage:/foo', 'stat', '/vo/foo/x', true],
    ['14', 'storage.poll:/foo', 'stat', '/vo/foo/x', false],
    ['15', 'storage.create:/foo/bar', 'create', '/vo/foo/bar', true],
    ['15', 'storage.create:/foo/bar', 'create', '/vo/foo/bar/qux', true],
    ['15', 'storage.create:/foo/bar', 'create', '/vo/foo', false],
    ['15', 'storage.create:/foo/bar', 'create', '/vo/foo/bargain', false],
    ['15', 'storage.create:/foo/bar', 'mkdir', '/vo/foo/bargain', false],
    ['15', 'storage.read:/foo/bar', 'read', '/vo/foo', false],
    ['15', 'storage.create:/foo/bar/', 'create', '/vo/foo/bar', false],
    ['15', 'storage.create:/foo/bar/', 'mkdir', '/vo/foo/bar', true],
    ['15', 'storage.create:/foo/bar/', 'create', '/vo/foo/bar/x', true],
    ['15', 'storage.read:/foo/bar/', 'read', '/vo/foo/bar', false],
    ['15', 'storage.stage:/foo/bar/', 'stage', '/vo/foo/bar', false],
    ['16', 'storage.read:/a%20b', 'read', '/vo/a b/x', true],
    ['16', 'storage.read:/a//b', 'read', '/vo/a/b/x', true],
    ['17', 'storage.read:/', 'read', '/vo/x', true],
    ['17', 'storage.read:/', 'read', '/x', false],
    ['17', 'storage.read:/', 'read', '/volume/x', false],
    ['18', 'openid profile', 'stat', '/vo/x', false],
    ['more than one scope', 'storage.read:/a storage.create:/b', 'create', '/vo/b/x', true],
    ['more than one scope', 'storage.read:/a storage.create:/b', 'create', '/vo/a/x', false],
  ]
  for (const [statement, scope, operation, path, granted] of cases) {
    it(`${statement}: ${scope} ${granted ? 'allows' : 'denies'} ${operation} of ${path}`, () => {
      const token = judge({ scope })
      if (!token.ok) throw new Error(token.reason)
      expect(permits(token.value, operation, path.split('/').filter(Boolean))).to.equal(granted)
    })
  }

  it('18: nothing by its groups once it carries a capability, nor without one', () => {
    for (const scope of ['storage.read:/foo', undefined]) {
      const token = judge({ scope, 'wlcg.groups': ['/vo', '/vo/production'] })
      if (!token.ok) throw new Error(token.reason)
      expect(permits(token.value, 'delete', ['vo', 'foo', 'x'])).to.equal(false)
    }
  })
})
