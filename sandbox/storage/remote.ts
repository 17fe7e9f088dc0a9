import type { Readable } from 'node:stream'
import type { HttpRequest, HttpResponse, HttpTimeouts } from '../../shared/http/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { decideRedirect, defaultRedirectHosts, MAX_REDIRECTS } from '../../shared/storage/redirects.ts'
import { storageWords } from '../../shared/storage/words.ts'
import type { Exchange, Storage } from './exchange.ts'
import { Refusal } from './refusal.ts'

const MAX_ERROR_BYTES = 1_000
const TRANSFER_HEADER = 'transferheader'

/** Of the leg to the other storage; a transfer as a whole has no limit here, its driver has one. */
function timeouts({ behaviour }: Storage): HttpTimeouts {
  const silence = behaviour.stallSeconds * 1000
  return { connect: 10_000, headers: silence, idle: silence }
}

/** The passive side said no. `message`: its words, free of tokens. */
export class RemoteRefusal extends Error {
  readonly status: number

  constructor(status: number, words: string) {
    super(words)
    this.status = status
  }
}

/** The passive side answered what cannot be followed. */
export class RemoteFailure extends Error {}

/** The other storage's address. Throws 400: tokens go over https only. */
export function remoteAddress(header: string): URL {
  const url = URL.canParse(header) ? new URL(header) : undefined
  if (url?.protocol !== 'https:') throw new Refusal(400, 'the other storage must be an absolute https URL')
  if (url.username !== '' || url.password !== '')
    throw new Refusal(400, 'no user names in the address of the other storage')
  return url
}

/** `TransferHeader<Name>: v` goes to the passive side as `<Name>: v`, in the letters that the client wrote. */
export function transferHeaders(exchange: Exchange): Record<string, string> {
  const { rawHeaders } = exchange.request
  const headers: Record<string, string> = {}
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? ''
    if (name.toLowerCase().startsWith(TRANSFER_HEADER) && name.length > TRANSFER_HEADER.length) {
      headers[name.slice(TRANSFER_HEADER.length)] = rawHeaders[index + 1] ?? ''
    }
  }
  return headers
}

export interface RemoteRequest {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE'
  readonly url: URL
  readonly headers: Record<string, string>
  /** Made anew for each hop of a redirect. */
  readonly body?: () => Promise<Buffer | Readable>
  readonly signal: AbortSignal
}

/** Follows redirects within the storage's own domain and never to http. Throws `RemoteFailure`, `HttpFailure`. */
export async function askRemote(storage: Storage, request: RemoteRequest): Promise<HttpResponse> {
  let { url } = request
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const response = await send(storage, { ...request, url })
    if (![301, 302, 303, 307, 308].includes(response.status)) return response
    response.body.destroy()
    const decision = decideRedirect(url, response.headers.location, true, defaultRedirectHosts(request.url.hostname))
    if (!decision.follow) throw new RemoteFailure(`Remote side answered with ${decision.why}`)
    url = decision.url
  }
  throw new RemoteFailure(`Remote side redirected more than ${MAX_REDIRECTS} times`)
}

/** A kept connection may have been closed by the other side: one repeat, if no body is lost with it. */
async function send(storage: Storage, request: RemoteRequest): Promise<HttpResponse> {
  const attempt = async (): Promise<HttpResponse> => {
    const { method, url, headers, body, signal } = request
    const options: HttpRequest = { method, url, headers, signal, timeouts: timeouts(storage) }
    return storage.http.request(body === undefined ? options : { ...options, body: await body() })
  }
  try {
    return await attempt()
  } catch (error) {
    const repeatable = request.method !== 'PUT' && error instanceof HttpFailure && error.kind === 'reset'
    if (!repeatable) throw error
    return attempt()
  }
}

export async function remoteRefusal(response: HttpResponse): Promise<RemoteRefusal> {
  return new RemoteRefusal(response.status, storageWords(await response.text(MAX_ERROR_BYTES)))
}
