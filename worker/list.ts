import { ApiError } from '../shared/contract/client.ts'
import type { ImportDirectory } from '../shared/contract/routes/import-parts.ts'
import type { ImportJob } from '../shared/contract/routes/worker.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import { type ListedEntry, StorageError } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import { type AttemptFailure, failureOf, reportedError, workerFault } from './failure.ts'
import { type Child, describe, type Found, type FoundFile, type LeftOut, leftOut, refused } from './found-file.ts'
import { isSessionOver, untilAnswered, type WorkerApi } from './server.ts'

export interface ListOptions {
  readonly api: Pick<WorkerApi, 'reportImport'>
  readonly session: number
  readonly access: StorageAccess
  readonly clock: Clock
  readonly random: Random
  /** Another worker goes on. */
  readonly signal: AbortSignal
}

/** Names in one part, and how long one is gathered: what was not handed in is looked at again by whoever goes on. */
const BATCH = 500
const GATHER_MS = 10_000
/** Files that are looked at at once: each may make the storage read it whole. */
const PARALLEL = 8

/**
 * Lists what lies below a directory and hands it to the server, with size and checksum, in parts; the server keeps what is still to
 * be listed, and answers each part with what comes next. Memory is bounded by one directory's list. What the storage does not
 * tell now, or refuses, is told to the server, which decides what becomes of the import.
 */
export async function runImport(job: ImportJob, place: Place, options: ListOptions): Promise<void> {
  const { signal } = options
  const run = new ImportRun(job, place, options)
  try {
    await run.listAll()
  } catch (error) {
    if (signal.aborted || isTaken(error)) return
    if (error instanceof ApiError) run.drop()
    try {
      await run.handIn(failureIn(error, run.at))
    } catch (again) {
      if (!signal.aborted && !isTaken(again)) throw again
    }
    if (!(error instanceof WaybillError)) throw error
  }
}

/** Another session has it, or it is over: the server knows what it needs. */
function isTaken(error: unknown): boolean {
  const lost = error instanceof ApiError && ['IMPORT_LOST', 'IMPORT_PART_MISSING'].includes(error.code)
  return lost || isSessionOver(error)
}

/** `path`: what was looked at. Faults of ours are told as such, and their cause is in the log. */
function failureIn(error: unknown, path: string): AttemptFailure {
  if (!(error instanceof WaybillError)) return workerFault()
  const failure = failureOf(error)
  // What the server has refused it refuses again.
  if (error instanceof ApiError) return { ...failure, retryable: false }
  return path === '' ? failure : { ...failure, message: `${path}: ${failure.message}` }
}

class ImportRun {
  readonly #job: ImportJob
  readonly #place: Place
  readonly #options: ListOptions
  /** Of the imported directory, decoded. */
  readonly #root: string
  #part = 1
  #gathering: Gathering
  #tellsChecksums = false
  /** The last directory or file that was looked at, for the words of a failure. */
  at = ''

  constructor(job: ImportJob, place: Place, options: ListOptions) {
    this.#job = job
    this.#place = place
    this.#options = options
    this.#root = decodeURIComponent(new URL(place.url).pathname).replace(/\/+$/, '')
    this.#gathering = new Gathering(options.clock)
  }

  async listAll(): Promise<void> {
    for (let next: readonly ImportDirectory[] = this.#job.directories; next.length > 0; ) {
      for (const directory of next) {
        await this.#listOne(directory)
        if (this.#gathering.isFull) break
      }
      next = await this.handIn()
    }
  }

  /** The same part again until it is answered: the server takes it once. */
  async handIn(failure?: AttemptFailure): Promise<ImportDirectory[]> {
    const { api, session, clock, random, signal } = this.#options
    const { import: id, fence } = this.#job
    const error = failure === undefined ? {} : { error: reportedError(failure) }
    const body = { session, fence, part: this.#part, ...this.#gathering.contents, ...error }
    const call = () => api.reportImport({ params: { id }, body, signal })
    const { directories } = await untilAnswered({ clock, random, signal }, call)
    this.#part += 1
    this.#gathering = new Gathering(clock)
    return directories
  }

  /** What the server does not take is not handed in again. */
  drop(): void {
    this.#gathering = new Gathering(this.#options.clock)
  }

  /** In the order of names, whatever that of the list: so one name tells how far it is. */
  async #listOne({ directory, path, doneUntil }: ImportDirectory): Promise<void> {
    this.at = path
    const children = await this.#childrenOf(path)
    const left = children.filter(({ name }) => doneUntil === undefined || name > doneUntil)
    for (let at = 0; at < left.length; ) {
      if (this.#gathering.isFull) await this.handIn()
      const found: Found[] = []
      try {
        await this.#lookAt(left.slice(at, at + this.#gathering.room), found)
      } finally {
        at += found.length
        this.#gathering.add(found)
        const last = left[at - 1]
        if (found.length > 0 && last !== undefined) this.#gathering.begun = { directory, doneUntil: last.name }
      }
    }
    this.#gathering.end(directory)
  }

  async #childrenOf(path: string): Promise<Child[]> {
    const { access, signal } = this.#options
    const encoded = path === '' ? '' : `/${path.split('/').map(encodeURIComponent).join('/')}`
    const place = { ...this.#place, url: `${this.#place.url.replace(/\/+$/, '')}${encoded}` }
    const below = path === '' ? '' : `${path}/`
    try {
      const entries = await access.use(place, token =>
        place.storage.list(place.url, token, { scope: 'SOURCE', signal }),
      )
      const children = entries.map(entry => childOf(`${this.#root}/${below}`.replace(/\/$/, ''), entry))
      const inOrder = children.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0))
      return inOrder
        .filter(({ name }, i) => name !== inOrder[i - 1]?.name)
        .map(({ name, entry }) => ({ name, entry, path: below + name, place }))
    } catch (error) {
      const isGone = error instanceof StorageError && ['SOURCE_MISSING', 'NOT_FOUND'].includes(error.failure.code)
      if (path === '' || !isGone) throw error
      this.#gathering.add([leftOut(path, 'SOURCE_MISSING', 'it was listed and is gone')])
      return []
    }
  }

