import type { Clock } from '../shared/runtime/clock.ts'

/** How many attempts run at once in this process, under whichever session. */
export class Slots {
  readonly limit: number
  readonly #clock: Clock
  readonly #waiting = new Set<() => void>()
  #taken = 0

  constructor(limit: number, clock: Clock) {
    this.limit = limit
    this.#clock = clock
  }

  get free(): number {
    return this.limit - this.#taken
  }

  take(): void {
    this.#taken += 1
  }

  release(): void {
    this.#taken -= 1
    for (const wake of [...this.#waiting]) wake()
  }

  /** Resolves when so many are free, after `ms`, or when `signal` aborts. */
  async untilFree(count: number, ms: number, signal: AbortSignal): Promise<void> {
    const until = this.#clock.monotonic() + ms
    while (this.free < count && this.#clock.monotonic() < until && !signal.aborted) {
      const woken = new AbortController()
      const wake = () => woken.abort()
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake, { once: true })
      await this.#clock.sleep(until - this.#clock.monotonic(), woken.signal)
      signal.removeEventListener('abort', wake)
      this.#waiting.delete(wake)
    }
  }
}
