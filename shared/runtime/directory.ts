import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { WaybillError } from '../domain/errors.ts'

/**
 * Makes a directory and what is missing above it; one that is there is fine. Throws DIRECTORY_IMPOSSIBLE. Not by mkdir's own
 * `recursive`: where a file system says ENOENT below a directory that is there, as `/proc` does, it tries for ever (Node 20).
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await makeLevels(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const why = code === 'EEXIST' || code === 'ENOTDIR' ? 'a file is in the way' : code
    const message = `the directory ${path} cannot be made (${why}): check path and rights, or take another one`
    throw new WaybillError('DIRECTORY_IMPOSSIBLE', message, { cause: error })
  }
}

// From above downwards: whoever makes the same levels at the same moment is not in the way at any of them.
async function makeLevels(path: string): Promise<void> {
  if (await isDirectory(path)) return
  const above = dirname(path)
  if (above !== path) await makeLevels(above)
  try {
    await mkdir(path)
  } catch (error) {
    if (!(await isDirectory(path))) throw error
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}