  /**
   * Adds to `found` what these are, in order, some at a time: all of them, or those before the first that could not be looked at,
   * which is thrown, or that had no more time.
   */
  async #lookAt(children: readonly Child[], found: Found[]): Promise<void> {
    const gathering = this.#gathering
    const seen: Found[] = []
    const failures: { readonly error: unknown; readonly at: number }[] = []
    let next = 0
    const lane = async (): Promise<void> => {
      for (let i = next++; i < children.length; i = next++) {
        // One is looked at in any case.
        if (failures.length > 0 || (i > 0 && gathering.isLate)) return
        try {
          seen[i] = await describe(this.#job, children[i] as Child, this.#options)
        } catch (error) {
          failures.push({ error, at: i })
          return
        }
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, lane))
    const upTo = children.findIndex((_, i) => seen[i] === undefined)
    found.push(...this.#demandChecksums(seen.slice(0, upTo < 0 ? children.length : upTo)))
    const [first] = failures.sort((one, other) => one.at - other.at)
    if (first === undefined) return
    this.at = children[first.at]?.path ?? this.at
    throw first.error
  }

  /** A storage that tells none at all is refused with the first files: what is registered without cannot be verified ever. */
  #demandChecksums(found: readonly Found[]): Found[] {
    this.#tellsChecksums ||= found.some(one => one.kind === 'file')
    return found.map(one => {
      if (one.kind !== 'unsummed') return one
      const { path } = one.file
      const { rse, checksum } = this.#job.storage
      const words = `${rse} tells no checksum (${checksum}) of it`
      if (this.#tellsChecksums) return leftOut(path, 'CHECKSUM_UNAVAILABLE', words)
      this.at = path
      throw refused(`${words}: set the storage's checksum, or import with --checksum none to register sizes alone`)
    })
  }
}

/** What the next part will bring. */
class Gathering {
  readonly #clock: Clock
  readonly #since: number
  readonly #files: FoundFile[] = []
  readonly #directories: string[] = []
  readonly #leftOut: LeftOut[] = []
  readonly #listed: number[] = []
  /** How far the directory is that is not done. */
  begun: { directory: number; doneUntil: string } | undefined

  constructor(clock: Clock) {
    this.#clock = clock
    this.#since = clock.monotonic()
  }

  get room(): number {
    return BATCH - this.#files.length - this.#directories.length - this.#leftOut.length
  }

  get isLate(): boolean {
    return this.#clock.monotonic() - this.#since >= GATHER_MS
  }

  get isFull(): boolean {
    return this.room <= 0 || (this.isLate && (this.room < BATCH || this.#listed.length > 0))
  }

  get contents() {
    const { begun } = this
    const lists = {
      files: this.#files,
      directories: this.#directories,
      leftOut: this.#leftOut,
      listed: this.#listed,
    }
    return { ...lists, ...(begun === undefined ? {} : { begun }) }
  }

  add(found: readonly Found[]): void {
    for (const one of found) {
      if (one.kind === 'directory') this.#directories.push(one.path)
      else if (one.kind === 'left-out') this.#leftOut.push(one.leftOut)
      else this.#files.push(one.file)
    }
  }

  end(directory: number): void {
    this.begun = undefined
    this.#listed.push(directory)
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
