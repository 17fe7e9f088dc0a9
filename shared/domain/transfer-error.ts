import type { TransferCode, TransferPhase, TransferScope } from './error-catalogue.ts'

/** What went wrong in one attempt: stored with it and shown to people. Never holds a secret. */
export interface TransferFailure {
  readonly scope: TransferScope
  readonly phase: TransferPhase
  readonly code: TransferCode
  /** The storage's own words, at most 1000 printable characters, without anything that looks like a token. */
  readonly message: string
  /** Whether the same transfer may succeed later without anybody's doing: the code's `retry` in the catalogue is not `never`. */
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
