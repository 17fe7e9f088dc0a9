import { errorEntry, type Retry } from './error-catalogue.ts'
import type { TransferFailure } from './transfer-error.ts'

/** When a failed attempt is tried again. Times in milliseconds. */
export interface RetryPolicy {
  /** Counted attempts in all, the first one included. */
  readonly maxAttempts: number
  /** The longest first delay after a blip, and after a storage asked for rest. */
  readonly soon: number
  readonly later: number
  readonly maxDelay: number
}

export const DEFAULT_RETRY_POLICY: RetryPolicy = { maxAttempts: 5, soon: 5_000, later: 60_000, maxDelay: 3_600_000 }

/** Before a transfer is queued again that waits for what is looked at by itself: others are tried first. Milliseconds. */
const UNCOUNTED_MS = 120_000

/** What becomes of a transfer after a failure. `counted`: the attempt is one of `maxAttempts`. */
export type AfterFailure =
  | { readonly again: true; readonly counted: boolean; readonly afterMs: number }
  | { readonly again: false }

/**
 * Exponential with full jitter, by the failure's class; never sooner than the storage asked for (`Retry-After`). `attempts` counts
 * the one that just failed; `fraction` is a random number in [0, 1).
 */
export function afterFailure(
  policy: RetryPolicy,
  attempts: number,
  failure: Pick<TransferFailure, 'scope' | 'retryable' | 'retryAfterSeconds'> & { readonly code: string },
  fraction: number,
): AfterFailure {
  const asked = (failure.retryAfterSeconds ?? 0) * 1000
  const after = (ceiling: number): number => Math.max(asked, Math.round(ceiling * fraction))
  const retry = retryOf(failure)
  if (retry === 'uncounted') return { again: true, counted: false, afterMs: after(UNCOUNTED_MS) }
  if (retry === 'never' || attempts >= policy.maxAttempts) return { again: false }
  return { again: true, counted: true, afterMs: after(Math.min(policy.maxDelay, policy[retry] * 2 ** (attempts - 1))) }
}

/**
 * `retryable` decides whether at all: of a source that has refused its file, another may have it. Want of space costs no attempt where
 * it holds its storage back; where nobody knows whose it is, nothing is held, and it would be tried for ever.
 */
function retryOf({ code, scope, retryable }: Pick<TransferFailure, 'scope' | 'retryable'> & { code: string }): Retry {
  if (!retryable) return 'never'
  const entry = errorEntry(code)
  if (entry?.holds === 'storage-at-once' && scope !== 'DESTINATION') return 'later'
  const retry = entry?.retry ?? 'soon'
  return retry === 'never' ? 'soon' : retry
}
