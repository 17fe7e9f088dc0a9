import { ApiError } from '../shared/contract/client.ts'
import type { ImportDirectory } from '../shared/contract/routes/import-parts.ts'
import type { ImportJob } from '../shared/contract/routes/worker.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { SharedSpace } from '../shared/storage/list-space.ts'
import { StorageError } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import { type AttemptFailure, failureOf, reportedError, TokenUnavailable, workerFault } from './failure.ts'
import { describe, type Found, leftOut, refused } from './found-file.ts'
import { Gathering } from './gathering.ts'
import { type Child, childrenOf, type ListedDirectory, listDirectory } from './listed-directory.ts'
import { answers, isOfFile, whatFailed } from './refusals.ts'
import { isSessionOver, untilAnswered, type WorkerApi } from './server.ts'

export interface ListOptions {
  readonly api: Pick<WorkerApi, 'reportImport'>
  readonly session: number
  readonly access: StorageAccess
  /** For the lists of all imports of the process. */
  readonly space: SharedSpace
  readonly clock: Clock
  readonly random: Random
  /** Another worker goes on. */
  readonly signal: AbortSignal
}

/** Files that are looked at at once: each may make the storage read it whole. */
const PARALLEL = 8
/** So many files without a checksum, and none with one: the storage tells none. */
const MOST_UNSUMMED = 20
/** At least, before a directory that could not be listed is tried once more. */
const AGAIN_MS = 2_000

/**
 * Lists what lies below a directory and hands it to the server, with size and checksum, in parts; the server keeps what is still to
 * be listed, and answers each part with what comes next. What the storage refuses of a single file or directory is left out, with its
 * words. What it does not tell now, or refuses altogether, is told to the server, which decides what becomes of the import.
 */
