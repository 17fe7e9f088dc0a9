import { request as plainRequest } from 'node:http'
import { request as tlsRequest } from 'node:https'
import { Readable } from 'node:stream'
import { type Delays, got, type Method, type Options, TimeoutError } from 'got'
import { ConnectionPool, type PoolOptions } from './agents.ts'
import { answer, answerBody, BODY_FAILED } from './body.ts'
import { CONTROL_TIMEOUTS, type HttpClient, type HttpRequest, type HttpResponse, type HttpTimeouts } from './client.ts'
import { errorCode, failureKind, HttpFailure, type HttpFailureKind } from './failure.ts'
import { requestAddress, wireHeaders, wireName } from './wire.ts'

export interface GotClientOptions extends PoolOptions {
  /** For requests that bring none of their own. Default: those for control traffic. */
  timeouts?: HttpTimeouts
}

/** The client for control traffic: issuers, tape, probes, the API. A streamed body does not wait for `100 Continue`. */
export function createGotClient(options: GotClientOptions): HttpClient {
  const pool = new ConnectionPool(options)
  const timeouts = options.timeouts ?? CONTROL_TIMEOUTS
  return {
    request: async request => exchange(request, request.timeouts ?? timeouts, pool),
    close: () => pool.close(),
  }
}

function exchange(request: HttpRequest, timeouts: HttpTimeouts, pool: ConnectionPool): Promise<HttpResponse> {
  const { method, headers = {}, body, signal } = request
  const url = requestAddress(request)
  const written = wireHeaders(headers)
  let connected = false
  let failure: HttpFailure | undefined
  const inWords = (error: unknown): HttpFailure => {
    if (failure === undefined) {
      const ours = body instanceof Readable && body.errored !== null
      const [kind, reason] = ours ? (['aborted', BODY_FAILED] as const) : kindOf(error, connected)
      failure = new HttpFailure(kind, method, url, reason)
    }
    return failure
  }
  if (signal?.aborted || (body instanceof Readable && body.destroyed)) {
    return Promise.reject(new HttpFailure('aborted', method, url, signal?.aborted ? undefined : BODY_FAILED))
  }

  return new Promise<HttpResponse>((resolve, reject) => {
    const stream = got.stream(url, {
      // got's type lists the common methods only; it sends any (COPY, MKCOL).
      method: method as Method,
      headers: written,
      ...(body === undefined ? {} : { body }),
      agent: pool.agents(),
      timeout: delays(timeouts),
      request: withCapitals(written, () => {
        connected = true
      }),
      followRedirect: false,
      throwHttpErrors: false,
      decompress: false,
      retry: { limit: 0 },
      ...(signal === undefined ? {} : { signal }),
    })
    stream.once('response', (incoming: { statusCode: number; headers: Record<string, string | string[]> }) => {
      resolve(
        answer(
          incoming.statusCode,
          incoming.headers,
          answerBody(stream, inWords, () => undefined),
        ),
      )
    })
    stream.on('error', error => {
      if (body instanceof Readable) body.destroy()
      reject(inWords(error))
    })
    if (body === undefined && method !== 'GET' && method !== 'HEAD') stream.end()
  })
}

/** got lower-cases the names it is given; this puts those of the caller, and for its own the usual capitals, back. */
function withCapitals(headers: Readonly<Record<string, string>>, onConnected: () => void): Options['request'] {
  const names = new Map(Object.keys(headers).map(name => [name.toLowerCase(), name]))
  return (url, options) => {
    const restored = Object.entries(options.headers ?? {}).map(([name, value]) => [
      names.get(name) ?? wireName(name),
      value,
    ])
    const send = url.protocol === 'https:' ? tlsRequest : plainRequest
    const outgoing = send(url, { ...options, headers: Object.fromEntries(restored) })
    outgoing.once('socket', socket => {
      if (outgoing.reusedSocket) onConnected()
      else socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', onConnected)
    })
    return outgoing
  }
}

/** got counts resolving, connecting and the TLS handshake one by one: each gets the whole time. */
function delays({ connect, headers, idle, total }: HttpTimeouts): Delays {
  return {
    lookup: connect,
    connect,
    secureConnect: connect,
    response: headers,
    ...(idle === undefined ? {} : { socket: idle }),
    ...(total === undefined ? {} : { request: total }),
  }
}

const TIMEOUTS: Readonly<Record<string, HttpFailureKind>> = {
  lookup: 'timeout-connect',
  connect: 'timeout-connect',
  secureConnect: 'timeout-connect',
  response: 'timeout-headers',
  socket: 'timeout-idle',
  request: 'timeout-total',
}

function kindOf(error: unknown, connected: boolean): [HttpFailureKind, string | undefined] {
  if (error instanceof TimeoutError) return [TIMEOUTS[error.event] ?? 'timeout-total', error.event]
  const code = errorCode(error)
  return [failureKind(code, connected), code]
}
