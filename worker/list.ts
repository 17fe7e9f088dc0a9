import { isDeepStrictEqual } from 'node:util'
import type { z } from 'zod'
import { ApiError } from '../shared/contract/client.ts'
import type { ImportJob } from '../shared/contract/routes/worker.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { oneLine } from '../shared/domain/one-line.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { ListedEntry } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import { failureOf } from './failure.ts'
import { isSessionOver, untilAnswered, type WorkerApi } from './server.ts'

export interface ListOptions {
  readonly api: Pick<WorkerApi, 'reportImport'>
  readonly session: number
  readonly access: StorageAccess
  readonly clock: Clock
  readonly random: Random
  /** Another worker begins anew. */
  readonly signal: AbortSignal
}

type FoundFile = z.input<Routes['reportImport']['body']>['files'][number]

const BATCH = 500
/** HEADs at once: each may make the storage read a whole file. */
const PARALLEL = 8
/** Deeper trees than this are a loop of links, or no data. */
const MAX_DEPTH = 64
const MAX_PATH = 1000
/** At a file, beside the first. */
const MOST_LOOKS = 5

/**
 * Lists what lies below a directory and hands it to the server, with size and checksum, in batches; memory is bounded by one
 * batch and the directories still to be listed. An error ends the import, in words for whoever asked for it.
 */
export async function runImport(job: ImportJob, place: Place, options: ListOptions): Promise<void> {
  const { signal } = options
  let part = 1
  const report = async (found: { files: FoundFile[]; done: boolean; error?: string }): Promise<void> => {
    await handIn(job, part, found, options)
    part += 1
  }
  try {
    let batch: FoundFile[] = []
    for await (const files of findFiles(job, place, options)) {
      batch.push(...files)
      while (batch.length >= BATCH) {
        await report({ files: batch.slice(0, BATCH), done: false })
        batch = batch.slice(BATCH)
      }
    }
    await report({ files: batch, done: true })
  } catch (error) {
    // Another session has it, or it is over: the server knows what it needs.
    if (signal.aborted || isSessionOver(error) || (error instanceof ApiError && error.code === 'IMPORT_LOST')) return
    await report({ files: [], done: true, error: inWords(error) })
  }
}

/** The same part again until it is answered: the server takes it once. */
function handIn(
  job: ImportJob,
  part: number,
  found: { files: FoundFile[]; done: boolean; error?: string },
  { api, session, clock, random, signal }: ListOptions,
): Promise<unknown> {
  const body = { session, fence: job.fence, part, ...found }
  return untilAnswered({ clock, random, signal }, () => api.reportImport({ params: { id: job.import }, body, signal }))
}

/** Directories depth first, the files of each some at a time. */
async function* findFiles(job: ImportJob, place: Place, options: ListOptions): AsyncGenerator<FoundFile[]> {
  const root = decodeURIComponent(new URL(place.url).pathname).replace(/\/+$/, '')
  const waiting = [{ url: place.url.replace(/\/+$/, ''), below: '' }]
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { url, below } = next
    const at = { ...place, url }
    const entries = await options.access.use(at, token =>
      place.storage.list(url, token, { scope: 'SOURCE', signal: options.signal }),
    )
    const children = entries.map(entry => childOf(`${root}${below}`, entry))
    for (const { name, entry } of children.filter(child => child.entry.directory)) {
      const path = `${below}/${name}`
      if (path.split('/').length > MAX_DEPTH) throw refused(`${path} is more than ${MAX_DEPTH} directories deep`)
      if (entry.directory) waiting.push({ url: `${url}/${encodeURIComponent(name)}`, below: path })
    }
    const files = children.filter(child => !child.entry.directory)
    for (let start = 0; start < files.length; start += PARALLEL) {
      const some = files.slice(start, start + PARALLEL)
      yield await Promise.all(some.map(child => describe(job, at, `${below}/${child.name}`, child, options)))
    }
  }
}

/**
 * The name of an entry directly in `directory`. A storage is not trusted: what lies elsewhere, or would lead there, ends the
 * import.
 */
export function childOf(directory: string, entry: ListedEntry): { name: string; entry: ListedEntry } {
  const name = entry.path.startsWith(`${directory}/`) ? entry.path.slice(directory.length + 1) : ''
  if (name === '' || name === '.' || name === '..' || name.includes('/')) {
    throw refused(`the storage lists ${JSON.stringify(entry.path.slice(0, 200))}, which is not in ${directory}`)
  }
  return { name, entry }
}

/**
 * Asked until two answers agree: a checksum that is wrong here is wrong for good, and XRootD before 6.0.0 may tell another
 * file's when it computes one (docs/operations.md, XRootD 5).
 */
async function describe(
  job: ImportJob,
  place: Place,
  below: string,
  { name, entry }: { name: string; entry: ListedEntry },
  { access, signal }: ListOptions,
): Promise<FoundFile> {
  const path = below.slice(1)
  if (path.length > MAX_PATH) throw refused(`${path.slice(0, 200)}... is longer than ${MAX_PATH} characters`)
  const url = `${place.url}/${encodeURIComponent(name)}`
  const wantDigest = job.storage.checksum
  const look = () =>
    access.use(place, token =>
      place.storage.head(url, token, {
        wantDigest,
        scope: 'SOURCE',
        signal,
        ...(entry.size === undefined ? {} : { expectedSize: entry.size }),
      }),
    )
  let found = await look()
  for (let looks = 1; ; looks += 1) {
    const before = found
    found = await look()
    if (!found.exists) throw refused(`${path} was listed and is gone: import again when nobody writes there`)
    const asListed = entry.size === undefined || found.size === undefined || entry.size === found.size
    if (asListed && isDeepStrictEqual(before, found)) break
    if (looks === MOST_LOOKS)
      throw refused(`the storage tells something else of ${path} each time: import again when nobody writes there`)
  }
  const size = found.size ?? entry.size
  if (size === undefined) throw refused(`the storage tells no size for ${path}`)
  return { path, bytes: size, ...found.checksums }
}

function refused(message: string): WaybillError {
  return new WaybillError('IMPORT_REFUSED', message)
}

function inWords(error: unknown): string {
  if (error instanceof WaybillError && error.code === 'IMPORT_REFUSED') return oneLine(error.message, 1000)
  const { code, message } = failureOf(error)
  return oneLine(`${code}: ${message}`, 1000)
}
