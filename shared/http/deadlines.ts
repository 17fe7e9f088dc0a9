import type { Clock } from '../runtime/clock.ts'

/** Node cuts a timer above 2^31 - 1 ms down to 1 ms. */
const LONGEST_SLEEP_MS = 2 ** 31 - 1

interface Waiting {
  /** Fires what is due; gives the time of the next that is not, or infinity. */
  wake(now: number): number
}

/**
 * One sleep for all deadlines of a client. A deadline that is set later than the sleep ends, moved or cleared costs nothing
 * until then: with a timer of its own for each, an exchange took 0.1 ms of CPU more, half as much again.
 */
export class DeadlineTimer {
  readonly #clock: Clock
  readonly #waiting = new Set<Waiting>()
  #sleep: AbortController | undefined
  #wakeAt = Number.POSITIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  now(): number {
    return this.#clock.monotonic()
  }

  wakeBy(waiting: Waiting, at: number): void {
    this.#waiting.add(waiting)
    if (at < this.#wakeAt) this.#sleepUntil(at)
  }

  leave(waiting: Waiting): void {
    if (!this.#waiting.delete(waiting) || this.#waiting.size > 0) return
    // A sleep keeps the process alive. Not at once: where requests follow each other the next is here before that.
    setImmediate(() => {
      // Of many that left in one turn the first ends it.
      if (this.#waiting.size > 0 || this.#wakeAt === Number.POSITIVE_INFINITY) return
      this.#sleep?.abort()
      this.#wakeAt = Number.POSITIVE_INFINITY
    })
  }

  #sleepUntil(at: number): void {
    this.#sleep?.abort()
    const sleep = new AbortController()
    this.#sleep = sleep
    this.#wakeAt = at
    const ms = Math.min(Math.max(0, at - this.now()), LONGEST_SLEEP_MS)
    void this.#clock.sleep(ms, sleep.signal).then(() => {
      if (!sleep.signal.aborted) this.#wake()
    })
  }

  #wake(): void {
    this.#wakeAt = Number.POSITIVE_INFINITY
    const now = this.now()
    let next = Number.POSITIVE_INFINITY
    for (const waiting of [...this.#waiting]) next = Math.min(next, waiting.wake(now))
    // What fired may have set new ones meanwhile.
    if (next < this.#wakeAt) this.#sleepUntil(next)
  }
}

/** The named deadlines of one exchange. After the first one expired, or after `close`, nothing fires any more. */
export class Deadlines<Name extends string> implements Waiting {
  readonly #timer: DeadlineTimer
  readonly #onExpired: (name: Name) => void
  readonly #due = new Map<Name, number>()
  #closed = false

  constructor(timer: DeadlineTimer, onExpired: (name: Name) => void) {
    this.#timer = timer
    this.#onExpired = onExpired
  }

  /** Starts the deadline, or starts it again, `ms` milliseconds from now. `undefined` is no deadline. */
  set(name: Name, ms: number | undefined): void {
    if (this.#closed || ms === undefined) return
    const at = this.#timer.now() + ms
    this.#due.set(name, at)
    this.#timer.wakeBy(this, at)
  }

  clear(name: Name): void {
    this.#due.delete(name)
  }

  close(): void {
    this.#closed = true
    this.#due.clear()
    this.#timer.leave(this)
  }

  wake(now: number): number {
    for (const [name, at] of this.#due) {
      if (at > now) continue
      this.close()
      this.#onExpired(name)
      return Number.POSITIVE_INFINITY
    }
    return Math.min(Number.POSITIVE_INFINITY, ...this.#due.values())
  }
}
