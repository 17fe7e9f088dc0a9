import { WaybillError } from '../../shared/domain/errors.ts'

/**
 * RSE expressions (facts/rules.md, "RSE expressions"): `c=uk`, `t1\R3|n<21`, `(t1|t2)&*`. Operators are evaluated strictly
 * from left to right, without precedence. `parseExpression` knows nothing of RSEs, `evaluateExpression` nothing of syntax.
 * A word that is neither an RSE's name nor any RSE's attribute is an error wherever it stands: a mistyped storage in a union
 * would go unnoticed. A known attribute with a value that no RSE has is none.
 */

export interface ExpressionRse {
  name: string
  attributes: Readonly<Record<string, string | number | boolean>>
}

export type Operator = '|' | '&' | '\\'

export type Term =
  | { kind: 'all' }
  /** An RSE's name, or a tag: an attribute that is true. */
  | { kind: 'tag'; key: string }
  | { kind: 'equal'; key: string; value: string }
  | { kind: 'less' | 'greater'; key: string; bound: number }
  | { kind: 'group'; expression: Expression }

/** `first`, then each of `rest` applied to the result so far. */
export interface Expression {
  first: Term
  rest: { operator: Operator; term: Term }[]
}

export const MAX_EXPRESSION_LENGTH = 2000
/** Parentheses nested deeper than this are refused, so that neither parser nor evaluation can exhaust the stack. */
export const MAX_EXPRESSION_DEPTH = 100

const WORD = /[A-Za-z0-9._-]+/y
const NUMBER = /^-?[0-9]+(\.[0-9]+)?$/
/** Unknown words that one message names. */
const MOST_NAMED = 5
const TERM = 'an RSE name, an attribute, `*` or `(`'

/** The names in an expression, RSEs' or attributes', in the order they are written. */
export interface Key {
  key: string
  /** Counted from 1. */
  position: number
}

/**
 * The names of the RSEs that match, sorted by code unit (so that the answer doesn't depend on the order of `rses`). Throws 400
 * RSE_EXPRESSION_SYNTAX, RSE_EXPRESSION_UNKNOWN for a word that names nothing, or RSE_EXPRESSION_EMPTY when nothing matches; `field`:
 * where the caller gave it.
 */
export function resolveExpression(expression: string, rses: readonly ExpressionRse[], field = 'expression'): string[] {
  try {
    const { tree, keys } = parseExpression(expression)
    demandKnown(keys, rses)
    const names = [...evaluateExpression(tree, rses)].sort()
    if (names.length > 0) return names
  } catch (error) {
    if (error instanceof WaybillError) throw new WaybillError(error.code, error.message, { status: 400, field })
    throw error
  }
  throw new WaybillError('RSE_EXPRESSION_EMPTY', `no RSE matches the expression ${quote(expression)}`, {
    status: 400,
    field,
  })
}

/** Throws 400 RSE_EXPRESSION_SYNTAX; the message gives the position, counted from 1, and what was expected there. */
export function parseExpression(expression: string): { tree: Expression; keys: readonly Key[] } {
  if (expression.length > MAX_EXPRESSION_LENGTH) {
    throw syntaxError(
      `the RSE expression has ${expression.length} characters; at most ${MAX_EXPRESSION_LENGTH} are allowed`,
    )
  }
  return new Parser(expression).parse()
}

/** All that is unknown at once, as far as a message holds it. */
function demandKnown(keys: readonly Key[], rses: readonly ExpressionRse[]): void {
  const known = new Set(rses.flatMap(rse => [rse.name, ...Object.keys(rse.attributes)]))
  const unknown = keys.filter(({ key }) => !known.has(key)).slice(0, MOST_NAMED)
  if (unknown.length === 0) return
  const where = unknown.map(({ key, position }) => `${quote(key)} at position ${position}`).join(', ')
  throw refused('RSE_EXPRESSION_UNKNOWN', `no RSE and no attribute of one is called ${where}`)
}

export function evaluateExpression(expression: Expression, rses: readonly ExpressionRse[]): Set<string> {
  let matched = evaluateTerm(expression.first, rses)
  for (const { operator, term } of expression.rest) {
    matched = OPERATIONS[operator](matched, evaluateTerm(term, rses))
  }
  return matched
}

const OPERATIONS: Record<Operator, (left: Set<string>, right: Set<string>) => Set<string>> = {
  '|': (left, right) => new Set([...left, ...right]),
  '&': (left, right) => new Set([...left].filter(name => right.has(name))),
  '\\': (left, right) => new Set([...left].filter(name => !right.has(name))),
}

