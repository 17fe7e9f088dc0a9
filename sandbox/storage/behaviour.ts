import { ALGORITHMS, type Algorithm } from './checksums.ts'

/**
 * How this storage behaves where real ones differ (facts/http-tpc.md sections 2 to 5). Set in process, never by HTTP.
 */
export interface Behaviour {
  /** XRootD 5 says 201, all others 202. */
  copyStatus: 201 | 202
  /** dCache indents its fields and has more of them. */
  markers: 'plain' | 'indented'
  markerSeconds: number
  /** StoRM: nothing, not even headers, before the first period is over or the copy ends. */
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
  /** A failed copy leaves its part at the final name. */
  debris: boolean
  /** StoRM goes on copying when the client has gone; others abort. */
  afterDisconnect: 'abort' | 'go-on'
  pull: boolean
  push: boolean
  /** COPY and PUT make missing parents (XRootD from 5.7), or answer 409. */
  makeParents: boolean
  checksums: readonly Algorithm[]
  /** So many of the next answers tell another file's checksum (XRootD before 6.0.0: docs/operations.md). */
  strayChecksums: number
  /** Macaroons are issued to who shows a token and asks by POST (section 7). */
  macaroons: boolean
  /** Of each transfer by itself. */
  bytesPerSecond: number | undefined
  /** These verbs are sent elsewhere by a 307. */
  redirect: { readonly verbs: readonly string[]; readonly origin: string } | undefined
}

export const WELL_BEHAVED: Behaviour = {
  copyStatus: 202,
  markers: 'plain',
  markerSeconds: 5,
  lateHeaders: false,
  finalNewline: true,
  withholdOutcome: false,
  lastWords: '',
  nonsense: false,
  quoteTokens: false,
  debris: false,
  afterDisconnect: 'abort',
  pull: true,
  push: true,
  makeParents: true,
  checksums: ALGORITHMS,
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
