import { WaybillError } from '../domain/errors.ts'

/**
 * What can go wrong between Waybill and an issuer:
 * - `ISSUER_UNREACHABLE`: no usable answer (no connection, too late, HTTP 5xx). Try again later; a request that was sent may
 *   have taken effect.
 * - `ISSUER_BUSY`: HTTP 429 or 503. Nobody in the fleet should ask before `retryAfterSeconds`.
 * - `TOKEN_REFUSED`: the issuer said no, and `reason` is its OAuth error code (RFC 6749 section 5.2). Asking again is useless.
 * - `ISSUER_NONSENSE`: an answer that follows no specification, or not the one asked for. Somebody must look.
 */
export type IssuerErrorCode = 'ISSUER_UNREACHABLE' | 'ISSUER_BUSY' | 'TOKEN_REFUSED' | 'ISSUER_NONSENSE'

const STATUS: Record<IssuerErrorCode, number> = {
  ISSUER_UNREACHABLE: 503,
  ISSUER_BUSY: 503,
  TOKEN_REFUSED: 502,
  ISSUER_NONSENSE: 502,
}

/**
 * It never has a `cause`: the errors of HTTP and OAuth libraries carry whole requests and answers, with the tokens in them,
 * and whatever hangs on an error ends in a log one day.
 */
export class IssuerError extends WaybillError {
  declare readonly code: IssuerErrorCode
  /** How long to leave the issuer alone, in seconds, if it said so. */
  readonly retryAfterSeconds: number | undefined
  /** The OAuth error code of a refusal: `invalid_grant`, `invalid_scope`, `invalid_client`, `access_denied`, ... */
  readonly reason: string | undefined

  constructor(code: IssuerErrorCode, message: string, options: { retryAfterSeconds?: number; reason?: string } = {}) {
    super(code, message, { status: STATUS[code] })
    this.name = 'IssuerError'
    this.retryAfterSeconds = options.retryAfterSeconds
    this.reason = options.reason
  }
}

/** The `IssuerError` that a library has wrapped into errors of its own, if there is one. */
export function findIssuerError(error: unknown): IssuerError | undefined {
  let inner = error
  for (let depth = 0; depth < 5 && inner instanceof Error; depth++) {
    if (inner instanceof IssuerError) return inner
    inner = inner.cause
  }
  return undefined
}
