import { expect } from 'chai'
import fc from 'fast-check'
import { MAX_DIRECTORIES, type ScopeRequest, scopesFor } from '../../server/tokens/scopes.ts'
import type { GrantPurpose } from '../../shared/domain/grant-state.ts'
import { refusal } from './oidc-local-issuer.ts'

const read = (request: Partial<ScopeRequest>): string[] =>
  scopesFor({ purpose: 'read', directories: [], basePath: '/', prefix: '/', ...request })

describe('scopes of a grant', () => {
  const purposes: [GrantPurpose, ...string[]][] = [
    ['read', 'storage.read:/ds'],
    ['list', 'storage.read:/ds'],
    ['write', 'storage.create:/ds', 'storage.read:/ds'],
    ['clean-up', 'storage.modify:/ds', 'storage.read:/ds'],
    ['delete', 'storage.modify:/ds', 'storage.read:/ds'],
    ['stage', 'storage.read:/ds', 'storage.stage:/ds'],
  ]
  for (const [purpose, ...scopes] of purposes) {
    it(`to ${purpose}: ${scopes.join(' ')}`, () =>
      expect(scopesFor({ purpose, directories: ['/vo/ds'], basePath: '/vo', prefix: '/vo' })).to.deep.equal(scopes))
  }

  const table: [what: string, request: Partial<ScopeRequest>, ...scopes: string[]][] = [
    ['sorts', { directories: ['/b', '/a'] }, 'storage.read:/a', 'storage.read:/b'],
    ['repeats nothing', { directories: ['/a', '/a', '/a/'] }, 'storage.read:/a'],
    [
      'drops what another covers',
      { directories: ['/a/b/c', '/a/b', '/a/bc'] },
      'storage.read:/a/b',
      'storage.read:/a/bc',
    ],
    ['takes the base path off', { directories: ['/vo/x'], basePath: '/vo/' }, 'storage.read:/x'],
    ['the base path itself is `/`', { directories: ['/vo'], basePath: '/vo' }, 'storage.read:/'],
    ['no base path', { directories: ['/vo/x'], prefix: '/vo' }, 'storage.read:/vo/x'],
    ['a prefix above the base path', { directories: ['/vo/x'], prefix: '/', basePath: '/vo' }, 'storage.read:/x'],
    ['encodes', { directories: ['/a b/é%/"<|\\>'] }, 'storage.read:/a%20b/%C3%A9%25/%22%3C%7C%5C%3E'],
    ['encodes no more than it must', { directories: ["/~a.-_/!$&'()*+,;=:@"] }, "storage.read:/~a.-_/!$&'()*+,;=:@"],
    ['dots in names are no dot segments', { directories: ['/..a/b../...'] }, 'storage.read:/..a/b../...'],
  ]
  for (const [what, request, ...scopes] of table) {
    it(what, () => expect(read(request)).to.deep.equal(scopes))
  }

  const many = Array.from({ length: MAX_DIRECTORIES + 1 }, (_, index) => `/d${index}`)
  const refused: [what: string, request: Partial<ScopeRequest>, code: string][] = [
    ['no directory', {}, 'SCOPE_EMPTY'],
    ['too many', { directories: many }, 'SCOPE_TOO_MANY'],
    ['a relative path', { directories: ['a'] }, 'SCOPE_PATH_INVALID'],
    ['an empty path', { directories: [''] }, 'SCOPE_PATH_INVALID'],
    ['an empty segment', { directories: ['/a//b'] }, 'SCOPE_PATH_INVALID'],
    ['two slashes at the end', { directories: ['/a//'] }, 'SCOPE_PATH_INVALID'],
    ['..', { directories: ['/a/../b'] }, 'SCOPE_PATH_INVALID'],
    ['. at the end', { directories: ['/a/.'] }, 'SCOPE_PATH_INVALID'],
    ['%2e%2e', { directories: ['/a/%2e%2E'] }, 'SCOPE_PATH_INVALID'],
    ['.%252e', { directories: ['/a/.%252e/b'] }, 'SCOPE_PATH_INVALID'],
    ['%25252E', { directories: ['/a/%25252E'] }, 'SCOPE_PATH_INVALID'],
    ['a line break', { directories: ['/a\nb'] }, 'SCOPE_PATH_INVALID'],
    ['half a character', { directories: ['/a\ud800'] }, 'SCOPE_PATH_INVALID'],
    ['a bad base path', { directories: ['/a'], basePath: '/../a' }, 'SCOPE_PATH_INVALID'],
    ['a bad prefix', { directories: ['/a'], prefix: 'a' }, 'SCOPE_PATH_INVALID'],
    // Rucio makes `ology/x` of this (facts/tokens.md section 3).
    [
      'a base path that ends inside a segment',
      { directories: ['/pathology/x'], basePath: '/path' },
      'SCOPE_OUTSIDE_BASE',
    ],
    ['a directory above the base path', { directories: ['/vo'], basePath: '/vo/x' }, 'SCOPE_OUTSIDE_BASE'],
    ['a directory above the prefix', { directories: ['/vo'], prefix: '/vo/x' }, 'SCOPE_OUTSIDE_PREFIX'],
    ['one directory of two outside', { directories: ['/vo/x', '/vox'], prefix: '/vo' }, 'SCOPE_OUTSIDE_PREFIX'],
  ]
  for (const [what, request, code] of refused) {
    it(`${what}: ${code}`, () => expect(refusal(() => read(request))).to.include({ code, status: 400 }))
  }

  it('counts only what is left after dropping what is covered', () => {
    expect(read({ directories: [...many, '/'] })).to.deep.equal(['storage.read:/'])
  })

  describe('properties', () => {
    /** Few and mean, so that they meet. */
    const segment = fc.constantFrom('a', 'ab', 'b', 'a b', '%41', 'a%2Fb', '~x', 'é', '+', '..a')
    const path = fc.array(segment, { maxLength: 4 }).map(segments => `/${segments.join('/')}`)
    const paths = fc.array(path, { minLength: 1, maxLength: 8 })
    const isBelow = (outer: string, inner: string): boolean => outer === '/' || `${inner}/`.startsWith(`${outer}/`)
    const scopePaths = (directories: string[]): string[] =>
      read({ directories }).map(scope => scope.slice('storage.read:'.length))

    it('everything asked for is covered, and nothing else', () => {
      fc.assert(
        fc.property(paths, path, (directories, probe) => {
          const covered = scopePaths(directories).some(scopePath => isBelow(decodeURIComponentPath(scopePath), probe))
          expect(covered).to.equal(directories.some(directory => isBelow(directory, probe)))
        }),
      )
    })

    it('no scope covers another, none is without a path, and each can stand in a token', () => {
      fc.assert(
        fc.property(paths, directories => {
          const found = scopePaths(directories)
          expect(found).to.deep.equal([...new Set(found)].sort())
          for (const one of found) {
            expect(one).to.match(/^\/[\x21\x23-\x5b\x5d-\x7e]*$/)
            const decoded = decodeURIComponentPath(one)
            expect(found.filter(other => isBelow(decodeURIComponentPath(other), decoded))).to.deep.equal([one])
          }
        }),
      )
    })

    it('below a base path they are what they are without it', () => {
      fc.assert(
        fc.property(path, paths, (base, directories) => {
          const below = directories.map(directory => (base === '/' ? directory : base + directory))
          expect(read({ directories: below, basePath: base, prefix: base })).to.deep.equal(read({ directories }))
        }),
      )
    })

    it('never reach outside the prefix', () => {
      fc.assert(
        fc.property(path, paths, (prefix, directories) => {
          if (directories.every(directory => isBelow(prefix, directory))) {
            expect(read({ directories, prefix })).to.deep.equal(read({ directories }))
          } else {
            expect(refusal(() => read({ directories, prefix })).code).to.equal('SCOPE_OUTSIDE_PREFIX')
          }
        }),
      )
    })
  })
})

/** Undoes the encoding, segment by segment; a slash inside a segment would be a fault of the encoder. */
function decodeURIComponentPath(path: string): string {
  return path.split('/').map(decodeURIComponent).join('/')
}
