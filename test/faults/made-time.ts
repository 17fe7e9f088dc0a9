import { setImmediate as turn } from 'node:timers/promises'
import { type Clock, systemClock } from '../../shared/runtime/clock.ts'

/** How much time passes in a real millisecond or so: while something is under way, and while everybody waits. Milliseconds. */
const BUSY_MS = 40
const IDLE_MS = 500
/** What takes longer than so many of those waits for something itself. */
const BUSY_TICKS = 80

interface Sleeper {
  readonly due: number
  readonly wake: () => void
}

/**
 * Time that a test makes for all that runs in its process: it passes fast while everybody sleeps, slower while requests are
 * under way, and not at all while it is held. Sleepers wake in their order, and each has its turn before the next one wakes, so
 * that an hour's waiting takes seconds and nothing is late that would not be late in an hour.
 */
export class MadeTime implements Clock {
  readonly #begins = systemClock.now()
  #passed = 0
  #held = 0
  #ticks = 0
  /** Until which tick each thing under way counts. */
  readonly #busy = new Set<{ readonly until: number }>()
  readonly #sleepers = new Set<Sleeper>()
  #ends = false
  readonly #flow: Promise<void>

  constructor() {
    this.#flow = this.#run()
  }

  now(): number {
    return Math.round(this.#begins + this.#passed)
  }

  monotonic(): number {
    return this.#passed
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (signal?.aborted) return resolve()
      const wake = (): void => {
        this.#sleepers.delete(sleeper)
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      const sleeper = { due: this.#passed + Math.max(0, ms), wake }
      this.#sleepers.add(sleeper)
      signal?.addEventListener('abort', wake)
    })
  }

  /** Time passes slowly until what was begun is over, or shows that it waits. */
  async whileBusy<T>(work: () => Promise<T>): Promise<T> {
    const entry = { until: this.#ticks + BUSY_TICKS }
    this.#busy.add(entry)
    try {
      return await work()
    } finally {
      this.#busy.delete(entry)
    }
  }

  /** Time stands: for what takes no time in the world that is played, and waits for none. */
  async whileHeld<T>(work: () => Promise<T>): Promise<T> {
    this.#held += 1
    try {
      return await work()
    } finally {
      this.#held -= 1
    }
  }

  /** After all that sleeps by it. */
  async end(): Promise<void> {
    this.#ends = true
    await this.#flow
  }

  async #run(): Promise<void> {
    while (!this.#ends) {
      await systemClock.sleep(1)
      this.#ticks += 1
      for (const entry of this.#busy) if (entry.until < this.#ticks) this.#busy.delete(entry)
      await this.#pass(this.#busy.size > 0 ? BUSY_MS : IDLE_MS)
    }
  }

  async #pass(ms: number): Promise<void> {
    const until = this.#passed + ms
    while (this.#held === 0) {
      let next: Sleeper | undefined
      for (const sleeper of this.#sleepers) if (next === undefined || sleeper.due < next.due) next = sleeper
      if (next === undefined || next.due > until) {
        this.#passed = until
        return
      }
      this.#passed = Math.max(this.#passed, next.due)
      next.wake()
      await turn()
    }
  }
}
