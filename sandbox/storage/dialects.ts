import { STATUS_CODES } from 'node:http'
import { dirname } from 'node:path/posix'
import { type Answer, type Asked, type CopyFailure, curlWords, type Dialect, PLAIN, prematureEnd } from './dialect.ts'

/**
 * The words of real storages, where facts/http-tpc.md section 5 has them from there, else from the sources it names: XRootD's
 * `XrdHttpTpcTPC.cc`, dCache's `RemoteTransferHandler` and `RemoteHttpDataTransferProtocol`, StoRM WebDAV's `TransferFilter`
 * and `HttpTransferClient`.
 */
type Worded = readonly [status: number, words: string]

/** XRootD opens a file for a copy, and says how that failed. */
function unable({ mode, path }: Asked, why: string): string {
  return `Unable to ${mode === 'pull' ? 'create' : 'open'} ${path}; ${why}`
}

/** A bearer whose token is not valid is nobody, who may do nothing. */
const NOBODY: Answer = { status: 403, words: 'Forbidden' }

function xrootdRefusal(table: Readonly<Record<string, Worded>>, dress: (words: string, asked: Asked) => string) {
  return (kind: string, asked: Asked): Answer | undefined => {
    if (asked.verb !== 'COPY') return kind === 'unauthorized' ? NOBODY : undefined
    const [status, why] = table[kind] ?? []
    return status === undefined ? undefined : { status, words: dress(unable(asked, why ?? ''), asked) }
  }
}

function xrootdFailure(failure: CopyFailure, { path }: Asked, moved: string): string {
  switch (failure.kind) {
    case 'refused': {
      const quoted = failure.words === '' ? '' : `; error message: "${failure.words}"`
      return `Remote side failed with status code ${failure.status}${quoted}`
    }
    case 'stalled':
      return `Error when interacting with local filesystem: Transfer failed because no bytes have been ${moved} in ${failure.seconds} seconds.`
    case 'full':
      return `Error when interacting with local filesystem: Unable to write ${path}; no space left on device (code=28)`
    default:
      return failure.words
  }
}

const XROOTD_5_REFUSALS: Readonly<Record<string, Worded>> = {
  unauthorized: [401, 'permission denied'],
  forbidden: [401, 'permission denied'],
  missing: [400, 'no such file or directory'],
  'no-parent': [400, 'no such file or directory'],
  exists: [412, 'file exists'],
  full: [400, 'no space left on device'],
}

const refusedBy5 = xrootdRefusal(XROOTD_5_REFUSALS, words => words)

export const XROOTD_5: Dialect = {
  // Seen on 5.5.3: a PUT for which there is no space gets no answer.
  refuse: (kind, asked) => (kind === 'full' && asked.verb === 'PUT' ? 'silence' : refusedBy5(kind, asked)),
  fail: (failure, asked) => curlWords(failure) ?? xrootdFailure(failure, asked, 'received'),
  refusePull: PLAIN.refusePull,
}

/** Later ones say in every message what it is about. */
function named(words: string, { path, remote }: Asked, library?: string): string {
  return `${words}, local=${path}, remote=${remote}${library === undefined ? '' : `, HTTP library failure=${library}`}`
}

function laterFailure(failure: CopyFailure, asked: Asked): string {
  const library = curlWords(failure)
  if (library !== undefined) return named('Internal transfer failure', asked, library)
  const moved =
    asked.mode === 'push' ? 'transmitted to the destination (push mode)' : 'received from the source (pull mode)'
  return named(xrootdFailure(failure, asked, moved), asked)
}

export const XROOTD_6: Dialect = {
  refuse: xrootdRefusal(
    {
      unauthorized: [403, 'permission denied'],
      forbidden: [403, 'permission denied'],
      missing: [404, 'no such file or directory'],
      'no-parent': [404, 'no such file or directory'],
      exists: [409, 'file exists'],
      full: [507, 'no space left on device'],
    },
    (words, asked) => `failure: ${named(words, asked)}`,
  ),
  fail: laterFailure,
  refusePull: (failure, asked) => {
    const library = curlWords(failure)
    if (failure.kind !== 'refused') {
      const words = `failure: ${named(library ?? 'Timeout was reached', asked, library)}`
      return { status: 500, words }
    }
    const error = 'HTTP response code said error'
    const { status } = failure
    const found = `remote host returned '${status} ${STATUS_CODES[status] ?? ''}' while fetching file size`
    return { status, words: `failure: ${named(`${error}: ${found}`, asked, error)}` }
  },
}

