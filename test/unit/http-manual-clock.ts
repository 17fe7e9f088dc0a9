import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../../shared/runtime/clock.ts'

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #now = 0
  readonly #sleepers = new Set<{ at: number; wake: () => void }>()
  readonly #waiting: { count: number; go: () => void }[] = []

  now(): number {
    return 1_800_000_000_000 + this.#now
  }

  monotonic(): number {
    return this.#now
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (signal?.aborted) return resolve()
      const wake = (): void => {
        this.#sleepers.delete(sleeper)
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      const sleeper = { at: this.#now + ms, wake }
      this.#sleepers.add(sleeper)
      signal?.addEventListener('abort', wake)
      for (const { count, go } of this.#waiting) if (this.#sleepers.size >= count) go()
    })
  }

  get sleepers(): number {
    return this.#sleepers.size
  }

  /** Resolves once so many sleeps are under way. */
  untilSleeping(count = 1): Promise<void> {
    if (this.#sleepers.size >= count) return Promise.resolve()
    return new Promise(go => this.#waiting.push({ count, go }))
  }

  /** Moves time in small steps and lets everything that wakes run, as real time would. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    while (this.#now < end) {
      const due = [...this.#sleepers].map(({ at }) => at).filter(at => at <= end)
      this.#now = Math.max(this.#now, Math.min(end, ...due))
      for (const sleeper of this.#sleepers) {
        if (sleeper.at > this.#now) continue
        this.#sleepers.delete(sleeper)
        sleeper.wake()
      }
      await turn()
    }
  }
}
