import type { Clock } from '../shared/runtime/clock.ts'

/**
 * Few rows that everything reads and that rarely change: read whole and kept for a moment, so that other servers' changes
 * show within `FRESH_MS`.
 */
export class Kept<T> {
  readonly #load: () => Promise<T>
  readonly #clock: Clock
  #known: { at: number; value: Promise<T> } | undefined

  constructor(clock: Clock, load: () => Promise<T>) {
    this.#clock = clock
    this.#load = load
  }

  async get(): Promise<T> {
    const now = this.#clock.monotonic()
    if (this.#known === undefined || now - this.#known.at > FRESH_MS) {
      const known = { at: now, value: this.#load() }
      this.#known = known
      known.value.catch(() => {
        if (this.#known === known) this.#known = undefined
      })
    }
    return this.#known.value
  }

  /** After a change of this server's own. */
  forget(): void {
    this.#known = undefined
  }
}

const FRESH_MS = 2_000
