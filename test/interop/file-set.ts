import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { deflateSync } from 'node:zlib'

/** A file of a test: its content follows from its DID alone. */
export interface PlannedFile {
  readonly did: string
  readonly dataset: string
  readonly bytes: number
}

export interface StoredFile {
  readonly bytes: number
  readonly adler32: string
}

/** One whose name begins another's (token scopes must not), one as CMS writes them, the longest there may be, all characters. */
export const DATASETS = [
  'exp:run1',
  'exp:run10',
  'exp:/store/mc/Run-2026_v1.0/RAW',
  `exp:${'longest-'.padEnd(250, 'x')}`,
  'exp:0.odd_-..names/of/2026',
]

/** Legal names that software trips over; `i` makes each unique. */
const ODD_NAMES: readonly ((i: number) => string)[] = [
  i => `/store/data/Run2026/${i}.root`,
  i => `${i}`,
  i => `a/b/c/d/e/f/g/${i}`,
  i => `${i}..dots...everywhere.`,
  i => `${i}-_-.-._-`,
  i => `${i}/UPPER/lower/Upper`,
  i => `${i}/.hidden`,
  i => `${i}/...`,
  i => `${i}/-rf`,
  i => `${i}/_`,
  i => `${i}.tar.gz`,
  i => `${i}-`.padEnd(250, 'long'),
  i => `${i}/`.padEnd(249, 'd/').concat('f'),
  i => `/${i}/.../--/__/f`,
]

const SMALLEST = 1_000
const LARGEST = 20_000_000
/** Bends the distribution towards the small, as real ones are: 1,000 files have 1 GB together. */
const BEND = 2.15
const EMPTY_EVERY = 100
const ODD_EVERY = 4

/** `count` files from 1 kB to 20 MB and some empty ones, spread over the datasets; a mean of 1 MB. */
export function planFiles(count: number, datasets: readonly string[] = DATASETS): PlannedFile[] {
  return Array.from({ length: count }, (_, i) => {
    const odd = i % ODD_EVERY === 0 ? ODD_NAMES[(i / ODD_EVERY) % ODD_NAMES.length] : undefined
    const size = Math.round(SMALLEST * (LARGEST / SMALLEST) ** ((i / (count - 1)) ** BEND))
    return {
      did: `exp:${odd?.(i) ?? `f${String(i).padStart(6, '0')}.root`}`,
      dataset: datasets[i % datasets.length] ?? '',
      bytes: i % EMPTY_EVERY === 1 ? 0 : size,
    }
  })
}

/** Bytes that no compression and no mix-up of two files survives: a keystream (AES-128-CTR) under the DID. */
export function contentOf({ did, bytes }: PlannedFile): Buffer {
  const key = createHash('sha256').update(did).digest().subarray(0, 16)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(bytes))
}

/** By zlib, not by the product: a zlib stream ends with the adler32 of what is in it (RFC 1950 section 2.2). */
export function adler32ByZlib(content: Buffer): string {
  return deflateSync(content, { level: 0 }).subarray(-4).toString('hex')
}

/** Writes a file and its parents, one at a time in memory. */
export async function writePlanned(path: string, file: PlannedFile): Promise<StoredFile> {
  const content = contentOf(file)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, content)
  return { bytes: content.length, adler32: adler32ByZlib(content) }
}

/** All files below a directory, by their path there: what is really on disk, however it came. */
export async function readTree(directory: string): Promise<Map<string, StoredFile>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const tree = new Map<string, StoredFile>()
  for (const entry of entries) {
    if (entry.isDirectory()) continue
    const path = join(entry.parentPath, entry.name)
    const content = await readFile(path)
    tree.set(relative(directory, path), { bytes: content.length, adler32: adler32ByZlib(content) })
  }
  return tree
}
