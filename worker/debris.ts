import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import type { CopyOutcome } from '../shared/storage/types.ts'
import type { Progress } from './attempt.ts'
import { type AttemptFailure, sideOf } from './failure.ts'
import type { Mode } from './mode.ts'

/** Failures of the storage that got the request, before it did anything. */
const NOTHING_DONE = new Set([
  'TOKEN_REFUSED',
  'PERMISSION_DENIED',
  'NOT_SUPPORTED',
  'TOO_MANY_REQUESTS',
  'STORAGE_BUSY',
  'PARENT_MISSING',
  'REDIRECT_REFUSED',
  'RESOLVE_FAILED',
  'CONNECT_FAILED',
  'TLS_FAILED',
  'TIMEOUT_CONNECT',
])

/**
 * Whether a failed attempt may have left something, so that the destination must be looked at. A refusal that a storage
 * relays from the other one comes after it may have opened the file (facts/http-tpc.md section 5, Debris).
 */
export function mayHaveLeft(failure: AttemptFailure, { sent, mode }: Pick<Progress, 'sent' | 'mode'>): boolean {
  if (failure.code === 'DESTINATION_EXISTS') return true
  if (!sent) return false
  // No token was to be had for another COPY; what those before it left, `progress` knows.
  if (failure.scope === 'TOKEN' && failure.phase === 'PREPARATION' && failure.code !== 'TOKEN_REFUSED') return false
  if (failure.phase !== 'PREPARATION' || !NOTHING_DONE.has(failure.code)) return true
  const asked = mode === 'push' ? 'SOURCE' : 'DESTINATION'
  const side = sideOf(failure)
  return mode !== 'stream' && side !== undefined && side !== asked
}

/** A push whose PUT the destination did not let in: a file may have come there since the look, which a token may not replace. */
function wasRefusedPut({ code, side, httpStatus }: TransferFailure, mode: Mode): boolean {
  return mode === 'push' && side === 'DESTINATION' && httpStatus !== undefined && NOTHING_DONE.has(code)
}

/**
 * Whether what lies at the destination may be this copy's: pushes and streams have looked before, and a pull with
 * `Overwrite: F` that was taken found nothing either. A pull without an answer, or refused, may just as well have met one of
 * somebody else's: XRootD from 5.7.2 on relays what the source refuses before it has opened anything.
 */
export function mayBeOwn(outcome: CopyOutcome, mode: Mode, taken: boolean): boolean {
  if (outcome.kind === 'done') return true
  const { error } = outcome
  if (error.code === 'DESTINATION_EXISTS' || error.code === 'DESTINATION_CONFLICT') return false
  if (outcome.kind === 'failed' && (!mayHaveLeft(error, { sent: true, mode }) || wasRefusedPut(error, mode)))
    return false
  return taken || mode !== 'pull'
}
