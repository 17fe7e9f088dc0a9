import {
  ERROR_CATALOGUE,
  type TransferCode,
  type TransferPhase,
  type TransferScope,
} from '../domain/error-catalogue.ts'
import { oneLine } from '../domain/one-line.ts'
import type { TransferFailure } from '../domain/transfer-error.ts'
import type { HttpFailureKind } from '../http/failure.ts'
import { retryAfterOf } from '../http/retry-after.ts'

export type Side = 'SOURCE' | 'DESTINATION'

/** What was tried: a COPY in one of its modes, or a single request to one storage. */
export type Attempted =
  | { readonly verb: 'COPY'; readonly mode: 'pull' | 'push' }
  | { readonly verb: 'HEAD' | 'GET' | 'PUT' | 'POST' | 'MKCOL' | 'DELETE' | 'PROPFIND'; readonly scope: TransferScope }
  | { readonly verb: TapeVerb; readonly scope: TransferScope }

/** A request of the tape API. It is about a list of files: what is missing is the service or the request, never a file. */
export type TapeVerb =
  | 'GET /.well-known/wlcg-tape-rest-api'
  | 'POST /stage'
  | 'GET /stage'
  | 'POST /stage/cancel'
  | 'DELETE /stage'
  | 'POST /release'
  | 'POST /archiveinfo'

/** A failure whose code, scope and phase are known already. `message` must be fit to show (`storageWords`). */
export function transferFailure(
  code: TransferCode,
  scope: TransferScope,
  phase: TransferPhase,
  message: string,
  more: { side?: Side | undefined; httpStatus?: number; retryAfterSeconds?: number | undefined } = {},
): TransferFailure {
  const { side, httpStatus, retryAfterSeconds } = more
  return {
    scope,
    phase,
    code,
    message,
    retryable: ERROR_CATALOGUE[code].retry !== 'never',
    ...(side === undefined ? {} : { side }),
    ...(httpStatus === undefined ? {} : { httpStatus }),
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  }
}

/**
 * An answer that is no success, by status and text (facts/http-tpc.md section 5). XRootD tells which of two files is
 * missing only by its verb: `Unable to create` (the destination) or `Unable to open` (the source) [seen, 5.5.3].
 */
export function classifyAnswer(
  attempted: Attempted,
  status: number,
  words: string,
  headers: Readonly<Record<string, string>> = {},
): TransferFailure {
  if (attempted.verb === 'COPY') {
    // XRootD from 5.7.2 on refuses when the source does, and quotes it: 6 with the source's status, 5 with 500.
    const remote = quotedStatus(words)
    if (remote !== undefined) return passiveStatus(attempted.mode, remote, words, 'PREPARATION')
    if (status === 500 && LIBRARY.test(words))
      return { ...classifyLastLine(attempted.mode, words), phase: 'PREPARATION' }
  }
  const side = answeringSide(attempted)
  const scope = side ?? (attempted.verb === 'COPY' ? 'GENERAL' : attempted.scope)
  const make = (code: TransferCode, where: TransferScope = scope) =>
    transferFailure(code, where, 'PREPARATION', describe(attempted.verb, status, words), {
      side,
      httpStatus: status,
      retryAfterSeconds: retryAfterOf(headers),
    })

  if (isTape(attempted)) return make(codeOf(status), status === 401 ? 'TOKEN' : scope)
  if (isFull(words) || status === 507) {
    if (side !== 'SOURCE') return make('DESTINATION_FULL')
    // A source has no room for what it stages or spools; of a push nobody knows whose room it is. No destination is held for that.
    return make('STORAGE_ERROR', attempted.verb === 'COPY' ? 'GENERAL' : scope)
  }
  // XRootD: 409 to who reads a directory. Nothing was to be written.
  if (READING.has(attempted.verb) && (status === 409 || status === 412)) return make('REQUEST_REFUSED')
  switch (status) {
    case 400:
    case 404:
      return missing(attempted, status, words, make)
    case 401:
      return make('TOKEN_REFUSED', 'TOKEN')
    case 409:
      if (isExisting(words)) return make('DESTINATION_EXISTS', 'DESTINATION')
      return isMissing(words) ? make('PARENT_MISSING', 'DESTINATION') : make('DESTINATION_CONFLICT', 'DESTINATION')
    case 412:
      return make('DESTINATION_EXISTS', 'DESTINATION')
    default:
      return make(codeOf(status))
  }
}

const READING: ReadonlySet<string> = new Set(['HEAD', 'GET', 'PROPFIND'])

function isTape(attempted: Attempted): boolean {
  return attempted.verb.includes('/')
}

/** They pass by themselves (RFC 9110, 4918, 8470): a request that came too slowly, or too early, a file that is locked, a busy storage. */
const PASSING = new Set([408, 423, 425, 503])

