import { expect } from 'chai'
import fc from 'fast-check'
import { type Capability, includes, parseCapability, parsePath } from '../../../sandbox/wlcg.ts'

describe('storage scopes of the WLCG profile', () => {
  const parsed = (scope: string): Capability => {
    const capability = parseCapability(scope)
    if (!capability.ok) throw new Error(capability.reason)
    return capability.value
  }

  it('are a verb and decoded segments', () => {
    expect(parsed('storage.read:/a/b%20c')).to.deep.equal({ verb: 'read', path: ['a', 'b c'], below: false })
    expect(parsed('storage.modify:/')).to.deep.equal({ verb: 'modify', path: [], below: true })
    expect(parsed('storage.create:/a//b/')).to.deep.equal({ verb: 'create', path: ['a', 'b'], below: true })
    expect(parsed('storage.stage:/a:b')).to.deep.include({ path: ['a:b'] })
  })

  for (const [scope, why] of [
    ['storage.read', 'no path (9)'],
    ['storage.read:', 'an empty path (9)'],
    ['storage.read:a', 'a relative path (16)'],
    ['storage.write:/a', 'an unknown verb'],
    ['storage.read:/a/../b', 'dot segments (16)'],
    ['storage.read:/a/./b', 'dot segments (16)'],
    ['storage.read:/%2e%2e/b', 'encoded dot segments (16)'],
    ['storage.read:/%2E./b', 'half encoded dot segments (16)'],
    ['storage.read:/%252e%252e/b', 'dot segments, encoded twice (16)'],
    ['storage.read:/%25252e%25252E/b', 'dot segments, encoded three times (16)'],
    ['storage.read:/a%2fb', 'an encoded slash'],
    ['storage.read:/a%00b', 'NUL'],
    ['storage.read:/a%zz', 'a broken escape'],
    ['storage.read:/a%ff', 'no UTF-8'],
  ] as const) {
    it(`are refused with ${why}: ${scope}`, () => expect(parseCapability(scope).ok).to.equal(false))
  }

  for (const [wide, narrow, expected] of [
    ['storage.read:/', 'storage.read:/a', true],
    ['storage.read:/a', 'storage.read:/a', true],
    ['storage.read:/a', 'storage.read:/a/', true],
    ['storage.read:/a', 'storage.read:/a/b', true],
    ['storage.read:/a', 'storage.read:/ab', false],
    ['storage.read:/a/b', 'storage.read:/a', false],
    ['storage.read:/a/', 'storage.read:/a', false],
    ['storage.read:/a/', 'storage.read:/a/b', true],
    ['storage.modify:/a', 'storage.create:/a', false],
    ['storage.modify:/a', 'storage.read:/a', false],
  ] as const) {
    it(`${wide} ${expected ? 'includes' : 'does not include'} ${narrow}`, () =>
      expect(includes(parsed(wide), parsed(narrow))).to.equal(expected))
  }

  it('give back every path that was encoded segment by segment', () => {
    const segment = fc
      .string({ minLength: 1, unit: 'grapheme' })
      .filter(text => !/[/\0]/.test(text) && !/^(\.|%(25)*2e)+$/i.test(text))
    fc.assert(
      fc.property(fc.array(segment), path => {
        const encoded = `/${path.map(encodeURIComponent).join('/')}`
        expect(parsePath(encoded)).to.deep.equal({ ok: true, value: path })
      }),
    )
  })
})
