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
 * The files to upload: each by its own name, those of a directory by their path below it, links to files as what they lead
 * to. Throws `UsageError` for a name that no DID can have below its dataset's, for one that is there twice, and for what is no
 * file: before anything is sent.
 */
export async function findLocalFiles(paths: readonly string[]): Promise<LocalFile[]> {
  const found: LocalFile[] = []
  for (const path of paths) {
    const status = await stat(path)
    if (status.isDirectory()) found.push(...(await filesBelow(path)))
    else found.push(await fileAt(path, basename(path)))
  }
  const byName = new Map<string, LocalFile>()
  for (const file of found) {
    const reason = checkName('did', `dataset/${file.name}`)
    if (reason !== undefined) throw new UsageError(`${file.path}: ${reason}`)
    const other = byName.get(file.name)
    if (other !== undefined) throw new UsageError(`${other.path} and ${file.path} would both be called ${file.name}`)
    byName.set(file.name, file)
  }
  return found
}

async function filesBelow(directory: string): Promise<LocalFile[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const others = entries.filter(entry => !entry.isDirectory()).map(entry => join(entry.parentPath, entry.name))
  return Promise.all(others.sort().map(path => fileAt(path, path.slice(join(directory, '/').length))))
}

async function fileAt(path: string, name: string): Promise<LocalFile> {
  const status = await stat(path)
  if (!status.isFile()) throw new UsageError(`${path} is no file, nor a link to one: name a directory itself`)
  return { path, name, bytes: status.size }
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
