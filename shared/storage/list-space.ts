import type { ListSpace } from './multistatus.ts'

/** Of all lists that are in memory at once, bytes: about a million entries with paths of 100 characters. */
const MOST_BYTES = 512 * 1024 * 1024
/** Of one that is counted by itself. */
const MOST_ALONE = 128 * 1024 * 1024

/** For one list that is looked through at once. */
export class OwnSpace implements ListSpace {
  #left = MOST_ALONE

  take(bytes: number): boolean {
    this.#left -= bytes
    return this.#left >= 0
  }
}

/** What the lists of a process take together: several long ones must not end it. */
export class SharedSpace {
  readonly #most: number
  #taken = 0
  readonly #waiting = new Set<() => void>()

  constructor(most = MOST_BYTES) {
    this.#most = most
  }

  get taken(): number {
    return this.#taken
  }

  /** For one list, until it is closed. */
  open(): SpaceLease {
    return new SpaceLease(this)
  }

  take(bytes: number): boolean {
    if (this.#taken + bytes > this.#most) return false
    this.#taken += bytes
    return true
  }

  release(bytes: number): void {
    this.#taken -= bytes
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const look of waiting) look()
  }

  /**
   * Resolves when half as much again is free as `lease` had when it was cut off, or `signal` aborts. Who waits has let go of its own
   * list: so nobody waits for another that waits.
   */
  async roomFor(lease: SpaceLease, signal: AbortSignal): Promise<void> {
    const wanted = Math.min(this.#most, lease.taken * 1.5)
    lease.close()
    while (this.#most - this.#taken < wanted && !signal.aborted) {
      await new Promise<void>(resolve => {
        this.#waiting.add(resolve)
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }
}

/** The part of one list. */
export class SpaceLease implements ListSpace {
  readonly #space: SharedSpace
  #taken = 0
  #isOpen = true
  /** It was cut off; `others`: because of the lists of others. */
  cutOff: { readonly others: boolean } | undefined

  constructor(space: SharedSpace) {
    this.#space = space
  }

  get taken(): number {
    return this.#taken
  }

  take(bytes: number): boolean {
    if (this.#space.take(bytes)) {
      this.#taken += bytes
      return true
    }
    this.cutOff ??= { others: this.#space.taken > this.#taken }
    return false
  }

  close(): void {
    if (this.#isOpen) this.#space.release(this.#taken)
    this.#isOpen = false
  }
}
