import type { TransferFailure } from './transfer-error.ts'

/** When a failed attempt is tried again. Times in milliseconds. */
export interface RetryPolicy {
  /** Counted attempts in all, the first one included. */
  readonly maxAttempts: number
  readonly baseDelay: number
  readonly maxDelay: number
}

export const DEFAULT_RETRY_POLICY: RetryPolicy = { maxAttempts: 5, baseDelay: 5_000, maxDelay: 3_600_000 }

/**
 * The delay before the next attempt, or `undefined` to give up. Exponential with full jitter; never sooner than the storage
 * asked for (`Retry-After`). `attempts` counts the one that just failed; `fraction` is a random number in [0, 1).
 */
export function retryDelay(
  policy: RetryPolicy,
  attempts: number,
  failure: Pick<TransferFailure, 'retryable' | 'retryAfterSeconds'>,
  fraction: number,
): number | undefined {
  if (!failure.retryable || attempts >= policy.maxAttempts) return undefined
  const ceiling = Math.min(policy.maxDelay, policy.baseDelay * 2 ** (attempts - 1))
  const asked = (failure.retryAfterSeconds ?? 0) * 1000
  return Math.max(asked, Math.round(ceiling * fraction))
}