/** What a status says by itself. */
function codeOf(status: number): TransferCode {
  switch (status) {
    case 401:
      return 'TOKEN_REFUSED'
    case 403:
      return 'PERMISSION_DENIED'
    case 404:
      return 'NOT_FOUND'
    case 405:
    case 501:
      return 'NOT_SUPPORTED'
    case 429:
      return 'TOO_MANY_REQUESTS'
    default:
      if (PASSING.has(status)) return 'STORAGE_BUSY'
      if (status >= 500) return 'STORAGE_ERROR'
      return status >= 400 ? 'REQUEST_REFUSED' : 'PROTOCOL_VIOLATION'
  }
}

function missing(
  attempted: Attempted,
  status: 400 | 404,
  words: string,
  make: (code: TransferCode, scope?: TransferScope) => TransferFailure,
): TransferFailure {
  const gone = status === 404 || isMissing(words)
  if (attempted.verb !== 'COPY') {
    if (!gone) return make('REQUEST_REFUSED')
    if (attempted.verb === 'PUT' || attempted.verb === 'MKCOL') return make('PARENT_MISSING')
    return make(attempted.scope === 'SOURCE' ? 'SOURCE_MISSING' : 'NOT_FOUND')
  }
  if (isExisting(words)) return make('DESTINATION_EXISTS', 'DESTINATION')
  if (!gone) return make('REQUEST_REFUSED')
  if (attempted.mode === 'push') return make('SOURCE_MISSING', 'SOURCE')
  if (/\bparent\b|unable to create/i.test(words)) return make('PARENT_MISSING', 'DESTINATION')
  if (/unable to open|\bsource\b/i.test(words)) return make('SOURCE_MISSING', 'SOURCE')
  return make('NOT_FOUND', 'GENERAL')
}

/**
 * How libraries say that the passive side could not be reached, or was lost: libcurl (XRootD), Java (dCache, StoRM), Node. The
 * first that fits tells.
 */
const CONNECTION_WORDS: readonly (readonly [RegExp, TransferCode])[] = [
  [/resolve host|not resolve|unknown ?host|name or service not known|\b(ENOTFOUND|EAI_AGAIN)\b/i, 'RESOLVE_FAILED'],
  [/connection timed out|connect timed out|no connection in time|\bETIMEDOUT\b/i, 'TIMEOUT_CONNECT'],
  [
    /connect to |connection refused|no connection|no route to host|(host|network) is unreachable|\b(ECONNREFUSED|E(HOST|NET)UNREACH)\b/i,
    'CONNECT_FAILED',
  ],
  [/no answer in time/i, 'TIMEOUT_HEADERS'],
  [
    /connection (was )?(reset|closed|aborted)|reset by peer|ended early|\b(ECONNRESET|EPIPE)\b|broken pipe|failed to respond|returned nothing|empty reply|fail(ure|ed) when (receiving|sending)|(receiving|sending) data (from|to) the peer|prematurely closed/i,
    'CONNECTION_LOST',
  ],
  [/\bssl\b|\btls\b|certificate|handshake/i, 'TLS_FAILED'],
]

/** The active side's own disk, and its own certificates (libcurl's 58 and 77), though they fail with words of a network. */
const LOCAL = /\blocal (file ?system|file|resource|ssl certificate)\b|\bssl ca cert\b/i

/** XRootD from 5.7.2 on: libcurl did not reach the other side. The answer's status says nothing of it. */
const LIBRARY = /\bHTTP library failure=/

/** What a storage names is no reason: a path may have any word in it, and spaces too where XRootD says `local=`. */
function withoutPaths(words: string): string {
  return words.replace(/, local=.*?(?=, [a-z ]+=|$)/i, '').replaceAll(/\S*\/\S+/g, '')
}

/** The last line of a COPY that did not begin `success`. */
export function classifyLastLine(mode: 'pull' | 'push', line: string): TransferFailure {
  const remote = quotedStatus(line)
  if (remote !== undefined) return passiveStatus(mode, remote, line, 'TRANSFER')
  const words = withoutPaths(line)
  const passive: Side = mode === 'pull' ? 'SOURCE' : 'DESTINATION'
  const make = (code: TransferCode, scope: TransferScope, side?: Side) =>
    transferFailure(code, scope, 'TRANSFER', line, { side })
  if (isFull(words)) return make('DESTINATION_FULL', 'DESTINATION')
  const stall = /no bytes have been (?:received|transmitted)(?: (?:from the (source)|to the (destination))\b)?/i.exec(
    words,
  )
  if (stall !== null) {
    return make(
      'TIMEOUT_NO_PROGRESS',
      stall[1] !== undefined ? 'SOURCE' : stall[2] !== undefined ? 'DESTINATION' : 'TRANSFER',
    )
  }
  if (/partial file|premature end/i.test(words)) return make('SOURCE_CUT_OFF', 'SOURCE')
  if (LOCAL.test(words)) return make('TRANSFER_FAILED', 'TRANSFER')
  if (/checksum|digest/i.test(words)) return make('CHECKSUM_MISMATCH', 'TRANSFER')
  const unreached = CONNECTION_WORDS.find(([pattern]) => pattern.test(words))
  if (unreached !== undefined) return make(unreached[1], passive)
  if (/no activity|stalled?\b|timed? ?out|nothing moved/i.test(words)) {
    return make('TIMEOUT_NO_PROGRESS', 'TRANSFER')
  }
  if (isExisting(words)) return make('DESTINATION_EXISTS', 'DESTINATION')
  if (/permission denied/i.test(words)) return make('PERMISSION_DENIED', 'TRANSFER')
  return make('TRANSFER_FAILED', 'TRANSFER')
}

