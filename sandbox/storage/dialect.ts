import type { HttpFailureKind } from '../../shared/http/failure.ts'

/** Refusals that real storages tell apart by other statuses and other words: the rows of facts/http-tpc.md section 5. */
export type RefusalKind = 'unauthorized' | 'forbidden' | 'missing' | 'exists' | 'no-parent' | 'full'

/** What was asked for, as far as it goes into words. */
export interface Asked {
  readonly verb: string
  /** Of a COPY. */
  readonly mode: 'pull' | 'push' | undefined
  /** As in the URL, from `/` on, decoded. */
  readonly path: string
  /** The other storage's file; empty: there is none. */
  readonly remote: string
}

export interface Answer {
  readonly status: number
  readonly words: string
  /** dCache puts its words in the place of `Not Found`, and leaves the body empty. */
  readonly asReason?: boolean
  readonly contentType?: string
}

/** Why a copy that was under way failed; `words` are the other side's if it refused, else the embedded storage's own. */
export type CopyFailure = { readonly words: string } & (
  | { readonly kind: 'refused'; readonly status: number /** Before the copy. */; readonly looked?: boolean }
  | { readonly kind: 'cut-off'; readonly bytes: number; readonly of: number | undefined }
  | { readonly kind: 'stalled'; readonly seconds: number; readonly bytes: number }
  | { readonly kind: 'unreached'; readonly by: HttpFailureKind }
  /** exists, no-checksum: at the other side. */
  | { readonly kind: 'full' | 'exists' | 'no-checksum' | 'other' }
)

/** How one kind of storage says no. */
export interface Dialect {
  /** To a request. `undefined`: as this storage says it by itself. silence: the connection ends without an answer. */
  refuse(kind: RefusalKind, asked: Asked): Answer | 'silence' | undefined
  /** What follows `failure: ` in the last line of a COPY. */
  fail(failure: CopyFailure, asked: Asked): string
  /** To a pull whose source was asked for first (`asksSourceFirst`). */
  refusePull(failure: CopyFailure, asked: Asked): Answer
}

/** The embedded storage's own words. */
export const PLAIN: Dialect = {
  refuse: () => undefined,
  fail: failure =>
    failure.kind === 'refused'
      ? `Remote side failed with status code ${failure.status}; error message: "${failure.words}"`
      : failure.words,
  refusePull: (failure, asked) => ({ status: 502, words: PLAIN.fail(failure, asked) }),
}

const CURL: Readonly<Partial<Record<HttpFailureKind, string>>> = {
  resolve: "Couldn't resolve host name",
  connect: "Couldn't connect to server",
  tls: 'SSL peer certificate or SSH remote key was not OK',
  reset: 'Server returned nothing (no headers, no data)',
  'timeout-connect': 'Timeout was reached',
  'timeout-headers': 'Timeout was reached',
}

/** As libcurl calls it (curl_easy_strerror), which XRootD copies with. */
export function curlWords(failure: CopyFailure): string | undefined {
  if (failure.kind === 'cut-off') return 'Transferred a partial file'
  return failure.kind === 'unreached' ? (CURL[failure.by] ?? failure.words) : undefined
}

/** As Apache HttpComponents calls it, which dCache and StoRM copy with. */
export function prematureEnd({ bytes, of }: { bytes: number; of: number | undefined }): string {
  return `Premature end of Content-Length delimited message body (expected: ${of ?? '?'}; received: ${bytes})`
}
