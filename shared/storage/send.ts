import { Readable } from 'node:stream'
import type { TransferPhase } from '../domain/error-catalogue.ts'
import { WaybillError } from '../domain/errors.ts'
import type { Secret } from '../domain/secret.ts'
import type { TransferFailure } from '../domain/transfer-error.ts'
import type { HttpClient, HttpResponse, HttpTimeouts } from '../http/client.ts'
import { Deadlines, type DeadlineTimer } from '../http/deadlines.ts'
import { HttpFailure } from '../http/failure.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Attempted, classifyAnswer, classifyHttpFailure, transferFailure } from './classify.ts'
import { decideRedirect, MAX_REDIRECTS } from './redirects.ts'
import { StorageError } from './types.ts'
import { storageWords } from './words.ts'

export interface StorageDeps {
  /** For COPY alone. XRootD 5.5.3 does not bear COPY and HEAD on the same kept connections (facts/http-tpc.md section 8). */
  readonly copyClient: HttpClient
  /** For everything else; its bodies must wait for `100 Continue` (`createAgentClient`), or redirected uploads fail. */
  readonly client: HttpClient
  readonly clock: Clock
  readonly timer: DeadlineTimer
  /** Where the storage at `host` may redirect to, as patterns (`redirects.ts`). */
  readonly redirectHosts: (host: string) => readonly string[]
  /** What the storage at `host` (with its port) is given instead of the usual, milliseconds. */
  readonly patience: (host: string) => Patience
}

/** How long a connection may take, and an answer that needs no work. Milliseconds. */
export interface Patience {
  readonly connect?: number | undefined
  readonly headers?: number | undefined
}

export interface Outgoing {
  readonly method: string
  readonly url: string
  readonly token: Secret | undefined
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Readable
  readonly signal?: AbortSignal | undefined
  readonly timeouts: HttpTimeouts
}

const USUAL = { connect: 15_000, headers: 30_000 }
/** For the body of an answer that has little to say. */
const BODY_MS = 15_000

/** The deadlines of a request to this address, of which the answer may take `answerMs` because the storage has to work for it. */
export function timeoutsAt(
  { patience }: Pick<StorageDeps, 'patience'>,
  url: string,
  answerMs = 0,
): HttpTimeouts & { total: number } {
  const { connect = USUAL.connect, headers = USUAL.headers } = patience(URL.canParse(url) ? new URL(url).host : '')
  const longer = Math.max(headers, answerMs)
  return { connect, headers: longer, total: connect + longer + BODY_MS }
}

/** Verbs without side effects that matter: worth one repeat when a kept connection turned out to be dead. */
const REPEATABLE = new Set(['HEAD', 'GET', 'PROPFIND', 'MKCOL'])

class RedirectRefused extends WaybillError {
  constructor(why: string) {
    super('REDIRECT_REFUSED', why, { status: 502 })
  }
}

/** Sends a request, with its token, and sends it again where the storage redirects to. Throws what `failureOf` reads. */
export async function send(deps: StorageDeps, client: HttpClient, outgoing: Outgoing): Promise<HttpResponse> {
  let url = addressOf(outgoing)
  const allowed = deps.redirectHosts(url.hostname)
  for (let hops = 0; ; hops++) {
    const response = await sendOnce(client, outgoing, url)
    endInTime(deps, outgoing, response)
    if (response.status < 301 || response.status > 308 || response.status === 304) return response
    // Read, so that the connection can be kept.
    void response.text(4096).catch(() => undefined)
    if (hops === MAX_REDIRECTS) throw new RedirectRefused(`more than ${MAX_REDIRECTS} redirects`)
    const carriesToken = outgoing.token !== undefined || outgoing.headers?.TransferHeaderAuthorization !== undefined
    const decision = decideRedirect(url, response.headers.location, carriesToken, allowed)
    if (!decision.follow) throw new RedirectRefused(decision.why)
    if (outgoing.body instanceof Readable && outgoing.body.readableDidRead) {
      throw new RedirectRefused('a redirect that came after the file was being sent')
    }
    url = decision.url
  }
}

/**
 * What is no success has to be over soon, also where a success may take its time: nobody watches the words of a refused COPY, and
 * a storage that never ends them would keep the attempt for ever.
 */
function endInTime({ timer }: StorageDeps, { timeouts }: Outgoing, { status, body }: HttpResponse): void {
  if (status < 300 || timeouts.total !== undefined) return
  const deadlines = new Deadlines<'words'>(timer, () => body.destroy())
  deadlines.set('words', timeouts.headers)
  body.once('close', () => deadlines.close())
}

async function sendOnce(client: HttpClient, outgoing: Outgoing, url: URL): Promise<HttpResponse> {
  const { method, token, body, signal, timeouts } = outgoing
  const headers = token === undefined ? outgoing.headers : { ...outgoing.headers, Authorization: bearer(token) }
  const request = {
    method,
    url,
    timeouts,
    ...(headers === undefined ? {} : { headers }),
    ...(body === undefined ? {} : { body }),
    ...(signal === undefined ? {} : { signal }),
  }
  try {
    return await client.request(request)
  } catch (error) {
    if (!(error instanceof HttpFailure && error.kind === 'reset' && REPEATABLE.has(method))) throw error
    return await client.request(request)
  }
}

export function bearer(token: Secret): string {
  return `Bearer ${token.reveal()}`
}

export function addressOf({ method, url }: Pick<Outgoing, 'method' | 'url'>): URL {
  try {
    return new URL(url)
  } catch {
    throw new WaybillError('STORAGE_ADDRESS', `${method}: the storage's address is not a URL`, { status: 400 })
  }
}

/** The failure for the attempt's record, from anything `send` or reading a body throws; other errors are thrown again. */
export function failureOf(attempted: Attempted, error: unknown, phase: TransferPhase = 'PREPARATION'): TransferFailure {
  if (error instanceof StorageError) return error.failure
  if (error instanceof HttpFailure)
    return classifyHttpFailure(attempted, error.kind, storageWords(error.message), phase)
  if (error instanceof RedirectRefused) {
    const scope = attempted.verb !== 'COPY' ? attempted.scope : attempted.mode === 'pull' ? 'DESTINATION' : 'SOURCE'
    return transferFailure('REDIRECT_REFUSED', scope, phase, storageWords(error.message))
  }
  throw error
}

/** The failure that an unsuccessful answer stands for, its words read and cleaned of the tokens that were sent. */
export async function answeredFailure(
  attempted: Attempted,
  response: HttpResponse,
  tokens: readonly (Secret | undefined)[],
): Promise<TransferFailure> {
  // A body that breaks off takes nothing from the status.
  const text = await response.text(16_384).catch(() => '')
  return classifyAnswer(attempted, response.status, storageWords(text, tokens), response.headers)
}
