import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import type { Service } from '../../shared/runtime/services.ts'

/** Between two looks at the database's clock. Milliseconds. */
const INTERVAL_MS = 30_000
/** An answer that came later than this is not believed. */
const MOST_MS = 1_000
/** A server's own clock that is off by more than this is worth a word. */
const NOTABLE_MS = 5_000

/**
 * The database's clock, as one server keeps it: leases, permits and dates are compared by several servers, whose own clocks
 * may differ by minutes. Between two looks it goes by the one of its own clocks that passed more: the monotonic one stands
 * still while a machine is suspended, and a permit that was given after that would be over for all others.
 */
export class DatabaseClock implements Clock {
  readonly #own: Clock
  readonly #ask: () => Promise<number>
  #at = { now: 0, monotonic: 0, own: 0 }

  /** `ask`: the database's time, epoch milliseconds. */
  private constructor(own: Clock, ask: () => Promise<number>) {
    this.#own = own
    this.#ask = ask
  }

  static async start(own: Clock, ask: () => Promise<number>, log: Logger): Promise<DatabaseClock> {
    const clock = new DatabaseClock(own, ask)
    await clock.look()
    const ahead = own.now() - clock.now()
    if (Math.abs(ahead) > NOTABLE_MS)
      log.warn({ aheadMs: ahead }, "this machine's clock is not the database's: it goes by that")
    return clock
  }

  now(): number {
    const { now, monotonic, own } = this.#at
    return Math.round(now + Math.max(this.#own.monotonic() - monotonic, this.#own.now() - own))
  }

  monotonic(): number {
    return this.#own.monotonic()
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.#own.sleep(ms, signal)
  }

  /** Half of the question's time is taken to be its way there; what took too long says nothing. */
  async look(): Promise<void> {
    const asked = this.#own.monotonic()
    const now = await this.#ask()
    const took = this.#own.monotonic() - asked
    if (took > MOST_MS && this.#at.now > 0) return
    this.#at = { now, monotonic: asked + took / 2, own: this.#own.now() - took / 2 }
  }
}

/** Keeps it right. A database that does not answer is others' trouble; the clock goes on. */
export function clockKeeper(clock: DatabaseClock, log: Logger): Service {
  const controller = new AbortController()
  let running: Promise<void> = Promise.resolve()
  async function run(): Promise<void> {
    const { signal } = controller
    for (;;) {
      await clock.sleep(INTERVAL_MS, signal)
      if (signal.aborted) return
      await clock.look().catch((error: unknown) => log.debug({ err: error }, "the database's clock was not read"))
    }
  }
  return {
    name: "keep the database's time",
    async start() {
      running = run()
    },
    async stop() {
      controller.abort()
      await running
    },
  }
}
