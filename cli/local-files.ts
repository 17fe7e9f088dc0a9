import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { checkName } from '../shared/domain/names.ts'
import { Meter } from '../shared/storage/meter.ts'
import { UsageError } from './command.ts'

/** A file on this machine, and the name it will have in its scope. */
export interface LocalFile {
  readonly path: string
  readonly name: string
  readonly bytes: number
}

export interface Sums {
  readonly adler32: string
  readonly md5: string
}

/**
 * The files to upload: each by its own name, those of a directory by their path below it. Throws `UsageError` for a name that
 * no DID can have, or one that is there twice: before anything is sent.
 */
export async function findLocalFiles(paths: readonly string[]): Promise<LocalFile[]> {
  const found: LocalFile[] = []
  for (const path of paths) {
    const status = await stat(path)
    if (status.isDirectory()) found.push(...(await filesBelow(path)))
    else found.push({ path, name: basename(path), bytes: status.size })
  }
  const byName = new Map<string, LocalFile>()
  for (const file of found) {
    const reason = checkName('did', file.name)
    if (reason !== undefined) throw new UsageError(`${file.path}: ${reason}`)
    const other = byName.get(file.name)
    if (other !== undefined) throw new UsageError(`${other.path} and ${file.path} would both be called ${file.name}`)
    byName.set(file.name, file)
  }
  return found
}

async function filesBelow(directory: string): Promise<LocalFile[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  return Promise.all(
    files.sort().map(async path => ({
      path,
      name: path.slice(join(directory, '/').length),
      bytes: (await stat(path)).size,
    })),
  )
}

/** Reads the file once. Rejects when it is not `bytes` long any more. */
export async function sumsOf(path: string, bytes: number): Promise<Sums> {
  const meter = new Meter(bytes, () => undefined)
  await pipeline(createReadStream(path), meter, nowhere())
  const { adler32 = '', md5 = '' } = meter.checksums()
  return { adler32, md5 }
}

function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() })
}
