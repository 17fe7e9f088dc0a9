import { isDeepStrictEqual } from 'node:util'
import type { Client } from '../shared/contract/client.ts'
import { isListable } from '../shared/contract/routes/import-parts.ts'
import type { ImportJob } from '../shared/contract/routes/worker.ts'
import { checkName } from '../shared/domain/names.ts'
import { oneLine } from '../shared/domain/one-line.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import { type FileStatus, StorageError } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import type { Child } from './listed-directory.ts'
import { answers, isForbidden, isOfFile } from './refusals.ts'

type Reported = Parameters<Client['reportImport']>[0]['body']
export type FoundFile = Reported['files'][number]
export type LeftOut = Reported['leftOut'][number]

/** What a name in a directory turned out to be; `unsummed`: the storage tells no checksum of it. */
export type Found =
  | { readonly kind: 'file' | 'unsummed'; readonly file: FoundFile }
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'left-out'; readonly leftOut: LeftOut }

export interface Looking {
  readonly access: StorageAccess
  /** The imported directory. */
  readonly root: Place
  /** The directory was put back once because of what a file of it was answered. */
  readonly isSecond: boolean
  readonly signal: AbortSignal
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
  looking: Looking,
): Promise<Found> {
  const { path, entry } = child
  if (entry.refused !== undefined) return leftOut(path, entry.refused.code, entry.refused.message)
  if (child.name.includes('\ufffd')) {
    const several = child.alike > 1 ? `; ${child.alike} names look like this` : ''
    return leftOut(path, 'NAME_INVALID', `its name is not UTF-8: nobody can ask for it${several}`)
  }
  if (entry.directory) {
    if (path.split('/').length > MAX_DEPTH) {
      return leftOut(path, 'TOO_DEEP', `it is more than ${MAX_DEPTH} directories deep: a loop of links?`)
    }
    if (isListable(path)) return { kind: 'directory', path }
    return leftOut(path, 'NAME_INVALID', 'no DID can have a name in this directory')
  }
  const reason = checkName('did', `${job.dataset}/${path}`)
  if (reason !== undefined) return leftOut(path, 'NAME_INVALID', reason)
  if (job.checksum === 'none' && entry.size !== undefined) return { kind: 'file', file: { path, bytes: entry.size } }
  try {
    return await lookAt(job, child, looking)
  } catch (error) {
    if (isForbidden(error)) return forbidden(child, error, looking)
    if (!isOfFile(error)) throw error
    return lookAgain(job, child, looking)
  }
}

/** A 401 is the file's own where the token is believed for the imported directory. */
async function forbidden({ path }: Child, error: StorageError, looking: Looking): Promise<Found> {
  if (!(await answers(looking.root, looking))) throw error
  return leftOut(path, error.failure.code, error.failure.message)
}

/**
 * A file that fails twice, while the storage answers for its directory, is left out: the others are not to wait for it. Later on, or
 * where it is not retried, the imported directory's answer is enough.
 */
async function lookAgain(...[job, child, looking]: Parameters<typeof describe>): Promise<Found> {
  try {
    return await lookAt(job, child, looking)
  } catch (error) {
    if (!isOfFile(error)) throw error
    const witness = looking.isSecond || !error.failure.retryable ? looking.root : child.place
    if (!(await answers(witness, looking))) throw error
    const { code, message } = error.failure
    return leftOut(child.path, code, message)
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
