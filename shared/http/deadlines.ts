import type { Clock } from '../runtime/clock.ts'

/**
 * Several named deadlines over one timer. A deadline that is moved or cleared costs nothing until the timer wakes, which
 * matters where every COPY has four of them. After the first one expired, or after `close`, nothing fires any more.
 */
export class Deadlines<Name extends string> {
  readonly #clock: Clock
  readonly #onExpired: (name: Name) => void
  readonly #due = new Map<Name, number>()
  #timer: AbortController | undefined
  #wakeAt = Number.POSITIVE_INFINITY
  #closed = false

  constructor(clock: Clock, onExpired: (name: Name) => void) {
    this.#clock = clock
    this.#onExpired = onExpired
  }

  /** Starts the deadline, or starts it again, `ms` milliseconds from now. `undefined` is no deadline. */
  set(name: Name, ms: number | undefined): void {
    if (this.#closed || ms === undefined) return
    const at = this.#clock.monotonic() + ms
    this.#due.set(name, at)
    if (at < this.#wakeAt) this.#arm()
  }

  clear(name: Name): void {
    this.#due.delete(name)
  }

  close(): void {
    this.#closed = true
    this.#due.clear()
    this.#timer?.abort()
  }

  #arm(): void {
    this.#timer?.abort()
    this.#wakeAt = Math.min(...this.#due.values())
    if (this.#wakeAt === Number.POSITIVE_INFINITY) return
    const timer = new AbortController()
    this.#timer = timer
    const wait = Math.max(0, this.#wakeAt - this.#clock.monotonic())
    // Node cuts a timer above 2^31 ms down to 1 ms.
    void this.#clock.sleep(Math.min(wait, 2 ** 31 - 1), timer.signal).then(() => {
      if (!timer.signal.aborted) this.#wake()
    })
  }

  #wake(): void {
    const now = this.#clock.monotonic()
    for (const [name, at] of this.#due) {
      if (at > now) continue
      this.close()
      this.#onExpired(name)
      return
    }
    this.#arm()
  }
}
