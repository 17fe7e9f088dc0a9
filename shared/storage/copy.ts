import type { Readable } from 'node:stream'
import type { Secret } from '../domain/secret.ts'
import type { TransferFailure } from '../domain/transfer-error.ts'
import { Deadlines, type DeadlineTimer } from '../http/deadlines.ts'
import { HttpFailure } from '../http/failure.ts'
import { type Attempted, classifyLastLine, transferFailure } from './classify.ts'
import { type MarkerEvent, MarkerParser } from './perf-markers.ts'
import { answeredFailure, bearer, failureOf, type StorageDeps, send } from './send.ts'
import type { CopyOutcome, CopyRequest, Watchdogs } from './types.ts'
import { DEFAULT_WATCHDOGS, totalLimit } from './watchdogs.ts'
import { storageWords } from './words.ts'

/** What a gateway says whose own server may still be copying. */
const GATEWAY = new Set([502, 504])
/** What storages say that have opened the destination (facts/http-tpc.md section 2). A portal's page is a 200. */
const TAKEN = new Set([201, 202])

/** One third-party copy, watched to its end. Never throws for what a storage does: see `CopyOutcome`. */
export async function copy(deps: StorageDeps, request: CopyRequest): Promise<CopyOutcome> {
  const attempted = { verb: 'COPY', mode: request.mode } as const
  const tokens = [request.activeToken, request.passiveToken]
  const watchdogs = { ...DEFAULT_WATCHDOGS, ...request.watchdogs }
  const total = totalLimit(watchdogs, request.size)
  if (request.signal?.aborted) return { kind: 'failed', error: cancelled('PREPARATION') }
  try {
    const response = await send(deps, deps.copyClient, {
      method: 'COPY',
      url: request.mode === 'pull' ? request.destination : request.source,
      token: request.activeToken,
      headers: copyHeaders(request),
      signal: request.signal,
      timeouts: { connect: watchdogs.connect, headers: watchdogs.headers },
    })
    if (response.status < 200 || response.status > 299) {
      const error = await answeredFailure(attempted, response, tokens)
      return { kind: GATEWAY.has(response.status) ? 'unknown' : 'failed', error }
    }
    if (TAKEN.has(response.status)) request.onTaken?.()
    return await new CopyWatch(deps.timer, request, watchdogs, total).follow(response.body)
  } catch (error) {
    const failure = failureOf(attempted, error)
    // What was sent and not answered may be under way; so may a COPY that was answered with something else than HTTP.
    return { kind: error instanceof HttpFailure && !error.neverSent ? 'unknown' : 'failed', error: failure }
  }
}

/** facts/http-tpc.md section 1. */
function copyHeaders(request: CopyRequest): Record<string, string> {
  const { mode, source, destination, passiveToken, overwrite, clientInfo } = request
  return {
    ...(mode === 'pull' ? { Source: source } : { Destination: destination }),
    Overwrite: overwrite ? 'T' : 'F',
    // dCache assumes delegation without it.
    Credential: 'none',
    // dCache's default is true, and fails where the source has no checksum; the worker compares anyway.
    RequireChecksumVerification: 'false',
    ...(passiveToken === undefined ? {} : { TransferHeaderAuthorization: bearer(passiveToken) }),
    ...(clientInfo === undefined ? {} : { ClientInfo: clientInfo }),
  }
}

function cancelled(phase: 'PREPARATION' | 'TRANSFER'): TransferFailure {
  return transferFailure('CANCELLED', 'GENERAL', phase, 'the copy was cancelled')
}

type Watchdog = 'noMarker' | 'noProgress' | 'total' | 'close'
type Ending = { readonly last: MarkerEvent & { kind: 'end' } } | { readonly unfinished: TransferFailure }

/** How long a storage may take to end the answer after its last line. XRootD can crash on a client that leaves then. */
const CLOSE_MS = 5_000

/** Follows the markers of one COPY until its last line, its end, or a watchdog. */
class CopyWatch {
  readonly #request: CopyRequest
  readonly #watchdogs: Watchdogs
  readonly #tokens: readonly (Secret | undefined)[]
  readonly #parser = new MarkerParser()
  readonly #deadlines: Deadlines<Watchdog>
  readonly #total: number
  #bytes: number | undefined
  #last: (MarkerEvent & { kind: 'end' }) | undefined
  /** Without a reason: the answer is over. */
  #finish: (why?: TransferFailure) => void = () => undefined

