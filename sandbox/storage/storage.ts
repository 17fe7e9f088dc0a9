import { once, setMaxListeners } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import type { Random } from '../../shared/runtime/random.ts'
import type { Authority } from '../authority.ts'
import { type RunningService, serveHttps } from '../https-service.ts'
import { parsePath } from '../wlcg.ts'
import { type Behaviour, Refusals, type RefuseOrder, WELL_BEHAVED } from './behaviour.ts'
import { ClientBlocks } from './client-blocks.ts'
import { copy } from './copy.ts'
import type { Answer } from './dialect.ts'
import { Exchange, pathOf, type Storage } from './exchange.ts'
import { FileTree } from './file-tree.ts'
import { keepExactNames } from './header-names.ts'
import { IssuerKeys } from './issuer-keys.ts'
import { MacaroonMint } from './macaroons.ts'
import { mkcol, move, remove } from './namespace.ts'
import { propfind } from './propfind.ts'
import { get, head } from './read.ts'
import { Refusal, refusalOf } from './refusal.ts'
import { TapeFront } from './tape.ts'
import { answerTapeApi, describeTapeApi, isTapeApi, TAPE_WELL_KNOWN } from './tape-api.ts'
import type { TapeSettings } from './tape-settings.ts'
import { TokenVerifier } from './verify.ts'
import { put } from './write.ts'

export interface StorageOptions {
  readonly name: string
  readonly port: number
  readonly url: string
  /** The names that tokens may call this storage by. */
  readonly audiences: readonly string[]
  /** Scope paths are relative to it: `/data`. */
  readonly basePath: string
  /** What the URL's `/` is on disk. */
  readonly directory: string
  /** For unfinished uploads: on the same file system, not inside `directory`. */
  readonly incoming: string
  readonly issuer: string
  readonly authority: Authority
  /** CA certificates (a file or a directory) that the other side of a copy may have; default: the sandbox's own CA. */
  readonly trust: string | undefined
  readonly quotaBytes: number | undefined
  readonly behaviour: Partial<Behaviour>
  /** Without it there is no tape, and no tape API. */
  readonly tape: Partial<TapeSettings> | undefined
  /** Told every request when it comes: its verb, and its target as it was sent. */
  readonly onRequest?: ((verb: string, target: string, ended: Promise<unknown>) => void) | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
}

export interface RunningStorage extends RunningService {
  /** May be changed while the storage runs. */
  readonly behaviour: Behaviour
  readonly tape: TapeFront | undefined
  /** Requests so far, by verb; those that want a checksum also as `HEAD Want-Digest`. */
  readonly requests: ReadonlyMap<string, number>
  /** Answers so far, by status. */
  readonly answers: ReadonlyMap<number, number>
  /** Requests that showed one that is good here, by verb and kind: `GET macaroon`, `HEAD token`. */
  readonly shown: ReadonlyMap<string, number>
  refuse(order: RefuseOrder): void
}

type Verb = (storage: Storage, exchange: Exchange) => Promise<void>

const VERBS: Readonly<Record<string, Verb>> = {
  HEAD: head,
  GET: get,
  PUT: put,
  MKCOL: mkcol,
  DELETE: remove,
  MOVE: move,
  PROPFIND: propfind,
  COPY: copy,
}
const ALLOW = ['OPTIONS', ...Object.keys(VERBS)].join(', ')

/** Starts a WebDAV and HTTP third-party copy storage on a directory. */
export async function serveStorage(options: StorageOptions): Promise<RunningStorage> {
  const { clock, random, log, name, url } = options
  const trust = createTrust({ path: options.trust ?? options.authority.caFile, defaultRoots: false, clock, log })
  const http = createAgentClient({ trust, clock })
  const files = await FileTree.open({ ...options, random })
  const basePath = parsePath(options.basePath)
  if (!basePath.ok) throw new Error(`base path of ${name}: ${basePath.reason}`)
  await files.makeDirectories(basePath.value)
  const verifier = new TokenVerifier(
    { issuer: options.issuer, audiences: options.audiences, basePath: basePath.value },
    new IssuerKeys(options.issuer, http, clock, log),
    clock,
  )
  const stopping = new AbortController()
  setMaxListeners(0, stopping.signal) // one for each copy under way
  const behaviour = { ...WELL_BEHAVED, ...options.behaviour }
  const tape = options.tape === undefined ? undefined : new TapeFront(files, options.tape, clock, random)
  const storage = { name, url, files, behaviour, tape, http, stopping: stopping.signal, clock, log }
  const endpoint = new Endpoint(storage, verifier, new MacaroonMint(options), options.onRequest)
  const service = await serveHttps(name, options.port, options.authority, (request, response) =>
    endpoint.handle(request, response),
  )
  await files.sweep()
  return {
    ...service,
    behaviour,
    tape,
    requests: endpoint.requests,
    answers: endpoint.answers,
    shown: endpoint.shown,
    refuse: order => endpoint.refusals.add(order),
    stop: async () => {
      stopping.abort()
      tape?.recalls.stop()
      await service.stop()
      http.close()
    },
  }
}

class Endpoint {
  readonly requests = new Map<string, number>()
  readonly answers = new Map<number, number>()
  readonly shown = new Map<string, number>()
  readonly refusals = new Refusals()
  readonly #storage: Storage
  readonly #verifier: TokenVerifier
  readonly #mint: MacaroonMint
  readonly #onRequest: StorageOptions['onRequest']
  readonly #blocks: ClientBlocks

