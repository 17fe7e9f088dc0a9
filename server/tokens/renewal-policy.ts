import type { GrantState } from '../../shared/domain/grant-state.ts'

/** Where a failed step leaves a grant. */
export interface AfterFailure {
  readonly state: GrantState
  readonly delayMs: number
}

const PASSING = new Set(['ISSUER_UNREACHABLE', 'ISSUER_BUSY'])
const HELD_MS = 300_000
const BACKOFF = { base: 1_000, most: 60_000 }

/**
 * An issuer that is down costs delay; a refusal, or a token other than the one asked for, holds the grant: a person must
 * look, and it is tried again from time to time. A refused refresh means the refresh token is gone: mint again at once, once.
 */
export function afterFailure(
  step: 'mint' | 'exchange' | 'refresh',
  code: string,
  failures: number,
  retryAfterSeconds: number | undefined,
): AfterFailure {
  if (PASSING.has(code)) {
    const backoff = Math.min(BACKOFF.most, BACKOFF.base * 2 ** Math.min(failures, 10))
    const delayMs = Math.max(backoff, (retryAfterSeconds ?? 0) * 1000)
    return { state: step === 'mint' ? 'WANTED' : 'RENEWING', delayMs }
  }
  if (step === 'refresh' && code === 'TOKEN_REFUSED' && failures === 0) {
    return { state: 'WANTED', delayMs: 0 }
  }
  return { state: 'HELD', delayMs: HELD_MS }
}
