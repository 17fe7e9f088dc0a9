import { isDeepStrictEqual } from 'node:util'
import type { JsonSchema } from './openapi.ts'

/** One row as JSON schemas: what may be sent, and what is answered. */
export interface RowSnapshot {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly params?: JsonSchema
  readonly body?: JsonSchema
  readonly answer: JsonSchema
}

export interface ContractSnapshot {
  readonly version: number
  readonly rows: Readonly<Record<string, RowSnapshot>>
}

/** The row in which the version is said: its body is read before anybody knows the version, so it never changes. */
const HANDSHAKE = 'openSession'

/**
 * What keeps a worker of the older contract from working with a server of the newer one: something it may send is refused, or
 * something it is answered it does not understand. Fields that it does not know it ignores, and so what stands at `ignored`
 * (`claim.answer.transfers[].kind`). What no JSON schema says is not seen.
 */
export function contractFaults(
  older: ContractSnapshot,
  newer: ContractSnapshot,
  ignored: readonly string[] = [],
): string[] {
  return Object.entries(older.rows).flatMap(([name, before]) => {
    const after = newer.rows[name]
    if (after === undefined) return [`${name}: the row is gone`]
    const address = ['method', 'path', 'status'] as const
    const moved = address.filter(key => before[key] !== after[key])
    return [
      ...moved.map(key => `${name}: its ${key} was ${before[key]} and is ${after[key]}`),
      ...(name === HANDSHAKE && !isDeepStrictEqual(before.body, after.body)
        ? [`${name}.body: it is read before the versions are compared, and must stay as it is`]
        : []),
      ...sent(before.params, after.params, `${name}.params`),
      ...sent(before.body, after.body, `${name}.body`),
      ...beyond(before.answer, after.answer, `${name}.answer`, { answer: true, ignored }),
    ]
  })
}

function sent(before: JsonSchema | undefined, after: JsonSchema | undefined, path: string): string[] {
  if (after === undefined) return []
  if (before === undefined) return [`${path}: older workers send nothing`]
  return beyond(after, before, path, { answer: false, ignored: [] })
}

interface Side {
  /** An answer, which the older side reads; else a request, which it sends. */
  readonly answer: boolean
  readonly ignored: readonly string[]
}

/** What `narrow` allows beyond `wide`, a sentence each. */
function beyond(wide: JsonSchema, narrow: JsonSchema, path: string, side: Side): string[] {
  if (isDeepStrictEqual(wide, narrow) || side.ignored.includes(path)) return []
  const say = (what: string): string => `${path}: older workers ${side.answer ? 'do not expect' : 'may send'} ${what}`
  const { default: before, ...rest } = narrow
  // What is left out means the default: another one changes what older workers say.
  if (!side.answer && before !== undefined && !isDeepStrictEqual(before, wide.default)) {
    return [say(`nothing, and mean ${JSON.stringify(before)}`), ...beyond(wide, rest, path, side)]
  }
  const parts = alternatives(narrow) ?? values(narrow)?.map(pinned)
  if (parts !== undefined && (parts.length > 1 || alternatives(narrow) !== undefined)) {
    return [...new Set(parts.flatMap(part => beyond(wide, part, path, side)))]
  }
  const choices = alternatives(wide)
  if (choices !== undefined) {
    const beside = Object.keys(wide).filter(keyword => !['anyOf', 'oneOf', 'default'].includes(keyword))
    if (beside.length > 0) return [say(incomparable(beside))]
    return closest(choices.map(choice => beyond(choice, narrow, path, side)))
  }
  const allowed = values(wide)
  const [value] = values(narrow) ?? []
  if (allowed !== undefined) {
    if (value === undefined) return [say(`values other than ${allowed.map(each => JSON.stringify(each)).join(', ')}`)]
    return allowed.includes(value) ? [] : [say(JSON.stringify(value))]
  }
  return beyondOne(wide, value === undefined ? narrow : exactly(value), path, side, say)
}

/** Of two schemas that are no choices of others. */
function beyondOne(
  wide: JsonSchema,
  narrow: JsonSchema,
  path: string,
  side: Side,
  say: (what: string) => string,
): string[] {
  const unknown = Object.keys(wide).filter(keyword => !KNOWN.has(keyword))
  const changed = unknown.filter(keyword => !isDeepStrictEqual(wide[keyword], narrow[keyword]))
  if (changed.length > 0) return [say(incomparable(changed))]
  if (wide.type === undefined) return []
  if (wide.type !== narrow.type && !(wide.type === 'number' && narrow.type === 'integer')) {
    return [say(narrow.type === undefined ? 'anything' : `type ${String(narrow.type)}`)]
  }
  return [
    ...LIMITS.filter(limit => !limit.keeps(wide, narrow)).map(({ keyword }) =>
      say(`values beyond ${keyword} ${String(wide[keyword])}`),
    ),
    ...(wide.type === 'object' ? beyondObject(wide, narrow, path, side, say) : []),
    ...(wide.type === 'array' ? beyond(schemaAt(wide.items), schemaAt(narrow.items), `${path}[]`, side) : []),
  ]
}

