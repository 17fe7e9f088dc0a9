/** How often, and for how long, a destination is looked at where nobody saw an attempt end. */

/** What earlier looks since the attempt came to. */
export interface EarlierLooks {
  readonly looks: number
  /** Those that failed in a way that does not pass by itself. */
  readonly inVain: number
}

interface LookFailure {
  readonly scope: string
  readonly code: string
}

const FIRST_DELAY = 5_000
const LONGEST_DELAY = 300_000
/** Ten minutes of failing looks: the storage is gone, or nobody may remove what lies there. */
const LOOKS_IN_VAIN = 8
/** A day of looks, whatever they come to: no copy takes so long, and slots are not held longer for an issuer that is away. */
const LOOKS_AT_ALL = 300
/** What is wrong with a token, or on its way to it, that passes by itself: nothing fails for it. */
const PASSING = new Set([
  'ISSUER_UNREACHABLE',
  'ISSUER_BUSY',
  'ISSUER_NOT_CONFIGURED',
  'ISSUER_UNKNOWN',
  'TOKEN_LATE',
  'GRANT_ENDED',
])

/** Milliseconds until the next look. */
export function lookDelay(earlier: EarlierLooks): number {
  return Math.min(FIRST_DELAY * 2 ** Math.min(earlier.looks, 10), LONGEST_DELAY)
}

/**
 * A look for which there was no token yet, or no permit in time, says nothing of the storage. A token that is refused, or that the
 * issuer makes another than was asked for, stays so until a person has looked.
 */
export function isInVain({ scope, code }: LookFailure): boolean {
  return code !== 'PERMIT_LATE' && (scope !== 'TOKEN' || !PASSING.has(code))
}

/** Whether the look that just ended, with this failure or with a file that changes, is the last one: the attempt failed. */
export function isLastLook(earlier: EarlierLooks, failure: LookFailure | undefined): boolean {
  if (earlier.looks + 1 >= LOOKS_AT_ALL) return true
  return failure !== undefined && isInVain(failure) && earlier.inVain + 1 >= LOOKS_IN_VAIN
}

/** How much of a claim may be looks: half, rounded by chance (a fraction in [0, 1)), so that a claim of one is either. */
export function settleShare(limit: number, fraction: number): number {
  return Math.floor(limit / 2 + fraction)
}
