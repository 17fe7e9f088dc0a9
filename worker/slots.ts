import { Deadlines, DeadlineTimer } from '../shared/http/deadlines.ts'
import type { Clock } from '../shared/runtime/clock.ts'

/** So much of the work that lies ahead is held: what ends within this time, as it went lately. */
const AHEAD_MS = 500
/** From a report to the claimed work that it makes room for at the server. */
const ANSWER_MS = 50
/** A transfer that no slot came free for is handed back: others may have one. */
const PATIENCE_MS = 5_000

/** How many attempts run at once in this process, under whichever session, and how many more it makes sense to hold. */
export class Slots {
  readonly limit: number
  readonly #clock: Clock
  readonly #timer: DeadlineTimer
  /** Attempts without a slot, in the order they came. */
  readonly #queue = new Set<() => void>()
  readonly #waiting = new Set<() => void>()
  #taken = 0
  /** Attempts that ended in the present stretch of `AHEAD_MS`, and in the one before. */
  #ended = { stretch: 0, now: 0, before: 0 }

  constructor(limit: number, clock: Clock) {
    this.limit = limit
    this.#clock = clock
    this.#timer = new DeadlineTimer(clock)
  }

  /** Slots that nothing waits for. */
  get free(): number {
    return this.limit - this.#taken - this.#queue.size
  }

  /** Attempts that wait for a slot. */
  get queued(): number {
    return this.#queue.size
  }

  /** How many attempts ended lately in `AHEAD_MS`. */
  get pace(): number {
    const { now, before } = this.#endedLately()
    return Math.max(now, before)
  }

  /** Whether slots would be idle before a report of `ended` outcomes could make room for more work, and it makes enough. */
  isShort(ended: number): boolean {
    const meanwhile = (this.pace * ANSWER_MS) / AHEAD_MS
    return this.#taken === 0 || (this.#queue.size <= meanwhile && ended >= meanwhile)
  }

  /** How many transfers are wanted: for free slots, and for those that will be free before another claim is answered. */
  get room(): number {
    return Math.max(0, this.free + this.pace)
  }

  /** Takes a slot, in the order of asking. False, and none is taken, when none came free in time or `signal` aborts. */
  take(signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false)
    if (this.free > 0) {
      this.#taken += 1
      return Promise.resolve(true)
    }
    return new Promise(resolve => {
      const leave = (given: boolean) => {
        this.#queue.delete(give)
        patience.close()
        signal.removeEventListener('abort', giveUp)
        if (given) this.#taken += 1
        resolve(given)
      }
      const give = () => leave(true)
      const giveUp = () => leave(false)
      const patience = new Deadlines(this.#timer, giveUp)
      patience.set('slot', PATIENCE_MS)
      signal.addEventListener('abort', giveUp, { once: true })
      this.#queue.add(give)
    })
  }

  release(): void {
    this.#taken -= 1
    this.#endedLately().now += 1
    const [next] = this.#queue
    next?.()
    for (const wake of [...this.#waiting]) wake()
  }

  /** Resolves when there is so much room, when a slot has nothing to do, after `ms`, or when `signal` aborts. */
  async untilRoom(count: number, ms: number, signal: AbortSignal): Promise<void> {
    await this.#until(() => this.room >= count || this.free > 0, ms, signal)
  }

  /** Resolves when so many are free, after `ms`, or when `signal` aborts. */
  async untilFree(count: number, ms: number, signal: AbortSignal): Promise<void> {
    await this.#until(() => this.free >= count, ms, signal)
  }

  async #until(satisfied: () => boolean, ms: number, signal: AbortSignal): Promise<void> {
    const until = this.#clock.monotonic() + ms
    if (satisfied() || signal.aborted) return
    const over = new AbortController()
    const wake = () => {
      if (signal.aborted || satisfied()) over.abort()
    }
    this.#waiting.add(wake)
    signal.addEventListener('abort', wake, { once: true })
    await this.#clock.sleep(until - this.#clock.monotonic(), over.signal)
    signal.removeEventListener('abort', wake)
    this.#waiting.delete(wake)
  }

  #endedLately(): { now: number; before: number } {
    const stretch = Math.floor(this.#clock.monotonic() / AHEAD_MS)
    const { stretch: last, now } = this.#ended
    if (stretch !== last) this.#ended = { stretch, now: 0, before: stretch === last + 1 ? now : 0 }
    return this.#ended
  }
}
