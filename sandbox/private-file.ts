import { constants } from 'node:fs'
import { type FileHandle, link, open, rename, unlink } from 'node:fs/promises'
import { systemRandom } from '../shared/runtime/random.ts'

/**
 * Writes a file whole or not at all: readers see the old text or the new one. Nobody else may read it unless `mode`
 * says so.
 */
export async function writePrivateFile(path: string, text: string, mode = 0o600): Promise<void> {
  const draft = draftOf(path)
  await writeDraft(draft, text, mode)
  await rename(draft, path)
}

/** Like `writePrivateFile`, but the first writer wins: returns false, and changes nothing, when the file is there. */
export async function createPrivateFile(path: string, text: string): Promise<boolean> {
  const draft = draftOf(path)
  await writeDraft(draft, text, 0o600)
  try {
    await link(draft, path)
    return true
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false
    throw error
  } finally {
    await unlink(draft)
  }
}

/**
 * Beside the file, so that the rename stays on one file system; never the same twice, so that writers don't meet in
 * it.
 */
function draftOf(path: string): string {
  return `${path}.${systemRandom.uuid()}.draft`
}

async function writeDraft(draft: string, text: string, mode: number): Promise<void> {
  const { O_WRONLY, O_CREAT, O_TRUNC } = constants
  const handle: FileHandle = await open(draft, O_WRONLY | O_CREAT | O_TRUNC, mode)
  try {
    await handle.chmod(mode)
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

export function isMissing(error: unknown): boolean {
  return hasCode(error, 'ENOENT')
}

export function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}