export async function runImport(job: ImportJob, place: Place, options: ListOptions): Promise<void> {
  const { signal } = options
  const run = new ImportRun(job, place, options)
  try {
    await run.listAll()
  } catch (error) {
    if (signal.aborted || isTaken(error)) return
    if (run.isRefused) run.drop()
    try {
      await run.handIn(failureIn(error, run))
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

/** `at`: what was looked at. Faults of ours are told as such, and their cause is in the log. */
function failureIn(error: unknown, { at, isRefused }: Pick<ImportRun, 'at' | 'isRefused'>): AttemptFailure {
  if (!(error instanceof WaybillError)) return workerFault()
  const failure = failureOf(error)
  // What the server has refused to take it refuses again.
  if (isRefused) return { ...failure, retryable: false }
  // The issuer or the client is another now: with the next turn comes a grant of theirs.
  const isOfOld = error instanceof TokenUnavailable && error.code === 'ISSUER_UNKNOWN'
  const message = at === '' ? failure.message : `${at}: ${failure.message}`
  return { ...failure, message, retryable: failure.retryable || isOfOld }
}

class ImportRun {
  readonly #job: ImportJob
  readonly #place: Place
  readonly #options: ListOptions
  #part = 1
  #gathering: Gathering
  /** What is to be listed, as far as the server has told. */
  #next: readonly ImportDirectory[]
  /** That could not be listed, and wait for the others. */
  readonly #postponed = new Set<number>()
  #postponedAt = 0
  /** A checksum was told, in this turn or before; and how many files in this one had none. */
  #tellsChecksums: boolean
  #unsummed = 0
  /** The last directory or file that was looked at, for the words of a failure. */
  at = ''
  /** The server does not take the part at hand. */
  isRefused = false

  constructor(job: ImportJob, place: Place, options: ListOptions) {
    this.#job = job
    this.#place = place
    this.#options = options
    this.#next = job.directories
    this.#tellsChecksums = job.summed
    this.#gathering = new Gathering(options.clock)
  }

  async listAll(): Promise<void> {
    while (this.#next.length > 0) {
      const fresh = this.#next.filter(({ directory }) => !this.#postponed.has(directory))
      const isSecond = fresh.length === 0
      if (isSecond) await this.#rest()
      for (const directory of isSecond ? this.#next : fresh) {
        await this.#tryOne(directory, isSecond)
        if (this.#gathering.isFull || this.#gathering.begun !== undefined) break
      }
      if (!this.#gathering.isEmpty) await this.handIn()
    }
  }

  async #rest(): Promise<void> {
    const { clock, signal } = this.#options
    await clock.sleep(Math.max(0, this.#postponedAt + AGAIN_MS - clock.monotonic()), signal)
  }

  /** The same part again until it is answered: the server takes it once. */
  async handIn(failure?: AttemptFailure): Promise<void> {
    const { api, session, clock, random, signal } = this.#options
    const { import: id, fence } = this.#job
    const error = failure === undefined ? {} : { error: reportedError(failure) }
    const body = { session, fence, part: this.#part, ...this.#gathering.contents, ...error }
    const call = () => api.reportImport({ params: { id }, body, signal })
    try {
      this.#next = (await untilAnswered({ clock, random, signal }, call)).directories
    } catch (error) {
      this.isRefused = error instanceof ApiError
      throw error
    }
    this.#part += 1
    this.#gathering = new Gathering(clock)
  }

  /** What the server does not take is not handed in again. */
  drop(): void {
    this.#gathering = new Gathering(this.#options.clock)
  }

  /**
   * What keeps one directory below the first must not keep the others: it comes after them, and what the storage still refuses
   * then, while it answers for the first, is left out.
   */
  async #tryOne(directory: ImportDirectory, isSecond: boolean): Promise<void> {
    const { path } = directory
    this.at = path
    let listed: ListedDirectory
    try {
      listed = await listDirectory(this.#place, path, this.#options)
    } catch (error) {
      if (path === '' || !(error instanceof StorageError)) throw error
      const what = whatFailed(error.failure)
      if (what !== 'gone' && !(await answers(this.#place, this.#options))) throw error
      if (what === 'gone' || what === 'refused' || (what === 'broken' && isSecond)) this.#leaveOut(directory, error)
      else if (isSecond) throw error
      else this.#postpone(directory)
      return
    }
    try {
      await this.#takeAll(directory, listed, isSecond)
    } catch (error) {
      if (path === '' || isSecond || !isOfFile(error) || !(await answers(this.#place, this.#options))) throw error
      this.#postpone(directory)
    } finally {
      listed.close()
    }
  }

  #postpone({ directory }: ImportDirectory): void {
    this.#postponed.add(directory)
    this.#postponedAt = this.#options.clock.monotonic()
  }

  #leaveOut({ directory, path }: ImportDirectory, { failure }: StorageError): void {
    const { code, message } = failure
    const isGone = whatFailed(failure) === 'gone'
    this.#gathering.add([
      isGone ? leftOut(path, 'SOURCE_MISSING', 'it was listed and is gone') : leftOut(path, code, message),
    ])
    this.#gathering.end(directory)
  }

  /** In the order of names, whatever that of the list: so one name tells how far it is. */
  async #takeAll(
    { directory, path, doneUntil }: ImportDirectory,
    listed: ListedDirectory,
    isSecond: boolean,
  ): Promise<void> {
    const children = childrenOf(path, listed, doneUntil)
    for (let at = 0; at < children.length; ) {
      if (this.#gathering.isFull) await this.handIn()
      const found: Found[] = []
      const some = children.slice(at, at + this.#gathering.room)
      try {
        await this.#lookAt(some, found, isSecond, at + some.length === children.length)
      } finally {
        const last = some[found.length - 1]
        at += found.length
        this.#gathering.add(found)
        if (last !== undefined) this.#gathering.begun = { directory, doneUntil: last.name }
      }
    }
    this.#gathering.end(directory)
  }

  /**
   * Adds to `found` what these are, in order, some at a time: all of them, or those before the first that could not be looked at,
   * which is thrown, or that had no more time. `isEnd`: no others come after them in this directory.
   */
  async #lookAt(children: readonly Child[], found: Found[], isSecond: boolean, isEnd: boolean): Promise<void> {
    const gathering = this.#gathering
    const looking = { ...this.#options, root: this.#place, isSecond }
    const seen: Found[] = []
    const failures: { readonly error: unknown; readonly at: number }[] = []
    let next = 0
    const lane = async (): Promise<void> => {
      for (let i = next++; i < children.length; i = next++) {
        // One is looked at in any case.
        if (failures.length > 0 || (i > 0 && gathering.isLate)) return
        try {
          seen[i] = await describe(this.#job, children[i] as Child, looking)
        } catch (error) {
          failures.push({ error, at: i })
          return
        }
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, lane))
    const upTo = children.findIndex((_, i) => seen[i] === undefined)
    const [first] = failures.sort((one, other) => one.at - other.at)
    found.push(...this.#demandChecksums(upTo < 0 ? seen : seen.slice(0, upTo), isEnd && upTo < 0))
    if (first === undefined) return
    this.at = children[first.at]?.path ?? this.at
    throw first.error
  }

  /**
   * A storage that tells none at all is refused with the first files, or at the end if there are so few: what is registered without
   * cannot be verified ever.
   */
  #demandChecksums(found: readonly Found[], isEnd: boolean): Found[] {
    this.#tellsChecksums ||= found.some(one => one.kind === 'file')
    const unsummed = found.flatMap(one => (one.kind === 'unsummed' ? one.file.path : []))
    const isLast = isEnd && !found.some(one => one.kind === 'directory') && this.#isLastDirectory
    const [first] = unsummed
    const { rse, checksum } = this.#job.storage
    const words = `${rse} tells no checksum (${checksum}) of it`
    if (first !== undefined && !this.#tellsChecksums && (isLast || this.#unsummed + unsummed.length > MOST_UNSUMMED)) {
      this.at = first
      throw refused(`${words}: set the storage's checksum, or import with --checksum none to register sizes alone`)
    }
    this.#unsummed += unsummed.length
    return found.map(one => (one.kind === 'unsummed' ? leftOut(one.file.path, 'CHECKSUM_UNAVAILABLE', words) : one))
  }

  get #isLastDirectory(): boolean {
    const { found, listed } = this.#gathering.directories
    return found === 0 && this.#next.length - listed === 1
  }
}