  constructor(storage: Storage, verifier: TokenVerifier, mint: MacaroonMint, onRequest: StorageOptions['onRequest']) {
    this.#storage = storage
    this.#verifier = verifier
    this.#mint = mint
    this.#onRequest = onRequest
    this.#blocks = new ClientBlocks(storage.behaviour, storage.clock)
  }

  /** Answers every request. What goes wrong after the headers are out can only end the connection. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const verb = request.method ?? ''
    this.#count(verb)
    if (request.headers['want-digest'] !== undefined) this.#count(`${verb} Want-Digest`)
    this.#onRequest?.(verb, request.url ?? '/', once(response, 'close'))
    response.once('finish', () => {
      this.answers.set(response.statusCode, (this.answers.get(response.statusCode) ?? 0) + 1)
    })
    try {
      await this.#answer(verb, request, response)
    } catch (error) {
      if (response.headersSent || response.destroyed) response.destroy()
      else this.#refuse(request, response, refusalOf(error) ?? this.#ownFault(error))
    }
  }

  /** The profile's order: 401 for the token, 403 for what it doesn't grant, then 404 (facts/tokens.md section 1). */
  async #answer(verb: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#blocks.demandOpen(request)
    this.#misbehave(verb, request)
    if (this.#storage.behaviour.headerNames === 'exact') keepExactNames(request)
    if (verb === 'OPTIONS') return this.#options(request, response)
    const { tape } = this.#storage
    if (tape !== undefined && verb === 'GET' && request.url === TAPE_WELL_KNOWN) {
      return this.#describeTape(request, response)
    }
    const bearer = /^bearer +([^\s]+) *$/i.exec(request.headers.authorization ?? '')?.[1]
    if (bearer === undefined) throw unauthorized('a bearer token is needed')
    const macaroon = this.#mint.verify(bearer)
    const token = macaroon ?? (await this.#verifier.verify(bearer))
    if (!token.ok) throw unauthorized(`the token is not valid here: ${token.reason}`)
    const shown = `${verb} ${macaroon === undefined ? 'token' : 'macaroon'}`
    this.shown.set(shown, (this.shown.get(shown) ?? 0) + 1)
    const exchange = new Exchange(request, response, pathOf(request.url ?? '/'), token.value.capabilities)
    if (tape !== undefined && isTapeApi(exchange.path)) return answerTapeApi(this.#storage, tape, exchange)
    if (verb === 'POST' && this.#storage.behaviour.macaroons) {
      if (macaroon !== undefined) throw new Refusal(403, 'a macaroon gets no other')
      return this.#mint.answer(exchange, token.value)
    }
    const act = VERBS[verb]
    if (act === undefined) throw new Refusal(405, `${verb} is not supported`, { Allow: ALLOW })
    await act(this.#storage, exchange)
  }

  #count(what: string): void {
    this.requests.set(what, (this.requests.get(what) ?? 0) + 1)
  }

  #misbehave(verb: string, request: IncomingMessage): void {
    const order = this.refusals.next(verb)
    if (order !== undefined) {
      const retryAfter = order.retryAfterSeconds
      throw new Refusal(
        order.status,
        'the storage was told to refuse',
        retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) },
      )
    }
    const { redirect } = this.#storage.behaviour
    if (redirect?.verbs.includes(verb)) {
      throw new Refusal(redirect.status ?? 307, 'elsewhere', { Location: `${redirect.origin}${request.url ?? '/'}` })
    }
  }

  #options(request: IncomingMessage, response: ServerResponse): void {
    new Exchange(request, response, [], []).answer(200, '', { DAV: '1', Allow: ALLOW, 'MS-Author-Via': 'DAV' })
  }

  #describeTape(request: IncomingMessage, response: ServerResponse): void {
    const headers = { 'Content-Type': 'application/json' }
    new Exchange(request, response, [], []).answer(200, describeTapeApi(this.#storage), headers)
  }

  #refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
    const { behaviour } = this.#storage
    const exchange = new Exchange(request, response, segmentsOf(request), [])
    const { status, message, kind, headers } = refusal
    const worded = kind === undefined ? undefined : behaviour.dialect.refuse(kind, exchange.asked)
    if (worded === 'silence') return void response.destroy()
    const answer: Answer = worded ?? { status, words: message }
    if (answer.status === 401) this.#blocks.refused(request)
    const afterHead = request.method === 'HEAD' && [403, 404, 409].includes(answer.status)
    // A client that was told no instead of "100 Continue" may send its body or not: only closing keeps the two apart.
    const closes = exchange.expectsContinue || (afterHead && behaviour.closesAfterRefusedHead)
    const { authorization, transferheaderauthorization } = request.headers
    const quoted = behaviour.quoteTokens ? `: ${authorization}, ${transferheaderauthorization}` : ''
    if (answer.asReason) response.statusMessage = answer.words
    exchange.answer(answer.status, answer.asReason ? quoted : `${answer.words}${quoted}`, {
      ...(answer.contentType !== undefined && { 'Content-Type': answer.contentType }),
      ...(answer.status === status && headers),
      ...(closes && { Connection: 'close' }),
    })
  }

  #ownFault(error: unknown): Refusal {
    this.#storage.log.error({ err: error, storage: this.#storage.name }, 'a request failed')
    return new Refusal(500, 'the storage failed; its log says why')
  }
}

function unauthorized(reason: string): Refusal {
  return new Refusal(401, reason, { 'WWW-Authenticate': 'Bearer realm="waybill sandbox"' }, 'unauthorized')
}

/** For words only: what is no path has none. */
function segmentsOf({ url }: IncomingMessage): string[] {
  try {
    return pathOf(url ?? '/')
  } catch {
    return []
  }
}
