import type { Readable } from 'node:stream'

/** Deadlines of one exchange, milliseconds. What is absent has no limit. */
export interface HttpTimeouts {
  /** Until a connected (and TLS-secured) socket is at hand: queueing, resolving and handshakes included. */
  connect: number
  /** From the moment the request is sent until the answer's headers are here. */
  headers: number
  /** Nothing moves on the socket, in either direction. */
  idle?: number
  /** The whole exchange, until the last byte of the answer's body. */
  total?: number
}

export interface HttpRequest {
  /** Any method: `COPY`, `MKCOL`, `PROPFIND` too. */
  method: string
  /** Absolute, http or https. */
  url: string | URL
  /** Names go out as written here: XRootD before 5.7 is case-sensitive (facts/http-tpc.md section 1). */
  headers?: Readonly<Record<string, string>>
  /** A stream is sent chunked unless `Content-Length` is given. It is destroyed when the exchange fails. */
  body?: string | Buffer | Readable
  signal?: AbortSignal
  /** Replaces the client's own timeouts, all of them. */
  timeouts?: HttpTimeouts
}

export interface HttpResponse {
  readonly status: number
  /** Lower-case names; repeated headers are joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
  /** Must be read to its end or destroyed. It fails with `HttpFailure` when the exchange breaks off. */
  readonly body: Readable
  /** The body as UTF-8; what comes after `limitBytes` is cut off. Throws `HttpFailure`. */
  text(limitBytes: number): Promise<string>
}

/**
 * The one way to speak HTTP. It answers with whatever status came and throws only `HttpFailure`; it follows no redirect,
 * repeats nothing, and every exchange has deadlines. One client is one pool of connections.
 */
export interface HttpClient {
  request(request: HttpRequest): Promise<HttpResponse>
  /** Closes idle connections; exchanges under way end by themselves. */
  close(): void
}

/** For control traffic: connect 10 s, headers 30 s, whole exchange 60 s. */
export const CONTROL_TIMEOUTS: HttpTimeouts = { connect: 10_000, headers: 30_000, total: 60_000 }
