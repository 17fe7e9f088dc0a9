import { type ClientRequest, request as plainRequest } from 'node:http'
import { request as tlsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { Clock } from '../runtime/clock.ts'
import { type Agents, ConnectionPool, type PoolOptions } from './agents.ts'
import { answer, answerBody, BODY_FAILED } from './body.ts'
import { CONTROL_TIMEOUTS, type HttpClient, type HttpRequest, type HttpResponse, type HttpTimeouts } from './client.ts'
import { Deadlines, DeadlineTimer } from './deadlines.ts'
import { errorCode, failureKind, HttpFailure, type HttpFailureKind } from './failure.ts'
import { requestAddress, wireHeaders } from './wire.ts'

export interface AgentClientOptions extends PoolOptions {
  clock: Clock
  /** For requests that bring none of their own. Default: those for control traffic. */
  timeouts?: HttpTimeouts
}

/** How long a server may take to say `100 Continue` before the body is sent anyway (RFC 9110 section 10.1.1). */
const CONTINUE_MS = 3_000

/**
 * The client for hot verbs (COPY, HEAD) and for bodies that must wait for `100 Continue`: `node:https` with kept
 * connections costs a seventh of the CPU of got (facts/performance.md).
 */
export function createAgentClient(options: AgentClientOptions): HttpClient {
  const pool = new ConnectionPool(options)
  const timeouts = options.timeouts ?? CONTROL_TIMEOUTS
  const timer = new DeadlineTimer(options.clock)
  return {
    request: async request => {
      const url = requestAddress(request)
      return new Exchange(url, request, request.timeouts ?? timeouts, timer).run(pool.agents())
    },
    close: () => pool.close(),
  }
}

/** What Node needs of an address; from a URL it would take all of its parts along, and copy them twice. */
function connectionOptions(url: URL) {
  const { hostname, port, pathname, search } = url
  // An IPv6 address is written in brackets in a URL only.
  const host = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  return { host, port: port === '' ? null : port, path: pathname + search }
}

function expectsContinue(headers: Readonly<Record<string, string>>): boolean {
  return Object.keys(headers).some(name => name.toLowerCase() === 'expect')
}

type Phase = 'connect' | 'headers' | 'total' | 'continue'

const EXPIRED = { connect: 'timeout-connect', headers: 'timeout-headers', total: 'timeout-total' } as const

/** Sockets whose handshakes are over. Node does not tell it of a kept socket that a queued request inherits. */
const CONNECTED = new WeakSet<Socket>()

class Exchange {
  readonly #url: URL
  readonly #request: HttpRequest
  readonly #timeouts: HttpTimeouts
  readonly #deadlines: Deadlines<Phase>
  #outgoing: ClientRequest | undefined
  #connected = false
  #sent = false
  #sendBody: (() => void) | undefined
  /** The first failure is the cause; what Node reports after our own `destroy` is its echo. */
  #failure: HttpFailure | undefined

  constructor(url: URL, request: HttpRequest, timeouts: HttpTimeouts, timer: DeadlineTimer) {
    this.#url = url
    this.#request = request
    this.#timeouts = timeouts
    this.#deadlines = new Deadlines(timer, phase => {
      if (phase === 'continue') this.#sendBody?.()
      else this.#fail(EXPIRED[phase])
    })
  }

  run(agents: Agents): Promise<HttpResponse> {
    const { method, headers = {}, body, signal } = this.#request
    return new Promise<HttpResponse>((resolve, reject) => {
      if (signal?.aborted || (body instanceof Readable && body.destroyed)) {
        reject(this.#failed('aborted', signal?.aborted ? undefined : BODY_FAILED))
        return
      }
      const secure = this.#url.protocol === 'https:'
      const outgoing = (secure ? tlsRequest : plainRequest)({
        ...connectionOptions(this.#url),
        method,
        headers: wireHeaders(headers),
        agent: secure ? agents.https : agents.http,
        // XRootD 5.5.3 says `Connection: Close` in its `100 Continue` [seen]; the strict parser would stop there.
        insecureHTTPParser: expectsContinue(headers),
      })
      this.#outgoing = outgoing
      const onAbort = () => this.#fail('aborted')
      signal?.addEventListener('abort', onAbort, { once: true })
      const finish = () => {
        this.#deadlines.close()
        signal?.removeEventListener('abort', onAbort)
      }

      // The nearest first: a sleep that is too long is another one.
      this.#deadlines.set('connect', this.#timeouts.connect)
      this.#deadlines.set('total', this.#timeouts.total)
      if (this.#timeouts.idle !== undefined) outgoing.setTimeout(this.#timeouts.idle, () => this.#fail('timeout-idle'))
      outgoing.once('socket', socket => this.#awaitConnection(socket, secure))
      outgoing.on('error', error => {
        finish()
        if (body instanceof Readable) body.destroy()
        reject(this.#inWords(error))
      })
      outgoing.once('response', incoming => {
        this.#deadlines.clear('headers')
        this.#sendBody = undefined
        const answered = answerBody(
          incoming,
          error => this.#inWords(error),
          () => {
            finish()
            // An answer that came before our body was sent leaves a request that can never be completed. Without a body all was
            // sent, though Node may not have heard so yet: to end the connection then would cost the next one a handshake.
            if (body !== undefined && !outgoing.writableFinished) outgoing.destroy()
          },
        )
        resolve(answer(incoming.statusCode ?? 0, incoming.headers, answered))
      })
      this.#send(outgoing)
    })
  }

  #awaitConnection(socket: Socket, secure: boolean): void {
    const ready = () => {
      CONNECTED.add(socket)
      this.#connected = true
      this.#deadlines.clear('connect')
      if (this.#sent) this.#deadlines.set('headers', this.#timeouts.headers)
    }
    if (CONNECTED.has(socket)) ready()
    else socket.once(secure ? 'secureConnect' : 'connect', ready)
  }

  #send(outgoing: ClientRequest): void {
    const { body, headers = {} } = this.#request
    outgoing.once('finish', () => {
      this.#sent = true
      if (this.#connected) this.#deadlines.set('headers', this.#timeouts.headers)
    })
    if (!(body instanceof Readable)) {
      outgoing.end(body)
      return
    }
    body.once('error', () => this.#fail('aborted', BODY_FAILED))
    const pipe = () => {
      this.#sendBody = undefined
      this.#deadlines.clear('continue')
      body.pipe(outgoing)
    }
    if (!expectsContinue(headers)) {
      pipe()
      return
    }
    this.#sendBody = pipe
    outgoing.once('continue', () => this.#sendBody?.())
    outgoing.once('socket', () => this.#deadlines.set('continue', CONTINUE_MS))
    outgoing.flushHeaders()
  }

  #fail(kind: HttpFailureKind, reason?: string): void {
    this.#failed(kind, reason)
    this.#outgoing?.destroy(this.#failure)
  }

  #failed(kind: HttpFailureKind, reason?: string): HttpFailure {
    this.#failure ??= new HttpFailure(kind, this.#request.method, this.#url, reason)
    return this.#failure
  }

  #inWords(error: unknown): HttpFailure {
    const code = errorCode(error)
    return this.#failed(failureKind(code, this.#connected), code)
  }
}
