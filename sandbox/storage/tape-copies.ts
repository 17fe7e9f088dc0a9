import type { Clock } from '../../shared/runtime/clock.ts'
import { identity } from './checksums.ts'
import type { FileTree } from './file-tree.ts'
import type { TapeSettings } from './tape-settings.ts'

/** The localities of the tape API, as far as they are played. */
export type Locality = 'DISK' | 'TAPE' | 'DISK_AND_TAPE' | 'LOST' | 'NONE'

/** Whoever wants a file on disk: a stage request, so many milliseconds. */
export interface Pin {
  readonly holder: string
  readonly ms: number
}

interface Copies {
  /** Monotonic milliseconds: when the file was first seen. */
  readonly writtenAt: number
  onDisk: boolean
  /** Monotonic milliseconds: when it was last brought there. */
  onDiskAt: number
  /** Holder to the time until which, monotonic milliseconds. */
  readonly pins: Map<string, number>
}

interface Found {
  readonly size: number
  readonly copies: Copies
}

const MAX_REMEMBERED = 100_000

/**
 * Which files are on disk, on tape or both. The bytes stay where they are in the file tree: a file that is on tape only is one
 * that can't be opened. What is known belongs to the file as it is (inode, mtime, size), wherever it is moved; a file that
 * is written again is new.
 */
export class TapeCopies {
  readonly #files: FileTree
  readonly #settings: TapeSettings
  readonly #clock: Clock
  readonly #known = new Map<string, Copies>()

  constructor(files: FileTree, settings: TapeSettings, clock: Clock) {
    this.#files = files
    this.#settings = settings
    this.#clock = clock
  }

  /** A new file is on disk; the time until it is on tape runs from now. */
  async noteWritten(path: readonly string[]): Promise<void> {
    await this.#look(path)
  }

  /** `undefined` when there is no file. */
  async locality(path: readonly string[]): Promise<Locality | undefined> {
    const found = await this.#look(path)
    if (found === undefined) return undefined
    // Empty files are not written to tape: dCache says that they are on disk; NONE is what the specification has for them.
    if (found.size === 0) return this.#settings.dialect === 'dcache' ? 'DISK' : 'NONE'
    if (found.copies.onDisk) return this.#isOnTape(found) ? 'DISK_AND_TAPE' : 'DISK'
    return this.isLost(path) ? 'LOST' : 'TAPE'
  }

  /** False only for a file that would have to come from tape. */
  async isOnDisk(path: readonly string[]): Promise<boolean> {
    return (await this.#look(path))?.copies.onDisk ?? true
  }

  isLost(path: readonly string[]): boolean {
    return this.#settings.lost.includes(`/${path.join('/')}`)
  }

  /** Pins a file that is on disk. False only for one that would have to come from tape. */
  async hold(path: readonly string[], pin: Pin | undefined): Promise<boolean> {
    const found = await this.#look(path)
    if (found === undefined) return true
    if (found.copies.onDisk) this.#pin(found.copies, pin)
    return found.copies.onDisk
  }

  /** The file is on disk from now on, and pinned before anybody could take it away. */
  async bring(path: readonly string[], pin: Pin | undefined): Promise<void> {
    const found = await this.#look(path)
    if (found === undefined) return
    found.copies.onDisk = true
    found.copies.onDiskAt = this.#clock.monotonic()
    this.#pin(found.copies, pin)
  }

  async unpin(path: readonly string[], holder: string): Promise<void> {
    const found = await this.#look(path)
    found?.copies.pins.delete(holder)
  }

  /** Takes a file from disk. False when it is pinned, when it isn't on tape, or when there is none. */
  async evict(path: readonly string[]): Promise<boolean> {
    const found = await this.#look(path)
    if (found === undefined || !this.#mayLeaveDisk(found)) return false
    found.copies.onDisk = false
    return true
  }

  #mayLeaveDisk(found: Found): boolean {
    const now = this.#clock.monotonic()
    return this.#isOnTape(found) && ![...found.copies.pins.values()].some(until => until > now)
  }

  #pin(copies: Copies, pin: Pin | undefined): void {
    if (pin !== undefined) copies.pins.set(pin.holder, this.#clock.monotonic() + pin.ms)
  }

  #isOnTape({ size, copies }: Found): boolean {
    return size > 0 && this.#clock.monotonic() - copies.writtenAt >= this.#settings.archiveSeconds * 1000
  }

  async #look(path: readonly string[]): Promise<Found | undefined> {
    const stats = await this.#files.stat(path)
    if (stats?.isFile() !== true) return undefined
    const key = identity(stats)
    const known = this.#known.get(key)
    const now = this.#clock.monotonic()
    if (known !== undefined) {
      const found = { size: stats.size, copies: known }
      const { diskSeconds = Number.POSITIVE_INFINITY } = this.#settings
      if (now - known.onDiskAt >= diskSeconds * 1000 && this.#mayLeaveDisk(found)) known.onDisk = false
      return found
    }
    const copies: Copies = { writtenAt: now, onDisk: true, onDiskAt: now, pins: new Map() }
    this.#known.set(key, copies)
    const oldest = this.#known.keys().next()
    if (this.#known.size > MAX_REMEMBERED && !oldest.done) this.#known.delete(oldest.value)
    return { size: stats.size, copies }
  }
}