function beyondObject(
  wide: JsonSchema,
  narrow: JsonSchema,
  path: string,
  side: Side,
  say: (what: string) => string,
): string[] {
  const known = (wide.properties ?? {}) as Record<string, JsonSchema>
  const given = Object.entries((narrow.properties ?? {}) as Record<string, JsonSchema>)
  const always = (narrow.required ?? []) as string[]
  const missing = ((wide.required ?? []) as string[]).filter(name => !always.includes(name))
  const others = schemaAt(wide.additionalProperties)
  const closed = wide.additionalProperties === false && !side.answer
  const open = narrow.additionalProperties !== false
  return [
    ...missing.map(name => say(`that "${name}" is left out`)),
    ...given.flatMap(([name, property]) => {
      const same = known[name]
      if (same !== undefined) return beyond(same, property, `${path}.${name}`, side)
      if (closed) return [say(`the field "${name}"`)]
      return beyond(others, property, `${path}.${name}`, side)
    }),
    ...(closed && open ? [say('any field')] : []),
    ...(open && !closed ? beyond(others, schemaAt(narrow.additionalProperties), `${path}.*`, side) : []),
  ]
}

function incomparable(keywords: readonly string[]): string {
  return `what is beyond "${keywords.join('", "')}", which cannot be compared`
}

/** `true`, `false` and an absent schema say nothing of a value. */
function schemaAt(schema: unknown): JsonSchema {
  return typeof schema === 'object' && schema !== null ? (schema as JsonSchema) : {}
}

function alternatives({ anyOf, oneOf }: JsonSchema): JsonSchema[] | undefined {
  return (anyOf ?? oneOf) as JsonSchema[] | undefined
}

function values(schema: JsonSchema): unknown[] | undefined {
  if ('const' in schema) return [schema.const]
  return schema.enum as unknown[] | undefined
}

function pinned(value: unknown): JsonSchema {
  return { const: value }
}

/** A value in the words of a schema that names none. */
function exactly(value: unknown): JsonSchema {
  if (typeof value === 'string')
    return { type: 'string', minLength: value.length, maxLength: value.length, text: value }
  if (typeof value !== 'number') return { type: value === null ? 'null' : typeof value }
  return { type: Number.isInteger(value) ? 'integer' : 'number', minimum: value, maximum: value }
}

/** The sentences of the choice that fits best. */
function closest(found: readonly string[][]): string[] {
  return [...found].sort((a, b) => a.length - b.length)[0] ?? []
}

interface Limit {
  readonly keyword: string
  /** Whether all that `narrow` allows is within this limit of `wide`. */
  readonly keeps: (wide: JsonSchema, narrow: JsonSchema) => boolean
}

/** `also`: a limit of the other kind, which must then be tighter by anything at all. */
function bound(keyword: string, upper: boolean, also?: string): Limit {
  const exclusive = keyword.startsWith('exclusive')
  const sign = upper ? 1 : -1
  return {
    keyword,
    keeps(wide, narrow) {
      const at = wide[keyword]
      if (at === undefined) return true
      const own = narrow[keyword]
      const other = also === undefined ? undefined : narrow[also]
      const room = (value: unknown): number => sign * (Number(at) - Number(value))
      return (
        (own !== undefined && room(own) >= 0) ||
        (other !== undefined && (exclusive ? room(other) > 0 : room(other) >= 0))
      )
    },
  }
}

function sameText(keyword: string): Limit {
  return {
    keyword,
    keeps: (wide, narrow) =>
      wide[keyword] === undefined ||
      wide[keyword] === narrow[keyword] ||
      (keyword === 'pattern' &&
        typeof narrow.text === 'string' &&
        new RegExp(String(wide.pattern), 'u').test(narrow.text)),
  }
}

const LIMITS: readonly Limit[] = [
  bound('minimum', false, 'exclusiveMinimum'),
  bound('exclusiveMinimum', false, 'minimum'),
  bound('maximum', true, 'exclusiveMaximum'),
  bound('exclusiveMaximum', true, 'maximum'),
  bound('minLength', false),
  bound('maxLength', true),
  bound('minItems', false),
  bound('maxItems', true),
  sameText('pattern'),
  sameText('format'),
]

const KNOWN: ReadonlySet<string> = new Set([
  'type',
  'properties',
  'required',
  'additionalProperties',
  'items',
  'enum',
  'const',
  'default',
  ...LIMITS.map(({ keyword }) => keyword),
])
