import { setTimeout as delay } from 'node:timers/promises'

/** The only way to the time. Tests inject their own. All figures are milliseconds. */
export interface Clock {
  /** Milliseconds since the epoch: for what is stored or compared with token times. Can jump. */
  now(): number
  /** Milliseconds from an arbitrary start: for durations and deadlines. Never jumps. */
  monotonic(): number
  /** Resolves after `ms`, or at once when `signal` aborts (it never rejects: look at the signal). */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, { signal })
    } catch {
      // Aborted: the caller asked to stop waiting, which is not an error.
    }
  },
}
