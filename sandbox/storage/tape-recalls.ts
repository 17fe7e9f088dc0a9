import { setMaxListeners } from 'node:events'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Random } from '../../shared/runtime/random.ts'
import { Refusal } from './refusal.ts'
import type { Pin, TapeCopies } from './tape-copies.ts'
import { TapeDrives } from './tape-drives.ts'
import type { TapeSettings } from './tape-settings.ts'

/** A file of a stage request that is to come. */
export interface WantedFile {
  readonly path: readonly string[]
  /** How long it stays on disk when it has come, milliseconds; undefined: what was asked for is not understood. */
  readonly pinMs: number | undefined
}

export interface RecalledFile extends WantedFile {
  readonly cancelling: AbortController
  state: 'SUBMITTED' | 'STARTED' | 'COMPLETED' | 'FAILED' | 'CANCELLED'
  error?: string
  /** Milliseconds since the epoch. */
  startedAt?: number
  finishedAt?: number
}

export interface StageRequest {
  readonly id: string
  readonly createdAt: number
  /** By path. */
  readonly files: ReadonlyMap<string, RecalledFile>
}

/** Of all requests together that are remembered. */
const MOST_FILES = 200_000
const MOST_REQUESTS = 1_000

/** Stage requests, in memory: what they recall, and what has become of it. */
export class TapeRecalls {
  readonly #copies: TapeCopies
  readonly #settings: TapeSettings
  readonly #clock: Clock
  readonly #random: Random
  readonly #drives: TapeDrives
  readonly #requests = new Map<string, StageRequest>()
  /** Ends recalls that no request waits for. */
  readonly #stopping = new AbortController()

  constructor(copies: TapeCopies, settings: TapeSettings, clock: Clock, random: Random) {
    this.#copies = copies
    this.#settings = settings
    this.#clock = clock
    this.#random = random
    this.#drives = new TapeDrives(() => settings.drives)
    setMaxListeners(0, this.#stopping.signal) // one for each file that is opened
  }

  /** Throws 429 while too much is under way. */
  begin(wanted: readonly WantedFile[]): StageRequest {
    this.#makeRoom(wanted.length)
    const files = wanted.map((file): [string, RecalledFile] => [
      `/${file.path.join('/')}`,
      { ...file, cancelling: new AbortController(), state: 'SUBMITTED' },
    ])
    const request = { id: this.#random.uuid(), createdAt: this.#clock.now(), files: new Map(files) }
    this.#requests.set(request.id, request)
    void this.#recallAll(request)
    return request
  }

  find(id: string): StageRequest | undefined {
    return this.#requests.get(id)
  }

  /** What has come already stays, pinned, as in dCache. */
  cancel(files: Iterable<RecalledFile>): void {
    for (const file of files) {
      if (file.finishedAt !== undefined) continue
      this.#finish(file, 'CANCELLED')
      file.cancelling.abort()
    }
  }

  /** Cancels what is still to come. Pins stay. */
  forget(request: StageRequest): void {
    this.#requests.delete(request.id)
    this.cancel(request.files.values())
  }

  /** dCache: a file that is opened is recalled. Waits `openSeconds` for it; false when it has not come by then. */
  async fetch(path: readonly string[]): Promise<boolean> {
    const waited = new AbortController()
    const coming = this.#read(path, this.#stopping.signal).finally(() => waited.abort())
    await Promise.race([coming, this.#clock.sleep(this.#settings.openSeconds * 1000, waited.signal)])
    return this.#copies.isOnDisk(path)
  }

  stop(): void {
    this.#stopping.abort()
    for (const { files } of this.#requests.values()) for (const file of files.values()) file.cancelling.abort()
  }

  /** They come to the drives in the order of the request. */
  async #recallAll(request: StageRequest): Promise<void> {
    for (const file of request.files.values()) {
      await new Promise<void>(queued => {
        void this.#recall(request, file, queued)
          .catch(() => this.#finish(file, 'FAILED', 'the storage failed'))
          .finally(queued)
      })
    }
  }

  async #recall(request: StageRequest, file: RecalledFile, onQueued: () => void): Promise<void> {
    const { path, pinMs, cancelling } = file
    if (pinMs === undefined) return this.#finish(file, 'FAILED', 'the disk lifetime cannot be parsed to a duration')
    const onStart = () => {
      file.state = 'STARTED'
      file.startedAt = this.#clock.now()
    }
    await this.#read(path, cancelling.signal, { pin: { holder: request.id, ms: pinMs }, onQueued, onStart })
    const locality = await this.#copies.locality(path)
    if (cancelling.signal.aborted) return this.#copies.unpin(path, request.id)
    if (locality === undefined) return this.#finish(file, 'FAILED', `No such file or directory /${path.join('/')}`)
    if (locality === 'TAPE' || locality === 'LOST') {
      return this.#finish(file, 'FAILED', `the tape that holds /${path.join('/')} cannot be read`)
    }
    this.#finish(file, 'COMPLETED')
  }

  /** Brings a file from tape, if it can be read. Takes no drive when it is there already, also when its turn comes. */
  async #read(
    path: readonly string[],
    signal: AbortSignal,
    { pin, onQueued, onStart }: { pin?: Pin; onQueued?: () => void; onStart?: () => void } = {},
  ): Promise<void> {
    if (await this.#copies.hold(path, pin)) return
    const reading = this.#drives.use(signal, async () => {
      if ((await this.#copies.hold(path, pin)) || signal.aborted) return
      onStart?.()
      await this.#clock.sleep(this.#settings.secondsPerFile * 1000, signal)
      if (!signal.aborted && !this.#copies.isLost(path)) await this.#copies.bring(path, pin)
    })
    onQueued?.()
    await reading
  }

  /** Whatever comes first is final. */
  #finish(file: RecalledFile, state: RecalledFile['state'], error?: string): void {
    if (file.finishedAt !== undefined) return
    const now = this.#clock.now()
    file.state = state
    file.startedAt ??= now
    file.finishedAt = now
    if (error !== undefined) file.error = error
  }

  #makeRoom(files: number): void {
    const isDone = ({ files }: StageRequest) => [...files.values()].every(file => file.finishedAt !== undefined)
    let total = [...this.#requests.values()].reduce((sum, request) => sum + request.files.size, files)
    for (const request of this.#requests.values()) {
      if (this.#requests.size < MOST_REQUESTS && total <= MOST_FILES) return
      if (!isDone(request)) continue
      this.#requests.delete(request.id)
      total -= request.files.size
    }
    if (this.#requests.size >= MOST_REQUESTS || total > MOST_FILES) {
      throw new Refusal(429, 'too many files are being recalled')
    }
  }
}