function evaluateTerm(term: Term, rses: readonly ExpressionRse[]): Set<string> {
  if (term.kind === 'group') return evaluateExpression(term.expression, rses)
  return new Set(rses.filter(rse => matches(term, rse)).map(rse => rse.name))
}

function matches(term: Exclude<Term, { kind: 'group' }>, rse: ExpressionRse): boolean {
  if (term.kind === 'all') return true
  const value = attributeOf(rse, term.key)
  if (value === undefined) return false
  switch (term.kind) {
    case 'tag':
      return equals(value, 'true')
    case 'equal':
      return equals(value, term.value)
    case 'less':
      return numberOf(value) < term.bound
    case 'greater':
      return numberOf(value) > term.bound
  }
}

/** Every RSE carries its own name as a true attribute. */
function attributeOf(rse: ExpressionRse, key: string): string | number | boolean | undefined {
  if (key === rse.name) return true
  return Object.hasOwn(rse.attributes, key) ? rse.attributes[key] : undefined
}

/** Numbers compare as numbers (`tier=01` is `tier=1`), truth values without regard to case, as Rucio's users write them (`True`). */
function equals(value: string | number | boolean, wanted: string): boolean {
  if (typeof value === 'number') return numberOf(wanted) === value
  if (value === wanted) return true
  return isTruthValue(String(value)) && String(value).toLowerCase() === wanted.toLowerCase()
}

const isTruthValue = (text: string): boolean => /^(true|false)$/i.test(text)

/** NaN for what is no number: every comparison with it is false. */
function numberOf(value: string | number | boolean): number {
  if (typeof value === 'number') return value
  return typeof value === 'string' && NUMBER.test(value) ? Number(value) : Number.NaN
}

class Parser {
  readonly #text: string
  readonly #keys: Key[] = []
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  parse(): { tree: Expression; keys: readonly Key[] } {
    const tree = this.#expression(0)
    if (this.#at < this.#text.length) throw this.#expected('`|`, `&`, `\\` or the end')
    return { tree, keys: this.#keys }
  }

  #expression(depth: number): Expression {
    const first = this.#term(depth)
    const rest: Expression['rest'] = []
    for (let operator = this.#operator(); operator !== undefined; operator = this.#operator()) {
      rest.push({ operator, term: this.#term(depth) })
    }
    return { first, rest }
  }

  #operator(): Operator | undefined {
    const next = this.#text[this.#at]
    if (next !== '|' && next !== '&' && next !== '\\') return undefined
    this.#at += 1
    return next
  }

  #term(depth: number): Term {
    if (this.#take('*')) return { kind: 'all' }
    if (this.#take('(')) return this.#group(depth + 1)
    const position = this.#at + 1
    const key = this.#word()
    if (key === undefined) throw this.#expected(TERM)
    this.#keys.push({ key, position })
    if (this.#take('=')) return { kind: 'equal', key, value: this.#value() }
    if (this.#take('<')) return { kind: 'less', key, bound: this.#number() }
    if (this.#take('>')) return { kind: 'greater', key, bound: this.#number() }
    return { kind: 'tag', key }
  }

  #group(depth: number): Term {
    const opened = this.#at
    if (depth > MAX_EXPRESSION_DEPTH) {
      throw syntaxError(
        `the RSE expression nests parentheses deeper than ${MAX_EXPRESSION_DEPTH} at position ${opened}; simplify it`,
      )
    }
    const expression = this.#expression(depth)
    if (!this.#take(')')) throw this.#expected(`an operator or \`)\` for the \`(\` at position ${opened}`)
    return { kind: 'group', expression }
  }

  #value(): string {
    const value = this.#word()
    if (value === undefined) throw this.#expected('the value of the attribute')
    return value
  }

  #number(): number {
    const start = this.#at
    const word = this.#word()
    if (word !== undefined && NUMBER.test(word)) return Number(word)
    this.#at = start
    throw this.#expected('a number')
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false
    this.#at += 1
    return true
  }

  #word(): string | undefined {
    WORD.lastIndex = this.#at
    const word = WORD.exec(this.#text)?.[0]
    this.#at += word?.length ?? 0
    return word
  }

  #expected(what: string): WaybillError {
    const code = this.#text.codePointAt(this.#at)
    const found = code === undefined ? 'the end' : quote(String.fromCodePoint(code))
    return syntaxError(`the RSE expression is wrong at position ${this.#at + 1}: expected ${what}, found ${found}`)
  }
}

function syntaxError(message: string): WaybillError {
  return refused('RSE_EXPRESSION_SYNTAX', message)
}

function refused(code: string, message: string): WaybillError {
  return new WaybillError(code, message, { status: 400, field: 'expression' })
}

/** For messages: control characters are escaped, long texts cut. */
function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text)
}
