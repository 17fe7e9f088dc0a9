import { expect } from 'chai'
import fc from 'fast-check'
import { checkPattern, fillTemplate, matchPattern } from '../../shared/domain/claim-pattern.ts'
import { systemClock } from '../../shared/runtime/clock.ts'

const EGI = 'urn:mace:egi.eu:group:vo.example.org'

/** Pattern, text, and what the wildcards stand for; undefined: it does not match. */
const TABLE: [string, string, string[] | undefined][] = [
  ['/exp', '/exp', []],
  ['/exp', '/exp/production', undefined],
  ['/exp', '/export', undefined],
  ['/exp', '/EXP', undefined],
  ['*', 'x', ['x']],
  ['*', '', undefined],
  ['*', '/exp', undefined],
  ['/exp/*', '/exp/production', ['production']],
  ['/exp/*', '/exp/', undefined],
  ['/exp/*', '/exp/production/eu', undefined],
  ['/exp/*', '/exp', undefined],
  ['/exp/**', '/exp/production/eu', ['production/eu']],
  ['/exp/**', '/exp/', undefined],
  ['**', '/exp', ['/exp']],
  ['**', '', undefined],
  ['/*/*', '/exp/production', ['exp', 'production']],
  ['/*/**', '/exp/production/eu', ['exp', 'production/eu']],
  // What looks like a regular expression is text.
  ['a.c', 'abc', undefined],
  ['(a+)+$', 'aaaa', undefined],
  // The end is the end, and each wildcard takes as little as will do.
  ['*-*', 'a-b-c', ['a', 'b-c']],
  ['*b', 'abb', ['ab']],
  ['*ab*', 'aababb', ['a', 'abb']],
  ['*@cern.ch', 'alice@cern.ch', ['alice']],
  ['*@cern.ch', 'alice@cern.ch.evil.example', undefined],
  ['*@cern.ch', '@cern.ch', undefined],
  ['https://orcid.org/*', 'https://orcid.org/0000-0002', ['0000-0002']],
  [`${EGI}:role=*#aai.egi.eu`, `${EGI}:role=member#aai.egi.eu`, ['member']],
  [`${EGI}:*:role=member#aai.egi.eu`, `${EGI}:production:role=member#aai.egi.eu`, ['production']],
  [`${EGI}:*:role=member#aai.egi.eu`, `${EGI}:a:b:role=member#aai.egi.eu`, undefined],
  [`${EGI}:**`, `${EGI}:production:role=member#aai.egi.eu`, ['production:role=member#aai.egi.eu']],
]

describe('patterns for claims', () => {
  for (const [pattern, text, captures] of TABLE) {
    it(`${pattern} ${captures === undefined ? 'does not match' : 'matches'} ${JSON.stringify(text)}`, () => {
      expect(matchPattern(pattern, text)).to.deep.equal(captures)
    })
  }

  const refused: [string, string][] = [
    ['', 'must not be empty'],
    ['x'.repeat(301), 'at most 300 characters'],
    ['**/x', 'at the end of a pattern only'],
    ['a***', 'at the end of a pattern only'],
    ['*a*a*a*a*', 'at most 4 wildcards'],
  ]
  for (const [pattern, reason] of refused) {
    it(`refuses ${pattern.slice(0, 20)}`, () => expect(checkPattern(pattern)).to.contain(reason))
  }

  /** The same in a language that everybody knows; what is slow there is not used. */
  const asExpression = (pattern: string): RegExp =>
    new RegExp(
      `^${pattern
        .split(/(\*+)/)
        .map(part => (part === '*' ? '([^/:]+?)' : part === '**' ? '(.+?)' : part.replace(/[.$]/g, '\\$&')))
        .join('')}$`,
    )

  it('match what the like of a regular expression does, and capture the same', () => {
    const letters = fc.constantFrom('a', 'b', '/', ':')
    const text = fc.array(letters, { maxLength: 14 }).map(all => all.join(''))
    const piece = fc.array(letters, { minLength: 1, maxLength: 3 }).map(all => all.join(''))
    const pattern = fc
      .record({
        pieces: fc.array(piece, { minLength: 1, maxLength: 4 }),
        ends: fc.constantFrom('', '*', '**'),
        starts: fc.boolean(),
      })
      .map(({ pieces, ends, starts }) => `${starts ? '*' : ''}${pieces.join('*')}${ends}`)
      .filter(made => checkPattern(made) === undefined)
    let matched = 0
    fc.assert(
      fc.property(pattern, text, (made, given) => {
        const expected = asExpression(made).exec(given)
        if (expected !== null) matched += 1
        expect(matchPattern(made, given)).to.deep.equal(expected === null ? undefined : expected.slice(1))
      }),
      { numRuns: 20_000 },
    )
    expect(matched).to.be.greaterThan(100)
  })

  it('take no time, whatever the text', () => {
    const began = systemClock.monotonic()
    for (let i = 0; i < 100; i++) matchPattern('*a*a*a*b', 'a'.repeat(16_000))
    expect(systemClock.monotonic() - began).to.be.below(500)
  })

  it('fill captures into a name', () => {
    expect(fillTemplate('user-{1}', ['alice'])).to.equal('user-alice')
    expect(fillTemplate('{2}-{1}', ['a', '{1}'])).to.equal('{1}-a')
  })
})
