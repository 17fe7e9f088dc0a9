import { createHash } from 'node:crypto'
import type { Stats } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'

export const ALGORITHMS = ['adler32', 'md5'] as const
export type Algorithm = (typeof ALGORITHMS)[number]

/** adler32: 8 lower-case hex digits; md5: base64, as RFC 3230 wants it. */
export type Checksums = Readonly<Record<Algorithm, string>>

/** Both checksums, computed while the bytes go by. */
export class Digester {
  readonly #md5 = createHash('md5')
  #adler32 = 1

  update(chunk: Uint8Array): void {
    this.#adler32 = adler32(chunk, this.#adler32)
    this.#md5.update(chunk)
  }

  finish(): Checksums {
    return { adler32: adler32Hex(this.#adler32), md5: this.#md5.digest('base64') }
  }
}

const MAX_REMEMBERED = 100_000
const READ_BYTES = 256 * 1024

/** The checksums of files as they are now: a file that was written again is another file (inode, mtime, size). */
export class ChecksumCache {
  readonly #known = new Map<string, Promise<Checksums>>()

  remember(stats: Stats, checksums: Checksums): void {
    this.#keep(identity(stats), Promise.resolve(checksums))
  }

  /** From memory, or by reading the file; once, however many ask at the same time. */
  of(open: () => Promise<FileHandle>, stats: Stats): Promise<Checksums> {
    const key = identity(stats)
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const computed = compute(open)
    this.#keep(key, computed)
    computed.catch(() => this.#known.delete(key))
    return computed
  }

  #keep(key: string, checksums: Promise<Checksums>): void {
    this.#known.set(key, checksums)
    if (this.#known.size <= MAX_REMEMBERED) return
    const oldest = this.#known.keys().next()
    if (!oldest.done) this.#known.delete(oldest.value)
  }
}

/** Of a file as it is now. */
export function identity(stats: Stats): string {
  return `${stats.dev}:${stats.ino}:${stats.mtimeMs}:${stats.size}`
}

async function compute(open: () => Promise<FileHandle>): Promise<Checksums> {
  const digester = new Digester()
  const file = await open()
  // The stream closes it.
  for await (const chunk of file.createReadStream({ highWaterMark: READ_BYTES })) digester.update(chunk)
  return digester.finish()
}

/**
 * The `Digest` header (RFC 3230) for a `Want-Digest`: the algorithm that is wanted most among those supported.
 * `undefined` when none of them is.
 */
export function wantedAlgorithm(
  wantDigest: string | undefined,
  supported: readonly Algorithm[],
): Algorithm | undefined {
  const wanted = (wantDigest ?? '').split(',').flatMap(entry => {
    const [name = '', ...parameters] = entry.split(';').map(part => part.trim().toLowerCase())
    const algorithm = supported.find(candidate => candidate === name)
    const quality = Number(parameters.find(parameter => parameter.startsWith('q='))?.slice(2) ?? 1)
    return algorithm !== undefined && quality > 0 ? [{ algorithm, quality }] : []
  })
  return wanted.toSorted((a, b) => b.quality - a.quality)[0]?.algorithm
}
