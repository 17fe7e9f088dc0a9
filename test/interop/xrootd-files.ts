import { chown, mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Xrootd } from './xrootd.ts'

/** Puts a file into a real XRootD behind its back, as its user. */
export async function place({ dataDirectory }: Xrootd, name: string, content: Buffer | string): Promise<void> {
  const path = join(dataDirectory, name)
  const { uid, gid } = await stat(dataDirectory)
  await mkdir(dirname(path), { recursive: true })
  for (let at = dirname(path); at !== dataDirectory; at = dirname(at)) await chown(at, uid, gid)
  await writeFile(path, content)
  await chown(path, uid, gid)
}

/** What lies there on disk; undefined: nothing. */
export function lies({ dataDirectory }: Xrootd, name: string): Promise<Buffer | undefined> {
  return readFile(join(dataDirectory, name)).catch(() => undefined)
}
