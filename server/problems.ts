import { STATUS_CODES } from 'node:http'
import type { z } from 'zod'
import type { problem } from '../shared/contract/fields.ts'
import { InvalidRequest } from '../shared/contract/invalid-request.ts'
import { WaybillError } from '../shared/domain/errors.ts'

export type Problem = z.output<typeof problem>

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
