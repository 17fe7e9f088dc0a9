/** What a failed step means for its grant: an event of its table, and when it is tried again. */
export interface AfterFailure {
  readonly event: 'retry' | 'restart' | 'refuse'
  readonly delayMs: number
}

const PASSING = new Set(['ISSUER_UNREACHABLE', 'ISSUER_BUSY'])
const HELD_MS = 300_000
const BACKOFF = { base: 1_000, most: 60_000 }

/**
 * An issuer that is down costs delay; a refusal, or a token other than the one asked for, holds the grant: a person must
 * look, and it is tried again from time to time. A refused exchange or refresh may only mean that the subject or refresh token
 * has ended: mint again at once, once.
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
    return { event: 'retry', delayMs }
  }
  if (step !== 'mint' && code === 'TOKEN_REFUSED' && failures === 0) {
    return { event: 'restart', delayMs: 0 }
  }
  return { event: 'refuse', delayMs: HELD_MS }
}
