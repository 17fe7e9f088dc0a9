import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { inParallel } from '../../cli/in-parallel.ts'
import { type LocalFile, sumsOf } from '../../cli/local-files.ts'

const LEAST = 1_000
const MOST = 200_000

/** `count` files of 1 kB to 200 kB with random bytes, the same ones whenever they are made. */
export async function makeFiles(directory: string, dataset: string, count: number): Promise<LocalFile[]> {
  await mkdir(directory, { recursive: true })
  const files = Array.from({ length: count }, (_, index) => {
    const name = `${dataset}-${String(index + 1).padStart(4, '0')}.dat`
    const seed = createHash('sha256').update(name).digest()
    return { name, seed, path: join(directory, name), bytes: LEAST + (seed.readUInt32BE(0) % (MOST - LEAST)) }
  })
  await inParallel(files, 8, async ({ path, bytes, seed }) => {
    const there = await stat(path).catch(() => undefined)
    if (there?.size === bytes) return
    const stream = createCipheriv('aes-128-ctr', seed.subarray(0, 16), seed.subarray(16, 32))
    await writeFile(path, stream.update(Buffer.alloc(bytes)))
  })
  return files.map(({ path, name, bytes }) => ({ path, name, bytes }))
}

/**
 * Looks on the disks below the storages, past the product: every file must lie in every one of `directories` once, with the
 * same adler32. Gives one sentence for each that does not.
 */
export async function compareOnDisk(files: readonly LocalFile[], directories: readonly string[]): Promise<string[]> {
  const wrong: string[] = []
  for (const directory of directories) {
    const found = await adler32ByName(directory)
    for (const file of files) {
      const { adler32 } = await sumsOf(file.path, file.bytes)
      const copies = found.get(file.name) ?? []
      if (copies.length !== 1) wrong.push(`${file.name} is ${copies.length} times below ${directory}`)
      else if (copies[0] !== adler32) wrong.push(`${file.name} below ${directory} has another adler32`)
    }
  }
  return wrong
}

async function adler32ByName(directory: string): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  for (const entry of entries.filter(candidate => candidate.isFile())) {
    const path = join(entry.parentPath, entry.name)
    const { adler32 } = await sumsOf(path, (await stat(path)).size)
    found.set(basename(path), [...(found.get(basename(path)) ?? []), adler32])
  }
  return found
}