/** XRootD 5.8 with a quota's own words: github.com/xrootd/xrootd/issues/2591. */
export const EOS: Dialect = {
  refuse: (kind, asked) => {
    if (kind !== 'full' || asked.verb !== 'COPY') {
      return xrootdRefusal(XROOTD_5_REFUSALS, (words, about) => `failure: ${named(words, about)}`)(kind, asked)
    }
    const words = `Unable to get quota space - quota not defined or exhausted ${asked.path}; Disk quota exceeded`
    return { status: 400, words: `failure: ${named(words, asked)}` }
  },
  fail: laterFailure,
  refusePull: (failure, asked) => {
    const size = 'while fetching remote size'
    const words =
      failure.kind === 'refused'
        ? named(`Remote side ${hostOf(asked)} failed with status code ${failure.status} ${size}`, asked)
        : named(`Internal transfer failure ${size}`, asked, curlWords(failure))
    return { status: 500, words: `failure: ${words}` }
  },
}

function hostOf({ remote }: Asked): string {
  return URL.canParse(remote) ? new URL(remote).hostname : ''
}

const QUOTA = '<?xml version="1.0">\n<error xmlns="DAV:">\n<quota-not-exceeded/>\n</error>\n'

/** Its words stand in the place of the reason phrase. */
export const DCACHE: Dialect = {
  refuse: (kind, { verb, path }) => {
    if (verb !== 'COPY') return undefined
    switch (kind) {
      case 'forbidden':
        return { status: 401, words: 'Permission denied', asReason: true }
      case 'missing':
        return { status: 404, words: 'no such file', asReason: true }
      case 'no-parent':
        return { status: 400, words: `No such file or directory: ${dirname(path)}`, asReason: true }
      case 'exists':
        return { status: 500, words: 'Internal problem with server', asReason: true }
      case 'full':
        return { status: 507, words: QUOTA, contentType: 'application/xml; charset=utf-8' }
      case 'unauthorized':
        return undefined
    }
  },
  fail: (failure, { mode }) => {
    const verb = mode === 'push' ? 'PUT' : 'GET'
    switch (failure.kind) {
      case 'refused':
        return `rejected ${verb}: ${failure.status} ${STATUS_CODES[failure.status] ?? ''}`.trimEnd()
      case 'cut-off':
        return prematureEnd(failure)
      case 'stalled':
        return `socket timeout on GET (received ${failure.bytes} B of data; 0 B pending): Read timed out`
      case 'full':
        return 'All pools are full'
      case 'no-checksum':
        return mode === 'push'
          ? 'verification failed: no useful checksum in HEAD response: {}'
          : 'no checksum in HEAD response'
      default:
        return failure.words
    }
  },
  refusePull: PLAIN.refusePull,
}

export const STORM: Dialect = {
  refuse: (kind, { verb, path }) => {
    if (verb !== 'COPY') return undefined
    switch (kind) {
      case 'missing':
        return { status: 404, words: `Local source path not found: ${path}` }
      case 'no-parent':
        return { status: 409, words: 'Parent resource does not exist' }
      case 'exists':
        return { status: 412, words: 'Target file exists and Overwrite is false' }
      default:
        return undefined
    }
  },
  fail: (failure, { mode, remote }) => {
    const doing = mode === 'push' ? 'pushing' : 'fetching'
    const thrown = (exception: string, words: string) => `${exception} while ${doing} ${remote}: ${words}`
    switch (failure.kind) {
      case 'refused': {
        const reason = STATUS_CODES[failure.status] ?? ''
        if (failure.looked)
          return thrown('TransferError', `Error checking if remote file exists: ${failure.status} ${reason}`)
        return `Error ${doing} ${remote}: ${failure.status} status code: ${failure.status}, reason phrase: ${reason}`
      }
      case 'cut-off':
        return thrown('ConnectionClosedException', prematureEnd(failure))
      case 'stalled':
        return thrown('SocketTimeoutException', 'Read timed out')
      case 'full':
        return thrown('IOException', 'No space left on device')
      case 'exists':
        return thrown('TransferError', 'Remote file exists and overwrite is false')
      default:
        return failure.words
    }
  },
  refusePull: PLAIN.refusePull,
}
