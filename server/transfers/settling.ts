/** How often, and for how long, a destination is looked at where nobody saw an attempt end. */

/** What earlier looks since the attempt came to. */
export interface EarlierLooks {
  readonly looks: number
  /** Those that failed, by a storage's doing. */
  readonly inVain: number
}

interface LookFailure {
  readonly scope: string
  readonly code: string
}

const FIRST_DELAY = 5_000
const LONGEST_DELAY = 300_000
/** Ten minutes of failing looks: the storage is gone, or lets nobody remove what lies there. */
const LOOKS_IN_VAIN = 8
/** A day of looks at a file that still changes: no copy takes so long. */
const LOOKS_AT_GROWTH = 300

/** Milliseconds until the next look. */
export function lookDelay(earlier: EarlierLooks): number {
  return Math.min(FIRST_DELAY * 2 ** Math.min(earlier.looks, 10), LONGEST_DELAY)
}

/** A look for which there was no token, or no permit in time, says nothing of the storage: nothing fails for an issuer. */
export function isInVain({ scope, code }: LookFailure): boolean {
  return code !== 'PERMIT_LATE' && (scope !== 'TOKEN' || code === 'TOKEN_REFUSED')
}

/** Whether the look that just ended, with this failure or with a file that changes, is the last one: the attempt failed. */
export function isLastLook(earlier: EarlierLooks, failure: LookFailure | undefined): boolean {
  if (failure === undefined) return earlier.looks + 1 >= LOOKS_AT_GROWTH
  return isInVain(failure) && earlier.inVain + 1 >= LOOKS_IN_VAIN
}

/** How much of a claim may be looks: half, rounded by chance (a fraction in [0, 1)), so that a claim of one is either. */
export function settleShare(limit: number, fraction: number): number {
  return Math.floor(limit / 2 + fraction)
}
