import { isDeepStrictEqual } from 'node:util'
import type { Client } from '../shared/contract/client.ts'
import { isListable } from '../shared/contract/routes/import-parts.ts'
import type { ImportJob } from '../shared/contract/routes/worker.ts'
import { checkName } from '../shared/domain/names.ts'
import { oneLine } from '../shared/domain/one-line.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import { type FileStatus, type ListedEntry, StorageError } from '../shared/storage/types.ts'
import { isUnseen, type Place, type StorageAccess } from './access.ts'

type Reported = Parameters<Client['reportImport']>[0]['body']
export type FoundFile = Reported['files'][number]
export type LeftOut = Reported['leftOut'][number]

/** What a name in a directory turned out to be; `unsummed`: the storage tells no checksum of it. */
export type Found =
  | { readonly kind: 'file' | 'unsummed'; readonly file: FoundFile }
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'left-out'; readonly leftOut: LeftOut }

export interface Child {
  readonly name: string
  readonly entry: ListedEntry
  /** Below the imported directory. */
  readonly path: string
  /** The directory it is in. */
  readonly place: Place
}

/** Deeper trees than this are a loop of links, or no data. */
const MAX_DEPTH = 64
/** At a file, beside the first. */
const MOST_LOOKS = 5
/** Of a path that is told, UTF-16 units. */
const LONGEST_PATH = 8000

/** Looks at one name, as far as its kind asks for it. Throws what ends the import, or has it wait. */
export async function describe(
  job: Pick<ImportJob, 'dataset' | 'checksum' | 'storage'>,
  child: Child,
  looking: { readonly access: StorageAccess; readonly signal: AbortSignal },
): Promise<Found> {
  const { path, entry } = child
  if (entry.directory) {
    if (path.split('/').length > MAX_DEPTH) throw refused(`${path} is more than ${MAX_DEPTH} directories deep`)
    if (isListable(path)) return { kind: 'directory', path }
    return leftOut(path, 'NAME_INVALID', 'no DID can have a name in this directory')
  }
  const reason = checkName('did', `${job.dataset}/${path}`)
  if (reason !== undefined) return leftOut(path, 'NAME_INVALID', reason)
  if (job.checksum === 'none' && entry.size !== undefined) return { kind: 'file', file: { path, bytes: entry.size } }
  try {
    return await lookAt(job, child, looking)
  } catch (error) {
    if (!isOfFile(error)) throw error
    return lookAgain(job, child, looking)
  }
}

/** Whether the storage has answered, and its answer may be about this file alone. */
function isOfFile(error: unknown): error is StorageError {
  if (!(error instanceof StorageError)) return false
  const { httpStatus, code } = error.failure
  return httpStatus !== undefined && code !== 'TOKEN_REFUSED' && !isUnseen(error.failure)
}

/** A file that fails twice, while the storage answers for its directory, is left out: the others are not to wait for it. */
async function lookAgain(...[job, child, looking]: Parameters<typeof describe>): Promise<Found> {
  try {
    return await lookAt(job, child, looking)
  } catch (error) {
    if (!isOfFile(error) || !(await answers(child.place, looking))) throw error
    const { code, message } = error.failure
    return leftOut(child.path, code, message)
  }
}

/** XRootD says 409 to a HEAD of a directory. */
async function answers(place: Place, { access, signal }: Parameters<typeof describe>[2]): Promise<boolean> {
  try {
    await access.use(place, token => place.storage.head(place.url, token, { scope: 'SOURCE', signal }))
    return true
  } catch (error) {
    if (!isOfFile(error)) throw error
    const { httpStatus = 500 } = error.failure
    return httpStatus < 500 && httpStatus !== 403
  }
}

/**
 * Asked until two answers agree: a checksum that is wrong here is wrong for good, and XRootD before 6.0.0 may tell another
 * file's when it computes one (docs/operations.md, XRootD 5).
 */
async function lookAt(...[job, child, { access, signal }]: Parameters<typeof describe>): Promise<Found> {
  const { name, entry, path, place } = child
  const url = `${place.url}/${encodeURIComponent(name)}`
  const options = {
    scope: 'SOURCE',
    signal,
    ...(job.checksum === 'none' ? {} : { wantDigest: job.storage.checksum }),
    ...(entry.size === undefined ? {} : { expectedSize: entry.size }),
  } as const
  const look = (): Promise<FileStatus> => access.use(place, token => place.storage.head(url, token, options))
  let found = await look()
  for (let looks = 1; ; looks += 1) {
    const before = found
    found = await look()
    if (!found.exists) return leftOut(path, 'SOURCE_MISSING', 'it was listed and is gone')
    const asListed = entry.size === undefined || found.size === undefined || entry.size === found.size
    if (asListed && isDeepStrictEqual(before, found)) break
    if (looks === MOST_LOOKS) {
      return leftOut(path, 'FILE_CHANGING', 'the storage tells something else of it each time: somebody writes there')
    }
  }
  const size = found.size ?? entry.size
  if (size === undefined) return leftOut(path, 'SIZE_UNAVAILABLE', 'the storage tells no size of it')
  const isSummed = job.checksum === 'none' || Object.keys(found.checksums).length > 0
  return { kind: isSummed ? 'file' : 'unsummed', file: { path, bytes: size, ...found.checksums } }
}

export function leftOut(path: string, code: string, message: string): Found & { kind: 'left-out' } {
  return { kind: 'left-out', leftOut: { path: path.slice(0, LONGEST_PATH), code, message: oneLine(message, 1000) } }
}

/** What ends an import: somebody has to mend it. */
export function refused(message: string): StorageError {
  return new StorageError(transferFailure('REQUEST_REFUSED', 'SOURCE', 'PREPARATION', oneLine(message, 1000)))
}
