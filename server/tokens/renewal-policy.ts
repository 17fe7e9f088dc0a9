/** What a failed step means for its grant: an event of its table, and when it is tried again. */
export interface AfterFailure {
  readonly event: 'retry' | 'restart' | 'refuse'
  readonly delayMs: number
}

const PASSING = new Set(['ISSUER_UNREACHABLE', 'ISSUER_BUSY'])
/** Begins the error that a grant keeps of a refusal. */
export const REFUSED = 'TOKEN_REFUSED'
/** How long a grant is held. */
export const HELD_MS = 300_000
const BACKOFF = { base: 1_000, most: 60_000 }

export interface FailedStep {
  readonly step: 'mint' | 'exchange' | 'refresh'
  readonly code: string
  /** In a row, before this one. */
  readonly failures: number
  /** The last failure of this grant, if none went well since, was a refusal by the issuer. */
  readonly refusedBefore: boolean
  /** The grant's access token, which an exchange presents, has ended meanwhile. */
  readonly ended: boolean
  readonly retryAfterSeconds?: number | undefined
}

/**
 * An issuer that is down costs delay; a refusal, or a token other than the one asked for, holds the grant: a person must
 * look, and it is tried again from time to time. A refused refresh may only mean that the refresh token has ended, and so may
 * a refused exchange of a token that has: mint again at once, once. So may one that follows trouble: an issuer whose answer
 * was lost has given the refresh token's successor to nobody. (A mint clears the count of failures: to restart after any
 * refused exchange would ask the issuer for ever.)
 */
export function afterFailure(failed: FailedStep): AfterFailure {
  const { step, code, failures, refusedBefore, ended, retryAfterSeconds } = failed
  if (PASSING.has(code)) {
    const backoff = Math.min(BACKOFF.most, BACKOFF.base * 2 ** Math.min(failures, 10))
    const delayMs = Math.max(backoff, (retryAfterSeconds ?? 0) * 1000)
    return { event: 'retry', delayMs }
  }
  const mayHaveEnded = step === 'refresh' || (step === 'exchange' && ended)
  if (mayHaveEnded && code === REFUSED && !refusedBefore) return { event: 'restart', delayMs: 0 }
  return { event: 'refuse', delayMs: HELD_MS }
}