  constructor(timer: DeadlineTimer, request: CopyRequest, watchdogs: Watchdogs, total: number) {
    this.#request = request
    this.#watchdogs = watchdogs
    this.#tokens = [request.activeToken, request.passiveToken]
    this.#total = total
    this.#deadlines = new Deadlines(timer, name => this.#finish(this.#expired(name)))
  }

  async follow(body: Readable): Promise<CopyOutcome> {
    const ending = await this.#read(body)
    if ('unfinished' in ending) return { kind: 'unknown', error: ending.unfinished }
    if (ending.last.success) return { kind: 'done', bytes: this.#bytes, checksums: {} }
    return {
      kind: 'failed',
      error: classifyLastLine(this.#request.mode, storageWords(ending.last.line, this.#tokens)),
    }
  }

  #read(body: Readable): Promise<Ending> {
    const { signal } = this.#request
    return new Promise<Ending>(resolve => {
      const onAbort = () => this.#finish(cancelled('TRANSFER'))
      this.#finish = why => {
        this.#deadlines.close()
        signal?.removeEventListener('abort', onAbort)
        this.#take(this.#parser.end())
        body.destroy()
        resolve(this.#last === undefined ? { unfinished: this.#unfinished(why) } : { last: this.#last })
      }
      this.#deadlines.set('total', this.#total)
      this.#deadlines.set('noMarker', this.#watchdogs.noMarker)
      this.#deadlines.set('noProgress', this.#watchdogs.noProgress)
      body.on('data', (chunk: Buffer) => {
        this.#take(this.#parser.push(chunk))
      })
      body.once('end', () => this.#finish())
      body.once('error', error => this.#finish(failureOf(this.#attempted(), error, 'TRANSFER')))
      if (signal?.aborted) onAbort()
      else signal?.addEventListener('abort', onAbort, { once: true })
    })
  }

  #take(events: readonly MarkerEvent[]): void {
    for (const event of events) {
      if (event.kind === 'end') {
        this.#last = event
        this.#deadlines.clear('noMarker')
        this.#deadlines.clear('noProgress')
        this.#deadlines.set('close', CLOSE_MS)
        return
      }
      this.#deadlines.set('noMarker', this.#watchdogs.noMarker)
      // All of it has come: what the storage does now (it sums, it closes the file) moves no byte.
      if (event.bytes >= (this.#request.size ?? Number.POSITIVE_INFINITY)) this.#deadlines.clear('noProgress')
      else if (event.bytes > (this.#bytes ?? 0)) this.#deadlines.set('noProgress', this.#watchdogs.noProgress)
      this.#bytes = Math.max(event.bytes, this.#bytes ?? 0)
      this.#request.onProgress?.(this.#bytes)
    }
  }

  #attempted(): Attempted {
    return { verb: 'COPY', mode: this.#request.mode }
  }

  #expired(name: Watchdog): TransferFailure {
    const seconds = Math.round(
      (name === 'total' ? this.#total : name === 'close' ? CLOSE_MS : this.#watchdogs[name]) / 1000,
    )
    if (name === 'noMarker') return this.#timeout('TIMEOUT_NO_MARKER', `no performance marker for ${seconds} s`)
    if (name === 'noProgress') return this.#timeout('TIMEOUT_NO_PROGRESS', `no byte moved for ${seconds} s`)
    return this.#timeout('TIMEOUT_TOTAL', `not done after ${seconds} s`)
  }

  #timeout(code: 'TIMEOUT_NO_MARKER' | 'TIMEOUT_NO_PROGRESS' | 'TIMEOUT_TOTAL', words: string): TransferFailure {
    return transferFailure(code, 'TRANSFER', 'TRANSFER', `${words}; ${this.#bytes ?? 0} bytes were reported`)
  }

  /** Why there is no outcome, with whatever the storage said. */
  #unfinished(why?: TransferFailure): TransferFailure {
    const said = storageWords(this.#parser.words, this.#tokens)
    if (why === undefined && this.#bytes === undefined && said !== '') {
      const message = storageWords(`COPY answered neither markers nor an outcome: ${said}`)
      return transferFailure('PROTOCOL_VIOLATION', 'TRANSFER', 'TRANSFER', message)
    }
    const ended = `the answer ended without success or failure; ${this.#bytes ?? 0} bytes were reported`
    const failure = why ?? transferFailure('OUTCOME_UNKNOWN', 'TRANSFER', 'TRANSFER', ended)
    return said === ''
      ? failure
      : { ...failure, message: storageWords(`${failure.message}; the storage said: ${said}`) }
  }
}
