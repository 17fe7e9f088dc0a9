import type { z } from 'zod'
import { WaybillError } from '../domain/errors.ts'

/** One thing that is wrong with a request. */
export interface FieldError {
  readonly field: string
  readonly message: string
}

/** A request that does not fit its row of the route table: everything that is wrong with it, not only the first. */
export class InvalidRequest extends WaybillError {
  readonly errors: readonly FieldError[]

  constructor(errors: readonly FieldError[]) {
    const [first] = errors
    const more = errors.length > 1 ? ` (and ${errors.length - 1} more, see errors)` : ''
    super('INVALID', `${first === undefined ? 'the request is not valid' : inWords(first)}${more}`, {
      status: 400,
      ...(first === undefined || first.field === '' ? {} : { field: first.field }),
    })
    this.errors = errors
  }
}

/** `value` as the schema makes it. Throws `InvalidRequest`. */
export function parsePart(schema: z.ZodType, value: unknown): unknown {
  const result = schema.safeParse(value, { error: plainWords })
  if (!result.success) throw new InvalidRequest(fieldErrors(result.error.issues))
  return result.data
}

/** More than these are counted, not listed: 10,000 bad files make one readable answer. */
const MOST_ERRORS = 20
const LONGEST = 300

/** zod's issues as errors of fields, each once: a path like `files.3.bytes`, unknown fields by their names. */
function fieldErrors(issues: readonly z.core.$ZodIssue[]): FieldError[] {
  const all = issues.flatMap(issue => errorsOf(issue, []))
  return [...new Map(all.map(error => [inWords(error), error])).values()].slice(0, MOST_ERRORS)
}

/** For what no field of the contract has words of its own. `undefined`: zod's. */
function plainWords(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return issue.input === undefined ? 'it is missing' : `${KINDS[issue.expected] ?? issue.expected} is wanted`
    case 'too_small':
      return limitWords(issue.origin, issue.minimum, issue.inclusive === false ? 'more than' : 'at least')
    case 'too_big':
      return limitWords(issue.origin, issue.maximum, issue.inclusive === false ? 'less than' : 'at most')
    case 'invalid_value':
      return issue.values.length === 1
        ? `only ${String(issue.values[0])} fits`
        : `one of ${issue.values.join(', ')} is wanted`
    case 'invalid_format':
      return 'it is not written as it must be'
    case 'invalid_union':
      return 'it is none of what fits here'
    default:
      return undefined
  }
}

const KINDS: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
}

/** `at most 60`; of texts and lists, `at most 60 characters`. */
function limitWords(origin: string, limit: number | bigint, relation: string): string {
  const units: Readonly<Record<string, string>> = { string: 'character', array: 'item' }
  const unit = units[origin]
  if (unit === undefined) return `it must be ${relation} ${limit}`
  return `it must have ${relation} ${limit} ${unit}${limit === 1 ? '' : 's'}`
}

function errorsOf(issue: z.core.$ZodIssue, above: readonly PropertyKey[]): FieldError[] {
  const path = [...above, ...issue.path]
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => fieldError([...path, key], `unknown field ${JSON.stringify(key.slice(0, 60))}`))
  }
  if (issue.code === 'invalid_union') {
    // The branch that came closest says best what is wrong.
    const [closest] = [...issue.errors].sort((a, b) => a.length - b.length)
    if (closest !== undefined && closest.length > 0) return closest.flatMap(inner => errorsOf(inner, path))
  }
  if (issue.code === 'invalid_key') return issue.issues.flatMap(inner => errorsOf({ ...inner, path: [] }, path))
  return [fieldError(path, issue.message)]
}

function fieldError(path: readonly PropertyKey[], message: string): FieldError {
  return { field: path.map(String).join('.').slice(0, LONGEST), message: message.slice(0, LONGEST) }
}

function inWords({ field, message }: FieldError): string {
  return field === '' ? message : `${field}: ${message}`
}
