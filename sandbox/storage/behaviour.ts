import { ALGORITHMS, type Algorithm } from './checksums.ts'
import { type Dialect, PLAIN } from './dialect.ts'

/**
 * How this storage behaves where real ones differ. Never set by HTTP. Numbers are sections of
 * facts/http-tpc.md; whole storages are in `played.ts`.
 */
export interface Behaviour {
  /** Statuses and words of refusals, and of copies that fail (5). */
  dialect: Dialect
  /** XRootD before 5.7 takes a header only if its name is written with the documented capitals (1). */
  headerNames: 'any' | 'exact'
  /** dCache assumes that it is to get credentials delegated, unless `Credential: none` says otherwise (1). */
  assumesDelegation: boolean
  /** dCache wants a checksum of the other side, unless `RequireChecksumVerification: false` says otherwise (1). */
  wantsChecksum: boolean
  /** `Overwrite: F` on push: StoRM reports what it finds in the last line, XRootD and dCache do not look (1). */
  overwriteOnPush: 'refused' | 'reported' | 'ignored'
  /** XRootD 6 asks for the source, and refuses as it does, before it opens the destination (5). */
  asksSourceFirst: boolean
  /** XRootD 5 says 201, all others 202 (2). */
  copyStatus: 201 | 202
  /** dCache indents its fields and has more of them (2). */
  markers: 'plain' | 'indented'
  markerSeconds: number
  /** Whether a marker comes with the headers or, as from dCache, after the first period (2). */
  firstMarker: 'at-once' | 'after-period'
  /** XRootD names the other side once it is connected, StoRM never (2). */
  remoteConnections: 'always' | 'once-connected' | 'never'
  /** StoRM: nothing, not even headers, before the first period is over or the copy ends (2). */
  lateHeaders: boolean
  finalNewline: boolean
  /** The connection ends without the line that tells the outcome. */
  withholdOutcome: boolean
  /** What is said in place of an outcome that is withheld. */
  lastWords: string
  /** COPY answers 200 and a page, as a portal in front of a storage does. */
  nonsense: boolean
  /** Refusals quote the tokens that came with the request, as careless storages do. */
  quoteTokens: boolean
  /** A failed copy leaves its part at the final name (5). */
  debris: boolean
  /** What is written grows under its final name, and `Overwrite: T` empties a good file before the source is asked (5). */
  inPlace: boolean
  /** StoRM goes on copying when the client has gone; XRootD and dCache notice at their next marker (5). */
  afterDisconnect: 'abort' | 'abort-at-marker' | 'go-on'
  /** So long may the other side of a copy be silent (5). */
  stallSeconds: number
  /** Nothing more fits: told when the file is opened, or after its first bytes (5). */
  full: 'no' | 'at-open' | 'while-writing'
  /** A body breaks off after so many bytes: a GET's as a source that is cut off or stalls, a PUT's at a destination (5). */
  breaksOff: BreakOff | undefined
  /** dCache does not hear a client whose requests it has refused with 401 so often, for so long (5). */
  blocks: { readonly refusals: number; readonly seconds: number } | undefined
  pull: boolean
  push: boolean
  /** COPY and PUT make missing parents (XRootD from 5.7), or refuse (4). */
  makeParents: boolean
  /** PUT makes missing parents even where COPY does not: XRootD before 5.7 (4). */
  putMakesParents: boolean
  /** A directory that is there: RFC 4918 wants 405, XRootD 5 says 201 and 6 says 409; both make parents (4). */
  mkcol: { readonly existing: 201 | 405 | 409; readonly parents: boolean }
  /** Of new and of replaced files (4). */
  putStatus: { readonly created: 200 | 201; readonly replaced: 200 | 201 | 204 }
  /** XRootD: 200 (4). */
  deleteStatus: 200 | 204
  /** XRootD: HEAD, PROPFIND and DELETE need `storage.read` besides what they need anyway (4). */
  looksNeedRead: boolean
  /** XRootD: 403, 404 and 409 to a HEAD end the connection (4). */
  closesAfterRefusedHead: boolean
  checksums: readonly Algorithm[]
  /** Asked for a checksum that it does not have, XRootD tells the first of those it has (3). */
  unknownChecksum: 'left-out' | 'first'
  /** XRootD 6 answers `Want-Repr-Digest` (RFC 9530), unless it is asked for both (3). */
  reprDigest: boolean
  /** So many of the next answers tell another file's checksum (XRootD before 6.0.0: docs/operations.md). */
  strayChecksums: number
  /** Macaroons are issued to who shows a token and asks by POST (section 7). */
  macaroons: boolean
  /** Of each transfer by itself. */
  bytesPerSecond: number | undefined
  /** These verbs are sent elsewhere, by a 307 unless another status is given (5). */
  redirect: { readonly verbs: readonly string[]; readonly origin: string; readonly status?: 302 | 307 } | undefined
}

export interface BreakOff {
  readonly verb: 'GET' | 'PUT'
  readonly afterBytes: number
  readonly by: 'closing' | 'stalling'
}

export const WELL_BEHAVED: Behaviour = {
  dialect: PLAIN,
  headerNames: 'any',
  assumesDelegation: false,
  wantsChecksum: false,
  overwriteOnPush: 'refused',
  asksSourceFirst: false,
  copyStatus: 202,
  markers: 'plain',
  markerSeconds: 5,
  firstMarker: 'at-once',
  remoteConnections: 'always',
  lateHeaders: false,
  finalNewline: true,
  withholdOutcome: false,
  lastWords: '',
  nonsense: false,
  quoteTokens: false,
  debris: false,
  inPlace: false,
  afterDisconnect: 'abort',
  stallSeconds: 60,
  full: 'no',
  breaksOff: undefined,
  blocks: undefined,
  pull: true,
  push: true,
  makeParents: true,
  putMakesParents: false,
  mkcol: { existing: 405, parents: false },
  putStatus: { created: 201, replaced: 204 },
  deleteStatus: 204,
  looksNeedRead: false,
  closesAfterRefusedHead: false,
  checksums: ALGORITHMS,
  unknownChecksum: 'left-out',
  reprDigest: false,
  strayChecksums: 0,
  macaroons: false,
  bytesPerSecond: undefined,
  redirect: undefined,
}

/** Answers `status` to the next `times` requests of `verb`, whoever asks. */
export interface RefuseOrder {
  readonly verb: string
  readonly status: number
  readonly times: number
  readonly retryAfterSeconds?: number
}

export class Refusals {
  #orders: { order: RefuseOrder; left: number }[] = []

  add(order: RefuseOrder): void {
    this.#orders.push({ order, left: order.times })
  }

  next(verb: string): RefuseOrder | undefined {
    const found = this.#orders.find(({ order }) => order.verb === verb)
    if (found === undefined) return undefined
    found.left -= 1
    if (found.left <= 0) this.#orders = this.#orders.filter(other => other !== found)
    return found.order
  }
}
