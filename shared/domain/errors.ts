/**
 * The one error type of Waybill. `code` is stable and documented; `message` says what, where and what to do; neither ever
 * holds a secret. `status` is the HTTP status of the problem document (RFC 9457) it becomes at the API.
 */
export class WaybillError extends Error {
  readonly code: string
  readonly status: number
  /** The field of the caller's input that is at fault, as a path: `copies`, `files.3.bytes`. */
  readonly field: string | undefined

  constructor(code: string, message: string, options: { status?: number; field?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'WaybillError'
    this.code = code
    this.status = options.status ?? 500
    this.field = options.field
  }
}
