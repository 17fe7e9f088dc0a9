import { setMaxListeners } from 'node:events'
import type { HttpClient, HttpRequest } from '../../shared/http/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import type { WorkerApi } from '../../worker/server.ts'
import type { MadeTime } from './made-time.ts'

/** What befalls the next call of a name: it never arrives; it is done, but its answer is lost; it is done twice; it arrives late. */
export type Mishap = 'never-sent' | 'answer-lost' | 'twice' | 'late'

export const CALLS = [
  'openSession',
  'heartbeat',
  'closeSession',
  'claim',
  'reportOutcomes',
  'askPermit',
  'acquireToken',
  'reportRenewal',
  'reportImport',
  'reportTask',
] as const satisfies readonly (keyof WorkerApi)[]
export type Call = (typeof CALLS)[number]

const SERVER = new URL('https://server.example/v1/worker')

/** All that a worker sends goes through here. Times in milliseconds. */
export class TroubledLine {
  /** Before a DELETE goes out, it waits so long for a connection. */
  deleteWaitMs = 0
  /** A DELETE is on its way for so long, and arrives, whatever becomes of who sent it. */
  deleteWayMs = 0
  readonly #time: MadeTime
  readonly #cut = new AbortController()
  #apart = 0
  #mishaps: { call: Call; mishap: Mishap; lateMs: number }[] = []

  constructor(time: MadeTime) {
    this.#time = time
    setMaxListeners(0, this.#cut.signal)
  }

  /** Nothing that this worker does reaches anybody from now on; what was sent is done all the same. */
  cut(): void {
    this.#cut.abort()
  }

  /** The rules server is out of reach for so long; storages are not. */
  partFromServer(ms: number): void {
    this.#apart = this.#time.monotonic() + ms
  }

  befall(call: Call, mishap: Mishap, lateMs: number): void {
    this.#mishaps.push({ call, mishap, lateMs })
  }

  heal(): void {
    this.deleteWaitMs = 0
    this.deleteWayMs = 0
    this.#apart = 0
    this.#mishaps = []
  }

  /** To storages. */
  http(client: HttpClient): HttpClient {
    return { request: request => this.#request(client, request), close: () => client.close() }
  }

  /** To issuers, which are quick: what another program on this machine takes of it is not their time. */
  issuerHttp(client: HttpClient): HttpClient {
    const request = (wanted: HttpRequest) => this.#time.whileHeld(() => client.request(wanted))
    return this.http({ request, close: () => client.close() })
  }

  async #request(client: HttpClient, request: HttpRequest): ReturnType<HttpClient['request']> {
    const { method } = request
    const url = new URL(request.url)
    const signal = AbortSignal.any([this.#cut.signal, ...(request.signal ? [request.signal] : [])])
    if (method === 'DELETE') await this.#time.sleep(this.deleteWaitMs, signal)
    if (signal.aborted) throw new HttpFailure(this.#cut.signal.aborted ? 'connect' : 'aborted', method, url)
    const send = () => client.request({ ...request, signal })
    if (method === 'DELETE') return this.#deletes(client, request, signal)
    return this.#time.whileBusy(async () => {
      const response = await send()
      void this.#time.whileBusy(() => new Promise<void>(resolve => response.body.once('close', resolve)))
      return response
    })
  }

  async #deletes(client: HttpClient, request: HttpRequest, signal: AbortSignal): ReturnType<HttpClient['request']> {
    const { signal: _, ...unheard } = request
    const arrives = async () => {
      await this.#time.sleep(this.deleteWayMs)
      // The rest of its way takes no time: what this machine is doing must not make it later than the server allows for.
      return this.#time.whileHeld(() => client.request(unheard))
    }
    const answered = arrives()
    answered.catch(() => undefined)
    return Promise.race([answered, whenAborted(signal, new HttpFailure('aborted', 'DELETE', new URL(request.url)))])
  }

  api(api: WorkerApi): WorkerApi {
    const through = (name: Call) => {
      const send = api[name] as (call: unknown) => Promise<unknown>
      return [name, (call: unknown) => this.#call(name, () => send(call))]
    }
    return Object.fromEntries(CALLS.map(through)) as WorkerApi
  }

  async #call<T>(name: Call, send: () => Promise<T>): Promise<T> {
    if (this.#cut.signal.aborted || this.#time.monotonic() < this.#apart)
      throw new HttpFailure('connect', 'POST', SERVER)
    const found = this.#mishaps.find(({ call }) => call === name)
    this.#mishaps = this.#mishaps.filter(other => other !== found)
    const answered = befallen(found, send, this.#time)
    answered.catch(() => undefined)
    const lost = whenAborted(this.#cut.signal, new HttpFailure('reset', 'POST', SERVER))
    const wait = () => Promise.race([answered, lost])
    // A claim waits for work: time goes on.
    return name === 'claim' ? wait() : this.#time.whileBusy(wait)
  }
}

async function befallen<T>(
  found: { readonly mishap: Mishap; readonly lateMs: number } | undefined,
  send: () => Promise<T>,
  time: MadeTime,
): Promise<T> {
  switch (found?.mishap) {
    case 'never-sent':
      throw new HttpFailure('connect', 'POST', SERVER)
    case 'answer-lost':
      await send()
      throw new HttpFailure('reset', 'POST', SERVER)
    case 'twice':
      await send()
      return send()
    case 'late':
      await time.sleep(found.lateMs)
      return send()
    default:
      return send()
  }
}

function whenAborted(signal: AbortSignal, failure: HttpFailure): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(failure)
    signal.addEventListener('abort', () => reject(failure), { once: true })
  })
}
