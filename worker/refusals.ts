import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import { StorageError } from '../shared/storage/types.ts'
import { isUnseen, type Place, type StorageAccess } from './access.ts'

/**
 * What it says of a directory that it cannot be listed. refused: waiting changes nothing. broken: the storage has answered, and may
 * answer better. away: nobody has looked.
 */
export function whatFailed(failure: TransferFailure): 'gone' | 'refused' | 'broken' | 'away' {
  const { code, httpStatus, retryable } = failure
  if (code === 'SOURCE_MISSING' || code === 'NOT_FOUND') return 'gone'
  if (code === 'TOKEN_REFUSED' || !retryable) return 'refused'
  return httpStatus !== undefined && httpStatus !== 408 && !isUnseen(failure) ? 'broken' : 'away'
}

/** Whether the storage has answered, and its answer may be about this file alone. */
export function isOfFile(error: unknown): error is StorageError {
  if (!(error instanceof StorageError)) return false
  const { httpStatus, code } = error.failure
  return httpStatus !== undefined && code !== 'TOKEN_REFUSED' && !isUnseen(error.failure)
}

/** 401: to a file that may not be read, too, as dCache does. */
export function isForbidden(error: unknown): error is StorageError {
  return error instanceof StorageError && error.failure.code === 'TOKEN_REFUSED'
}

/**
 * Whether the storage answers for this address, and believes the token. XRootD says 409 to a HEAD of a directory. Throws when it is in
 * trouble, or away.
 */
export async function answers(
  place: Place,
  { access, signal }: { readonly access: StorageAccess; readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    await access.use(place, token => place.storage.head(place.url, token, { scope: 'SOURCE', signal }))
    return true
  } catch (error) {
    if (isForbidden(error)) return false
    const { httpStatus = 500 } = isOfFile(error) ? error.failure : {}
    if (httpStatus >= 500) throw error
    return httpStatus !== 403
  }
}
