import { z } from 'zod'
import { adler32, bytes, id, md5, words } from '../fields.ts'

/** Names of each kind in one part of an import, at most. */
export const MOST_IN_PART = 1_000
/** Of a directory's path, bytes. */
const LONGEST_DIRECTORY = 1_000

export const importDirectory = z.object({
  directory: id,
  path: z.string().describe('below the imported directory, which is the empty one'),
  doneUntil: z
    .string()
    .optional()
    .describe('of one that was begun: names up to this, in the order of their UTF-16 units, are taken'),
})
export type ImportDirectory = z.output<typeof importDirectory>

/** Whether a directory of this path can be handed in. Others have no file that a DID could be called after. */
export function isListable(path: string): boolean {
  const bad = path.split('/').some(segment => segment === '' || segment === '.' || segment === '..')
  return !bad && !/[\p{Cc}\p{Cs}]/u.test(path) && new TextEncoder().encode(path).length <= LONGEST_DIRECTORY
}

/** Below the imported directory; any characters, since what cannot be taken over is told as it is. */
const foundPath = z.string().min(1).max(8000)

/** What one part of an import's list brings. */
export const importPart = {
  files: z
    .array(z.strictObject({ path: foundPath, bytes, adler32: adler32.optional(), md5: md5.optional() }))
    .max(MOST_IN_PART),
  directories: z
    .array(
      z
        .string()
        .max(LONGEST_DIRECTORY)
        .refine(isListable, '1,000 bytes at most, and no control characters, empty or dot segments'),
    )
    .max(MOST_IN_PART)
    .describe('found: they are to be listed'),
  leftOut: z
    .array(z.strictObject({ path: foundPath, code: z.string().regex(/^[A-Z][A-Z_]{2,60}$/), message: words(1000) }))
    .max(MOST_IN_PART)
    .describe('found, and not to be had'),
  listed: z.array(id).max(MOST_IN_PART).describe('directories that are done'),
  begun: z
    .strictObject({ directory: id, doneUntil: z.string().min(1).max(8000) })
    .optional()
    .describe('the one that is not done: all names up to this are in this part or were in others'),
}
