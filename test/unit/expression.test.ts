import { expect } from 'chai'
import fc from 'fast-check'
import {
  type Expression,
  type ExpressionRse,
  MAX_EXPRESSION_DEPTH,
  MAX_EXPRESSION_LENGTH,
  parseExpression,
  resolveExpression,
  type Term,
} from '../../server/storages/expression.ts'
import { WaybillError } from '../../shared/domain/errors.ts'

/** The RSEs of facts/rules.md, "RSE expressions". */
const RSES: ExpressionRse[] = ['at', 'de', 'fr', 'uk', 'us'].map((country, index) => ({
  name: `R${index + 1}`,
  attributes: { c: country, n: (index + 1) * 10, [index < 3 ? 't1' : 't2']: true },
}))

function refusal(expression: string, rses: readonly ExpressionRse[] = RSES): WaybillError {
  try {
    resolveExpression(expression, rses)
  } catch (error) {
    expect(error).to.be.instanceOf(WaybillError)
    if (error instanceof WaybillError) return error
  }
  return expect.fail(`${expression} was not refused`)
}

describe('RSE expressions', () => {
  const matching: [expression: string, names: string][] = [
    // facts/rules.md, "RSE expressions"
    ['c=uk', 'R4'],
    ['t1\\R3', 'R1 R2'],
    ['t1\\R3|c=fr', 'R1 R2 R3'],
    ['t1\\(R3|c=fr)', 'R1 R2'],
    ['(t1|t2)\\t2|t2&t1', 'R1 R2 R3'],
    ['n<21', 'R1 R2'],
    // the rest of the grammar
    ['R1', 'R1'],
    ['*', 'R1 R2 R3 R4 R5'],
    ['*\\*|R2', 'R2'],
    ['t1', 'R1 R2 R3'],
    ['t1=true', 'R1 R2 R3'],
    ['t1=True', 'R1 R2 R3'],
    ['R2=true', 'R2'],
    ['n>30', 'R4 R5'],
    ['n<10.5', 'R1'],
    ['n>-1&t2', 'R4 R5'],
    ['n=20', 'R2'],
    ['n=020', 'R2'],
    ['R5|R1', 'R1 R5'],
    ['R1|R1', 'R1'],
    ['R1|c=it', 'R1'],
    ['*\\n>1000', 'R1 R2 R3 R4 R5'],
    // left to right: & does not bind closer than |
    ['R1|R2&R2', 'R2'],
    ['R1|(R2&R2)', 'R1 R2'],
    ['((((c=at))))', 'R1'],
    ['*\\(t1\\(R1|R2))', 'R1 R2 R4 R5'],
  ]
  for (const [expression, names] of matching) {
    it(`${expression} -> ${names}`, () => {
      expect(resolveExpression(expression, RSES)).to.deep.equal(names.split(' '))
    })
  }

  it('answers sorted, whatever the order of the RSEs', () => {
    expect(resolveExpression('*', RSES.toReversed())).to.deep.equal(['R1', 'R2', 'R3', 'R4', 'R5'])
  })

  const TERM = 'an RSE name, an attribute, `*` or `(`'
  const malformed: [expression: string, position: number, expected: string][] = [
    ['', 1, TERM],
    ['R1|', 4, TERM],
    ['R1)', 3, 'or the end'],
    ['|R1', 1, TERM],
    ['R1||R2', 4, TERM],
    ['R1 |R2', 3, 'or the end'],
    [' R1', 1, TERM],
    ['R1R2*', 5, 'or the end'],
    ['()', 2, TERM],
    ['(R1', 4, '`)` for the `(` at position 1'],
    ['R1|(R2&(c=fr)', 14, '`)` for the `(` at position 4'],
    ['R1(R2)', 3, 'or the end'],
    ['c=', 3, 'the value'],
    ['c==fr', 3, 'the value'],
    ['c=fr=de', 5, 'or the end'],
    ['=fr', 1, TERM],
    ['n<', 3, 'a number'],
    ['n<ten', 3, 'a number'],
    ['n>1-2', 3, 'a number'],
    ['n>=3', 3, 'a number'],
    ['R1\u00e9', 3, 'or the end'],
    ['R1\u0000', 3, 'found "\\u0000"'],
    ['c="fr"', 3, 'the value'],
  ]
  for (const [expression, position, expected] of malformed) {
    it(`refuses ${JSON.stringify(expression)} at position ${position}`, () => {
      const error = refusal(expression)
      expect(error).to.include({ code: 'RSE_EXPRESSION_SYNTAX', status: 400, field: 'expression' })
      expect(error.message).to.include(`at position ${position}: `).and.to.include(expected)
    })
  }

  for (const expression of ['R1&R2', 'c=it', 'n>50', 'c>1', 'n', 'c', 'R1=false']) {
    it(`${expression} matches nothing, which is an error`, () => {
      expect(refusal(expression)).to.include({ code: 'RSE_EXPRESSION_EMPTY', status: 400, field: 'expression' })
    })
  }

  const unknown: [expression: string, said: string][] = [
    ['NOWHERE', '"NOWHERE" at position 1'],
    ['R1|R11', '"R11" at position 4'],
    ['R11|R1', '"R11" at position 1'],
    ['R1\\R11', '"R11" at position 4'],
    ['R1|(R2&(c=fr|r1))', '"r1" at position 14'],
    ['c=fr|site=CERN', '"site" at position 6'],
    ['R1|free>10', '"free" at position 4'],
    ['R1|de', '"de" at position 4'],
    ['(R1|TYPO)&site=CERN', '"TYPO" at position 5, "site" at position 11'],
    ['a|b|c|d|e|f|g', '"a" at position 1, "b" at position 3, "d" at position 7, "e" at position 9, "f" at position 11'],
    ['constructor', '"constructor" at position 1'],
    ['R1|__proto__=1', '"__proto__" at position 4'],
  ]
  for (const [expression, said] of unknown) {
    it(`refuses ${expression}, and says what it does not know and where`, () => {
      const error = refusal(expression)
      expect(error).to.include({ code: 'RSE_EXPRESSION_UNKNOWN', status: 400, field: 'expression' })
      expect(error.message).to.equal(`no RSE and no attribute of one is called ${said}`)
    })
  }

  it('says what is wrong with the grammar first', () =>
    expect(refusal('NOWHERE|').code).to.equal('RSE_EXPRESSION_SYNTAX'))

  it('refuses what is too long or nested too deep, and nothing below', () => {
    const nested = (depth: number): string => `${'('.repeat(depth)}R1${')'.repeat(depth)}`
    expect(resolveExpression(nested(MAX_EXPRESSION_DEPTH), RSES)).to.deep.equal(['R1'])
    expect(refusal(nested(MAX_EXPRESSION_DEPTH + 1)).message).to.include('deeper than')
    expect(refusal('('.repeat(MAX_EXPRESSION_LENGTH)).code).to.equal('RSE_EXPRESSION_SYNTAX')
    const longest = `${'R1|'.repeat(100)}n=${'10'.padStart(MAX_EXPRESSION_LENGTH - 302, '0')}`
    expect(longest).to.have.length(MAX_EXPRESSION_LENGTH)
    expect(resolveExpression(longest, RSES)).to.deep.equal(['R1'])
    expect(refusal(`${longest}1`).message).to.include('at most 2000')
  })

  it('agrees with a naive model of sets', () => {
    const key = fc.constantFrom('c', 'n', 't1', 't2', 'R1', 'R4', 'x')
    const leaf: fc.Arbitrary<Term> = fc.oneof(
      fc.constant<Term>({ kind: 'all' }),
      fc.record({ kind: fc.constant('tag'), key }),
      fc.record({ kind: fc.constant('equal'), key, value: fc.constantFrom('uk', '20', 'true') }),
      fc.record({ kind: fc.constantFrom('less', 'greater'), key, bound: fc.integer({ min: -5, max: 60 }) }),
    )
    const expressions = fc.letrec<{ expression: Expression; term: Term; group: Term }>(tie => ({
      expression: fc.record({
        first: tie('term'),
        rest: fc.array(fc.record({ operator: fc.constantFrom('|', '&', '\\'), term: tie('term') }), { maxLength: 4 }),
      }),
      term: fc.oneof({ maxDepth: 4 }, leaf, tie('group')),
      group: fc.record({ kind: fc.constant('group'), expression: tie('expression') }),
    })).expression
    fc.assert(
      fc.property(expressions, tree => {
        const text = written(tree)
        expect(parseExpression(text).tree).to.deep.equal(tree)
        const wanted = RSES.filter(rse => holds(tree, rse)).map(rse => rse.name)
        if (/\bx\b/.test(text)) expect(refusal(text).code).to.equal('RSE_EXPRESSION_UNKNOWN')
        else if (wanted.length === 0) expect(refusal(text).code).to.equal('RSE_EXPRESSION_EMPTY')
        else expect(resolveExpression(text, RSES)).to.deep.equal(wanted)
      }),
      { numRuns: 500 },
    )
  })

  it('answers anything with names or with a 400', () => {
    const text = fc.string({ unit: fc.constantFrom(...'R1t2cn=<>|&\\()* .-\u00e9\n'), maxLength: 30 })
    fc.assert(
      fc.property(text, expression => {
        try {
          expect(resolveExpression(expression, RSES)).not.to.be.empty
        } catch (error) {
          expect(error).to.be.instanceOf(WaybillError).with.property('status', 400)
        }
      }),
      { numRuns: 1000 },
    )
  })
})

function written({ first, rest }: Expression): string {
  const term = (t: Term): string => {
    if (t.kind === 'all') return '*'
    if (t.kind === 'group') return `(${written(t.expression)})`
    if (t.kind === 'tag') return t.key
    return t.kind === 'equal' ? `${t.key}=${t.value}` : `${t.key}${t.kind === 'less' ? '<' : '>'}${t.bound}`
  }
  return term(first) + rest.map(step => step.operator + term(step.term)).join('')
}

/** One RSE at a time, with truth values in place of sets. */
function holds({ first, rest }: Expression, rse: ExpressionRse): boolean {
  const term = (t: Term): boolean => {
    if (t.kind === 'all') return true
    if (t.kind === 'group') return holds(t.expression, rse)
    const value = { ...rse.attributes, [rse.name]: true }[t.key]
    if (t.kind === 'tag') return value === true
    if (t.kind === 'equal') return String(value) === t.value
    return typeof value === 'number' && (t.kind === 'less' ? value < t.bound : value > t.bound)
  }
  return rest.reduce((so, { operator, term: next }) => {
    if (operator === '|') return so || term(next)
    return operator === '&' ? so && term(next) : so && !term(next)
  }, term(first))
}
