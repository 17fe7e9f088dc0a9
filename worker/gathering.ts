import type { Clock } from '../shared/runtime/clock.ts'
import type { Found, FoundFile, LeftOut } from './found-file.ts'

/** Names in one part, and how long one is gathered: what was not handed in is looked at again by whoever goes on. */
const BATCH = 500
const GATHER_MS = 10_000

/** What the next part will bring. */
export class Gathering {
  readonly #clock: Clock
  readonly #since: number
  readonly #files: FoundFile[] = []
  readonly #directories: string[] = []
  readonly #leftOut: LeftOut[] = []
  readonly #listed: number[] = []
  /** How far the directory is that is not done. */
  begun: { directory: number; doneUntil: string } | undefined

  constructor(clock: Clock) {
    this.#clock = clock
    this.#since = clock.monotonic()
  }

  get isEmpty(): boolean {
    return this.room === BATCH && this.#listed.length === 0
  }

  /** Directories that were found, and that are done. */
  get directories(): { found: number; listed: number } {
    return { found: this.#directories.length, listed: this.#listed.length }
  }

  get room(): number {
    return BATCH - this.#files.length - this.#directories.length - this.#leftOut.length
  }

  get isLate(): boolean {
    return this.#clock.monotonic() - this.#since >= GATHER_MS
  }

  get isFull(): boolean {
    return this.room <= 0 || (this.isLate && (this.room < BATCH || this.#listed.length > 0))
  }

  get contents() {
    const { begun } = this
    const lists = {
      files: this.#files,
      directories: this.#directories,
      leftOut: this.#leftOut,
      listed: this.#listed,
    }
    return { ...lists, ...(begun === undefined ? {} : { begun }) }
  }

  add(found: readonly Found[]): void {
    for (const one of found) {
      if (one.kind === 'directory') this.#directories.push(one.path)
      else if (one.kind === 'left-out') this.#leftOut.push(one.leftOut)
      else this.#files.push(one.file)
    }
  }

  end(directory: number): void {
    this.begun = undefined
    this.#listed.push(directory)
  }
}
