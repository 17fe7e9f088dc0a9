import type { Watchdogs } from './types.ts'

/** facts/http-tpc.md section 8: a storage sends a marker every 5 s, and dCache waits a minute before it calls a stall. */
export const DEFAULT_WATCHDOGS: Watchdogs = {
  connect: 15_000,
  headers: 30_000,
  noMarker: 60_000,
  noProgress: 180_000,
  totalBase: 600_000,
  totalPerMiB: 2_000,
}

/** The longest a copy of `size` bytes may take, milliseconds. */
export function totalLimit(watchdogs: Watchdogs, size: number | undefined): number {
  return watchdogs.totalBase + watchdogs.totalPerMiB * Math.ceil((size ?? 0) / 1_048_576)
}
