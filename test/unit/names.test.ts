import { expect } from 'chai'
import fc from 'fast-check'
import { WaybillError } from '../../shared/domain/errors.ts'
import { checkName, formatDid, type NameKind, parseDid } from '../../shared/domain/names.ts'

describe('names', () => {
  const good: [NameKind, ...string[]][] = [
    ['vo', 'cms', 'vo.cta.example.org'],
    ['scope', 'cms', 'user.jdoe', 'mc-2026_x', 'a'.repeat(25)],
    ['did', 'f', 'data/run1/f.root', '/store/data/x', '9a', 'a.b-c_d', 'a..b', 'a/..b', '/.x', 'a'.repeat(250)],
    ['account', 'jdoe', 'root', 'a-b_1'],
    ['rse', 'CERN-PROD_DATADISK', 'R1', '1'],
    ['attribute', 'country', 'T1', 'site.name', 'R-1_x'],
    ['activity', 'User Subscriptions', 'T0 Export', 'rebalance-1.0'],
  ]
  for (const [kind, ...values] of good) {
    for (const value of values) {
      it(`${kind} ${value.slice(0, 40)} is good`, () => expect(checkName(kind, value)).to.equal(undefined))
    }
  }

  const bad: [NameKind, value: string, reason: string][] = [
    ['vo', 'CMS', 'character "C" at position 1'],
    ['scope', '', 'must not be empty'],
    ['scope', 'a'.repeat(26), '26 characters; at most 25'],
    ['scope', '.', 'dot'],
    ['scope', '..', 'dot'],
    ['scope', 'user..x', 'two dots'],
    ['scope', 'user.', 'dot'],
    ['scope', 'a/b', '"/" at position 2'],
    ['scope', 'a~', '"~"'],
    ['did', '', 'must not be empty'],
    ['did', 'a'.repeat(251), '251 characters; at most 250'],
    ['did', '/', 'end with a slash'],
    ['did', 'a/', 'end with a slash'],
    ['did', '//a', 'empty segment'],
    ['did', 'a//b', 'empty segment'],
    ['did', '.', 'begin with'],
    ['did', '..', 'begin with'],
    ['did', '-rf', 'begin with'],
    ['did', 'a/../../etc', 'segment "." or ".."'],
    ['did', 'a/./b', 'segment "." or ".."'],
    ['did', '/..', 'segment "." or ".."'],
    ['did', 'a/..', 'segment "." or ".."'],
    ['did', 'a b', 'white space (U+0020) at position 2'],
    ['did', 'a\nb', 'white space (U+000A)'],
    ['did', 'a\u00a0b', 'white space (U+00A0)'],
    ['did', "a'b", 'the character "\'"'],
    ['did', 'a"b', 'the character "\\""'],
    ['did', 'a\u0000', 'control character (U+0000)'],
    ['did', 'a\u007f', 'control character (U+007F)'],
    ['did', 'caf\u00e9', 'not ASCII (U+00E9) at position 4'],
    ['did', 'x\u{1f600}', 'not ASCII (U+1F600) at position 2'],
    ['did', 'a%2e', '"%"'],
    ['did', 'a\\b', 'the character "\\\\"'],
    ['did', 'a:b', '":"'],
    ['did', 'a~b', '"~"'],
    ['account', 'Root', '"R"'],
    ['account', 'a.b', '"."'],
    ['rse', 'cern', '"c"'],
    ['attribute', 'a=b', '"="'],
    ['activity', ' x', 'begin or end with a space'],
    ['activity', 'x\ty', 'white space (U+0009)'],
  ]
  for (const [kind, value, reason] of bad) {
    it(`${kind} ${JSON.stringify(value.slice(0, 40))} is refused: ${reason}`, () => {
      expect(checkName(kind, value)).to.include(reason)
    })
  }

  it('a good DID name has no empty, dot or trailing segment, and is plain ASCII', () => {
    const text = fc.string({ unit: fc.constantFrom(...'aZ0/._-~ \u00e9'), maxLength: 12 })
    fc.assert(
      fc.property(text, name => {
        if (checkName('did', name) !== undefined) return
        const segments = name.replace(/^\//, '').split('/')
        expect(segments.every(segment => /^[A-Za-z0-9._-]+$/.test(segment) && !/^\.\.?$/.test(segment))).to.equal(true)
      }),
      { numRuns: 2000 },
    )
  })

  it('reads and writes DIDs', () => {
    expect(parseDid('cms:/store/data/x')).to.deep.equal({ scope: 'cms', name: '/store/data/x' })
    expect(formatDid({ scope: 'cms', name: '/store/data/x' })).to.equal('cms:/store/data/x')
  })

  for (const [text, reason] of [
    ['file', 'no colon'],
    [':name', 'scope must not be empty'],
    ['cms:', 'DID name must not be empty'],
    ['cms:a:b', '":"'],
    ['a b:c', 'white space'],
  ] as const) {
    it(`the DID ${JSON.stringify(text)} is refused: ${reason}`, () => {
      expect(() => parseDid(text, 'dids.0'))
        .to.throw(WaybillError, reason)
        .that.includes({ code: 'NAME_INVALID', status: 400, field: 'dids.0' })
    })
  }
})
