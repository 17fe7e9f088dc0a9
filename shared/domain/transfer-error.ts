/** Where an attempt failed. TOKEN: a credential was refused, so the storage itself may be healthy. */
export type TransferScope = 'SOURCE' | 'DESTINATION' | 'TRANSFER' | 'TOKEN' | 'GENERAL'

export type TransferPhase = 'PREPARATION' | 'TRANSFER' | 'FINALIZATION'

/** Stable codes: they are stored, counted in metrics and documented. */
export const TRANSFER_CODES = [
  'SOURCE_MISSING',
  'SOURCE_CUT_OFF',
  'DESTINATION_EXISTS',
  'DESTINATION_CONFLICT',
  'DESTINATION_FULL',
  'PARENT_MISSING',
  'NOT_FOUND',
  'TOKEN_REFUSED',
  'PERMISSION_DENIED',
  'NOT_SUPPORTED',
  'REQUEST_REFUSED',
  'TOO_MANY_REQUESTS',
  'STORAGE_BUSY',
  'STORAGE_ERROR',
  'TRANSFER_FAILED',
  'TIMEOUT_CONNECT',
  'TIMEOUT_HEADERS',
  'TIMEOUT_NO_MARKER',
  'TIMEOUT_NO_PROGRESS',
  'TIMEOUT_TOTAL',
  'CHECKSUM_MISMATCH',
  'CHECKSUM_UNAVAILABLE',
  'SIZE_MISMATCH',
  'OUTCOME_UNKNOWN',
  'REDIRECT_REFUSED',
  'RESOLVE_FAILED',
  'CONNECT_FAILED',
  'TLS_FAILED',
  'CONNECTION_LOST',
  'PROTOCOL_VIOLATION',
  'CANCELLED',
] as const

export type TransferCode = (typeof TRANSFER_CODES)[number]

/** What went wrong in one attempt: stored with it and shown to people. Never holds a secret. */
export interface TransferFailure {
  readonly scope: TransferScope
  readonly phase: TransferPhase
  readonly code: TransferCode
  /** The storage's own words, at most 1000 printable characters, without anything that looks like a token. */
  readonly message: string
  /** Whether the same transfer may succeed later without anybody's doing. DESTINATION_FULL: only once it was held back. */
  readonly retryable: boolean
  /** Which storage it was about, when that is known and `scope` does not say it. */
  readonly side?: 'SOURCE' | 'DESTINATION'
  /** The HTTP status that said so, the passive side's when the active side quoted it. */
  readonly httpStatus?: number
  /** What the storage asked for (`Retry-After`), seconds, at most a day. */
  readonly retryAfterSeconds?: number
}

/**
 * True when a file may have been there before: same size and checksum is done, and another is nothing that this attempt left
 * (facts/http-tpc.md section 8; dCache says 500 for an existing file).
 */
export function mayExistAlready(failure: Pick<TransferFailure, 'httpStatus'> & { readonly code: string }): boolean {
  if (failure.code === 'DESTINATION_EXISTS' || failure.code === 'DESTINATION_CONFLICT') return true
  return failure.code === 'STORAGE_ERROR' && failure.httpStatus === 500
}

/** True when making the parent directories and repeating the COPY once is worth it (sections 4 and 8). */
export function mayLackParent(failure: TransferFailure): boolean {
  if (failure.code === 'PARENT_MISSING' || failure.code === 'DESTINATION_CONFLICT') return true
  // A 404 to a COPY that names neither side.
  if (failure.code === 'NOT_FOUND' && failure.scope === 'GENERAL') return true
  return failure.code === 'REQUEST_REFUSED' && failure.httpStatus === 400 && failure.scope !== 'SOURCE'
}
