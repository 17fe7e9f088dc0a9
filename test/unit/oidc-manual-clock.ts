import type { Clock } from '../../shared/runtime/clock.ts'

/** A clock that stands until it is moved; whoever sleeps wakes when it passes their hour. */
export interface ManualClock extends Clock {
  advance(ms: number): void
}

export function manualClock(start = Date.parse('2026-11-22T12:00:00Z')): ManualClock {
  let elapsed = 0
  const sleepers = new Set<{ until: number; wake: () => void }>()
  return {
    now: () => start + elapsed,
    monotonic: () => elapsed,
    sleep: (ms, signal) =>
      new Promise(resolve => {
        if (signal?.aborted) return resolve()
        const sleeper = {
          until: elapsed + ms,
          wake: (): void => {
            sleepers.delete(sleeper)
            resolve()
          },
        }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', sleeper.wake, { once: true })
      }),
    advance(ms) {
      elapsed += ms
      for (const sleeper of [...sleepers]) if (sleeper.until <= elapsed) sleeper.wake()
    },
  }
}
