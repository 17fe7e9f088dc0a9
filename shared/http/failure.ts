import { WaybillError } from '../domain/errors.ts'

/** How far a request came before it failed. What was not connected was not sent; after that nobody knows. */
export type HttpFailureKind =
  | 'resolve'
  | 'connect'
  | 'tls'
  | 'timeout-connect'
  | 'timeout-headers'
  | 'timeout-idle'
  | 'timeout-total'
  | 'reset'
  | 'parse'
  | 'aborted'

const WORDS: Readonly<Record<HttpFailureKind, string>> = {
  resolve: 'the host name does not resolve',
  connect: 'no connection',
  tls: 'the TLS handshake or the check of the certificate failed',
  'timeout-connect': 'no connection in time',
  'timeout-headers': 'no answer in time',
  'timeout-idle': 'nothing moved on the connection for too long',
  'timeout-total': 'the exchange took too long',
  reset: 'the connection ended early',
  parse: 'the answer is not HTTP',
  aborted: 'the caller gave up',
}

/** An exchange without a complete answer. Holds neither header values nor the query of the address, where tokens may be. */
export class HttpFailure extends WaybillError {
  readonly kind: HttpFailureKind
  /** The system's or the TLS library's code, when there is one: `ECONNREFUSED`, `CERT_HAS_EXPIRED`. */
  readonly reason: string | undefined

  constructor(kind: HttpFailureKind, method: string, url: URL, reason?: string) {
    const detail = reason === undefined ? '' : ` (${reason})`
    super(
      `HTTP_${kind.toUpperCase().replace('-', '_')}`,
      `${method} ${url.origin}${url.pathname}: ${WORDS[kind]}${detail}`,
      { status: 502 },
    )
    this.name = 'HttpFailure'
    this.kind = kind
    this.reason = reason
  }

  /** True when the request surely never reached the server, so that it has no effect to look for. */
  get neverSent(): boolean {
    return this.kind === 'resolve' || this.kind === 'connect' || this.kind === 'tls' || this.kind === 'timeout-connect'
  }
}

const RESOLVE = new Set(['ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL', 'EAI_NODATA', 'EAI_NONAME'])
const CONNECT = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL', 'EACCES', 'EMFILE', 'ENFILE'])
const TLS =
  /^(ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|CRL_|EPROTO$|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH_EXCEEDED|INVALID_PURPOSE)/

/** The kind of failure that an error code of Node, OpenSSL or the HTTP parser stands for; `connected`: a socket was up. */
export function failureKind(code: string | undefined, connected: boolean): HttpFailureKind {
  if (code === undefined) return connected ? 'reset' : 'connect'
  if (RESOLVE.has(code)) return 'resolve'
  if (TLS.test(code)) return 'tls'
  if (code.startsWith('HPE_')) return 'parse'
  if (code === 'ABORT_ERR' || code === 'ERR_ABORTED') return 'aborted'
  if (CONNECT.has(code)) return 'connect'
  if (code === 'ETIMEDOUT') return connected ? 'reset' : 'timeout-connect'
  return connected ? 'reset' : 'connect'
}

/** The stable code of anything thrown, `undefined` when it has none; the message is left behind, it may quote input. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code.slice(0, 80) : undefined
}
