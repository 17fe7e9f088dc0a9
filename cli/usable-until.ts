const MARGIN_MS = 60_000

/**
 * Until when a file may be begun with a token, on the clock of `now`: a minute before it ends, or a fifth of its life if that is less.
 * Epoch milliseconds.
 */
export function usableUntil(expiresAt: number, now: number): number {
  return expiresAt - Math.min(MARGIN_MS, (expiresAt - now) / 5)
}
