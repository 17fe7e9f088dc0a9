import { STATUS_CODES } from 'node:http'
import type { z } from 'zod'
import type { problem } from '../shared/contract/fields.ts'
import { WaybillError } from '../shared/domain/errors.ts'

export type Problem = z.output<typeof problem>

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

/** What a 5xx says instead of its cause: that stands in the log only. */
const HIDDEN = 'the server could not do this; nothing is wrong with the request. The cause is in its log under this id.'

/** The RFC 9457 document of anything thrown. */
export function problemOf(error: unknown, id: string): Problem {
  const known = error instanceof WaybillError ? error : httpError(error)
  const status = known?.status ?? 500
  const hidden = known === undefined || status >= 500
  return {
    type: 'about:blank',
    title: STATUS_CODES[status] ?? 'Error',
    status,
    code: known?.code ?? 'INTERNAL',
    detail: hidden ? HIDDEN : known.message,
    ...(known?.field === undefined || hidden ? {} : { field: known.field }),
    ...(known instanceof InvalidRequest ? { errors: [...known.errors] } : {}),
    id,
  }
}

/** Express' own refusals (a path that is not percent-encoded UTF-8) carry a status; their text may quote the request. */
function httpError(error: unknown): WaybillError | undefined {
  if (!(error instanceof Error) || !('status' in error) || error.status !== 400) return undefined
  return new WaybillError('PATH_MALFORMED', 'the path is not percent-encoded UTF-8', { status: 400 })
}

/** More than these are counted, not listed: 10,000 bad files make one readable answer. */
const MOST_ERRORS = 20
const LONGEST = 300

/** zod's issues as errors of fields: a path like `files.3.bytes`, unknown fields by their names. */
export function fieldErrors(issues: readonly z.core.$ZodIssue[]): FieldError[] {
  return issues.flatMap(issue => errorsOf(issue, [])).slice(0, MOST_ERRORS)
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