/** What the active side quotes of the passive side's refusal. */
function passiveStatus(mode: 'pull' | 'push', status: number, words: string, phase: TransferPhase): TransferFailure {
  const side: Side = mode === 'pull' ? 'SOURCE' : 'DESTINATION'
  const make = (code: TransferCode, scope: TransferScope = side) =>
    transferFailure(code, scope, phase, words, { side, httpStatus: status })
  if (mode === 'push' && (status === 507 || isFull(words))) return make('DESTINATION_FULL')
  if (status === 401) return make('TOKEN_REFUSED', 'TOKEN')
  if (status === 403) return make('PERMISSION_DENIED')
  if (status === 404 || status === 410) return make(mode === 'pull' ? 'SOURCE_MISSING' : 'PARENT_MISSING')
  if (status === 405 || status === 501) return make('NOT_SUPPORTED')
  if (status === 409 && mode === 'push') return make('DESTINATION_CONFLICT')
  if (status === 412 && mode === 'push') return make('DESTINATION_EXISTS')
  if (status === 429) return make('TOO_MANY_REQUESTS')
  if (PASSING.has(status)) return make('STORAGE_BUSY')
  return make(status >= 500 ? 'STORAGE_ERROR' : 'REQUEST_REFUSED')
}

const HTTP_CODES: Readonly<Record<HttpFailureKind, TransferCode>> = {
  resolve: 'RESOLVE_FAILED',
  connect: 'CONNECT_FAILED',
  tls: 'TLS_FAILED',
  'timeout-connect': 'TIMEOUT_CONNECT',
  'timeout-headers': 'TIMEOUT_HEADERS',
  'timeout-idle': 'TIMEOUT_NO_PROGRESS',
  'timeout-total': 'TIMEOUT_TOTAL',
  reset: 'CONNECTION_LOST',
  parse: 'PROTOCOL_VIOLATION',
  aborted: 'CANCELLED',
}

/** An exchange that brought no complete answer. */
export function classifyHttpFailure(
  attempted: Attempted,
  kind: HttpFailureKind,
  message: string,
  phase: TransferPhase = 'PREPARATION',
): TransferFailure {
  const side = answeringSide(attempted)
  const scope = kind === 'aborted' ? 'GENERAL' : (side ?? (attempted.verb === 'COPY' ? 'GENERAL' : attempted.scope))
  return transferFailure(HTTP_CODES[kind], scope, phase, message, { side })
}

/** The storage that a request is sent to, where that is known. */
function answeringSide(attempted: Attempted): Side | undefined {
  if (attempted.verb === 'COPY') return attempted.mode === 'pull' ? 'DESTINATION' : 'SOURCE'
  return attempted.scope === 'SOURCE' || attempted.scope === 'DESTINATION' ? attempted.scope : undefined
}

/**
 * XRootD: `Remote side failed with status code 404`, 6.1 also `remote host returned '404 Not Found'`; dCache: `rejected GET:
 * 404`; StoRM: `Error fetching ..: 404`, and before a push `Error checking if remote file exists: 403`.
 */
function quotedStatus(words: string): number | undefined {
  const quoted =
    /status code:? ?(\d{3})\b/i.exec(words) ??
    /\bremote host returned '(\d{3})\b/i.exec(words) ??
    /\bif remote file exists: ?(\d{3})\b/i.exec(words) ??
    /\brejected [A-Z]+: ?(\d{3})\b/i.exec(words) ??
    /\berror (?:fetching|pushing) .*: (\d{3})\b/i.exec(words)
  const status = Number(quoted?.[1])
  return status >= 400 && status <= 599 ? status : undefined
}

/** XRootD calls it unknown when the last bytes that fitted were written, and so fewer than it wanted to [seen, 5.5.3]. */
function isFull(words: string): boolean {
  return /no space left|no more space|insufficient (storage|space)|quota exceeded|out of (disk )?space|not enough space|no space available|pools (are )?full|unknown filesystem write failure/i.test(
    words,
  )
}

function isExisting(words: string): boolean {
  return /file exists|already exists/i.test(words)
}

function isMissing(words: string): boolean {
  return /no such file|not found|does not exist|\bparent\b/i.test(words)
}

function describe(verb: string, status: number, words: string): string {
  return words === '' ? `${verb} answered ${status}` : oneLine(`${verb} answered ${status}: ${words}`, 1000)
}
