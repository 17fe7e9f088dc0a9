import { expect } from 'chai'
import {
  ERROR_CATALOGUE,
  type ErrorEntry,
  type TransferCode,
  type TransferScope,
} from '../../shared/domain/error-catalogue.ts'
import { mayExistAlready, mayLackParent, type TransferFailure } from '../../shared/domain/transfer-error.ts'
import { type Attempted, classifyAnswer, classifyHttpFailure, classifyLastLine } from '../../shared/storage/classify.ts'

const PULL: Attempted = { verb: 'COPY', mode: 'pull' }
const PUSH: Attempted = { verb: 'COPY', mode: 'push' }
const at = (verb: 'HEAD' | 'GET' | 'PUT' | 'MKCOL' | 'DELETE', scope: TransferScope): Attempted => ({ verb, scope })
const summary = ({ code, scope, retryable }: TransferFailure) => `${code} ${scope} ${retryable ? 'again' : 'never'}`

// facts/http-tpc.md section 5; [seen]: XRootD 5.5.3.
describe('answers that are no success', () => {
  const cases: [string, Attempted, number, string, string][] = [
    [
      'XRootD: parent missing [seen]',
      PULL,
      400,
      'Unable to create /exp/no/dir/a; no such file or directory',
      'PARENT_MISSING DESTINATION again',
    ],
    [
      'XRootD: destination exists [seen]',
      PULL,
      412,
      'Unable to create /exp/a; file exists',
      'DESTINATION_EXISTS DESTINATION never',
    ],
    [
      'XRootD: push, source missing [seen]',
      PUSH,
      400,
      'Unable to open /exp/missing; no such file or directory',
      'SOURCE_MISSING SOURCE never',
    ],
    [
      'XRootD: no space',
      PULL,
      400,
      'Unable to create /exp/a; no space left on device',
      'DESTINATION_FULL DESTINATION again',
    ],
    [
      'XRootD: permission at the active side',
      PULL,
      401,
      'Unable to create /exp/a; permission denied',
      'TOKEN_REFUSED TOKEN again',
    ],
    [
      'XRootD: not a directory [seen]',
      PULL,
      400,
      'Unable to create /exp/a/b; not a directory',
      'REQUEST_REFUSED DESTINATION never',
    ],
    [
      'XRootD 6: destination exists',
      PULL,
      409,
      'Unable to create /exp/a; file exists',
      'DESTINATION_EXISTS DESTINATION never',
    ],
    [
      'XRootD 6: relays the code of the source',
      PULL,
      404,
      'Remote side failed with status code 404; error message: "x"',
      'SOURCE_MISSING SOURCE never',
    ],
    [
      'XRootD 6: relays a refusal of the source',
      PULL,
      403,
      'Remote side failed with status code 403; error message: "x"',
      'PERMISSION_DENIED SOURCE never',
    ],
    ['XRootD 6: no space', PULL, 507, '', 'DESTINATION_FULL DESTINATION again'],
    ['XRootD 6: push, source missing', PUSH, 404, '', 'SOURCE_MISSING SOURCE never'],
    ['StoRM: parent missing, or exists', PULL, 409, '', 'DESTINATION_CONFLICT DESTINATION again'],
    ['StoRM: parent missing', PULL, 409, 'The parent collection does not exist', 'PARENT_MISSING DESTINATION again'],
    ['dCache: parent missing', PULL, 400, 'Bad Request', 'REQUEST_REFUSED DESTINATION never'],
    ['dCache: exists', PULL, 500, 'Internal problem with server', 'STORAGE_ERROR DESTINATION again'],
    ['a 404 that names no side', PULL, 404, '', 'NOT_FOUND GENERAL never'],
    ['permission', PULL, 403, '', 'PERMISSION_DENIED DESTINATION never'],
    ['permission, push', PUSH, 403, '', 'PERMISSION_DENIED SOURCE never'],
    ['not supported', PULL, 501, '', 'NOT_SUPPORTED DESTINATION never'],
    ['method not allowed', PUSH, 405, '', 'NOT_SUPPORTED SOURCE never'],
    ['too many', PULL, 429, '', 'TOO_MANY_REQUESTS DESTINATION again'],
    ['busy', PULL, 503, '', 'STORAGE_BUSY DESTINATION again'],
    ['a file that somebody writes, XRootD', PULL, 423, '', 'STORAGE_BUSY DESTINATION again'],
    ['a request that came too slowly', at('HEAD', 'SOURCE'), 408, '', 'STORAGE_BUSY SOURCE again'],
    ['gateway', PULL, 504, '', 'STORAGE_ERROR DESTINATION again'],
    ['teapot', PULL, 418, '', 'REQUEST_REFUSED DESTINATION never'],
    ['a status that is none', PULL, 999, '', 'STORAGE_ERROR DESTINATION again'],
    ['a 3xx without sense', PULL, 304, '', 'PROTOCOL_VIOLATION DESTINATION again'],
    ['GET of a missing source', at('GET', 'SOURCE'), 404, '', 'SOURCE_MISSING SOURCE never'],
    ['GET of something missing', at('GET', 'GENERAL'), 404, '', 'NOT_FOUND GENERAL never'],
    ['PUT without a parent', at('PUT', 'DESTINATION'), 404, '', 'PARENT_MISSING DESTINATION again'],
    ['PUT without a parent, StoRM', at('PUT', 'DESTINATION'), 409, '', 'DESTINATION_CONFLICT DESTINATION again'],
    ['PUT without space', at('PUT', 'DESTINATION'), 507, '', 'DESTINATION_FULL DESTINATION again'],
    ['HEAD without the right', at('HEAD', 'DESTINATION'), 403, '', 'PERMISSION_DENIED DESTINATION never'],
    ['HEAD with a bad token', at('HEAD', 'SOURCE'), 401, '', 'TOKEN_REFUSED TOKEN again'],
    ['GET of a directory, XRootD', at('GET', 'SOURCE'), 409, '', 'REQUEST_REFUSED SOURCE never'],
    ['HEAD under a condition', at('HEAD', 'SOURCE'), 412, '', 'REQUEST_REFUSED SOURCE never'],
    ['HEAD of a source without room', at('HEAD', 'SOURCE'), 507, '', 'STORAGE_ERROR SOURCE again'],
    ['a push of which nobody knows who is full', PUSH, 507, '', 'STORAGE_ERROR GENERAL again'],
    ['a push, with words', PUSH, 400, 'no space left on device', 'STORAGE_ERROR GENERAL again'],
    [
      'XRootD 6: relays a source without room',
      PULL,
      507,
      'Remote side failed with status code 507',
      'STORAGE_ERROR SOURCE again',
    ],
    [
      'DELETE of a full directory [seen]',
      at('DELETE', 'DESTINATION'),
      500,
      'Unable to remove /exp/m; directory not empty',
      'STORAGE_ERROR DESTINATION again',
    ],
  ]
  for (const [name, attempted, status, words, expected] of cases) {
    it(name, () => {
      const failure = classifyAnswer(attempted, status, words)
      expect(summary(failure)).to.equal(expected)
      expect(failure.phase).to.equal('PREPARATION')
      expect(failure.httpStatus).to.equal(status)
      if (words !== '') expect(failure.message).to.include(words)
    })
  }

  it('keep the side of a refused token', () => {
    expect(classifyAnswer(PULL, 401, '').side).to.equal('DESTINATION')
    expect(classifyAnswer(PUSH, 401, '').side).to.equal('SOURCE')
    expect(classifyAnswer(PULL, 401, 'Remote side failed with status code 401').side).to.equal('SOURCE')
  })

  it('keep Retry-After within a day, and a date as the time from the answer`s own', () => {
    const asked = (headers: Record<string, string>) => classifyAnswer(PULL, 503, '', headers).retryAfterSeconds
    const date = 'Sun, 22 Nov 2026 21:35:08 GMT'
    for (const [value, seconds] of [
      ['7', 7],
      [' 7 ', 7],
      ['0', 0],
      ['99999999', 86_400],
      ['Sun, 22 Nov 2026 21:36:38 GMT', 90],
      ['Tue, 22 Dec 2026 21:35:08 GMT', 86_400],
      ['Sun, 22 Nov 2026 21:35:00 GMT', 0],
      ['', undefined],
      ['soon', undefined],
    ] as const) {
      expect(asked({ 'retry-after': value, date }), value).to.equal(seconds)
    }
    expect(asked({ 'retry-after': 'Sun, 22 Nov 2026 21:36:38 GMT' }), 'from when?').to.equal(undefined)
    expect(classifyAnswer(PULL, 429, '', { 'retry-after': 'soon' })).not.to.have.property('retryAfterSeconds')
  })

  it('have messages of 1000 characters at most', () => {
    expect(classifyAnswer(PULL, 400, 'x'.repeat(1000)).message).to.have.length(1000)
  })
})

describe('last lines that are no success', () => {
  const cases: [string, 'pull' | 'push', string, string][] = [
    [
      'XRootD: source missing [seen]',
      'pull',
      'failure: Remote side failed with status code 404; error message: "Unable to open /exp/missing; no such file or directory "',
      'SOURCE_MISSING SOURCE never',
    ],
    [
      'XRootD: source refuses',
      'pull',
      'failure: Remote side failed with status code 403; error message: ""',
      'PERMISSION_DENIED SOURCE never',
    ],
    [
      'XRootD: source refuses the token',
      'pull',
      'failure: Remote side failed with status code 401',
      'TOKEN_REFUSED TOKEN again',
    ],
    [
      'XRootD: destination refuses, push',
      'push',
      'failure: Remote side failed with status code 403',
      'PERMISSION_DENIED DESTINATION never',
    ],
    [
      'XRootD: destination full, push',
      'push',
      'failure: Remote side failed with status code 507',
      'DESTINATION_FULL DESTINATION again',
    ],
    [
      'XRootD: destination conflict, push',
      'push',
      'failure: Remote side failed with status code 409',
      'DESTINATION_CONFLICT DESTINATION again',
    ],
    [
      'XRootD: destination exists, push',
      'push',
      'failure: Remote side failed with status code 412',
      'DESTINATION_EXISTS DESTINATION never',
    ],
    [
      'XRootD: parent missing, push',
      'push',
      'failure: Remote side failed with status code 404',
      'PARENT_MISSING DESTINATION again',
    ],
    [
      'XRootD: source does not answer [seen]',
      'pull',
      "failure: Couldn't connect to server",
      'CONNECT_FAILED SOURCE again',
    ],
    [
      'XRootD: destination does not answer [seen]',
      'push',
      "failure: Couldn't connect to server",
      'CONNECT_FAILED DESTINATION again',
    ],
    [
      'curl, as in XRootD and StoRM: a source whose packets are dropped',
      'pull',
      'failure: Failed to connect to se.example.org port 1094: Connection timed out',
      'TIMEOUT_CONNECT SOURCE again',
    ],
    ['XRootD: unknown source [seen]', 'pull', "failure: Couldn't resolve host name", 'RESOLVE_FAILED SOURCE again'],
    ['XRootD: cut off', 'pull', 'failure: Transferred a partial file', 'SOURCE_CUT_OFF SOURCE again'],
    [
      'XRootD: stall',
      'pull',
      'failure: Transfer failed because no bytes have been received in 20 seconds',
      'TIMEOUT_NO_PROGRESS TRANSFER again',
    ],
    [
      'XRootD 5.5.3: stall, as it writes it',
      'pull',
      'failure: Error when interacting with local filesystem: Transfer failed because no bytes have been received in 20 seconds.',
      'TIMEOUT_NO_PROGRESS TRANSFER again',
    ],
    [
      'XRootD: the destination takes nothing',
      'push',
      'failure: Transfer failed because no bytes have been transmitted to the destination (push mode) in 60 seconds',
      'TIMEOUT_NO_PROGRESS DESTINATION again',
    ],
    [
      'StoRM: no status, and a port in the address',
      'pull',
      'failure: Error fetching https://se.example.org:443/f1: null',
      'TRANSFER_FAILED TRANSFER again',
    ],
    [
      'XRootD: a path with a space',
      'pull',
      'failure: odd, local=/d/my certificate f.root, code=1',
      'TRANSFER_FAILED TRANSFER again',
    ],
    [
      'XRootD: certificate',
      'pull',
      'failure: SSL peer certificate or SSH remote key was not OK',
      'TLS_FAILED SOURCE again',
    ],
    [
      'XRootD: no space',
      'pull',
      'failure: Failed to write: no space left on device',
      'DESTINATION_FULL DESTINATION again',
    ],
    [
      'StoRM: source missing',
      'pull',
      'failure: Error fetching https://se.example.org:8443/a/404.root: 404',
      'SOURCE_MISSING SOURCE never',
    ],
    ['StoRM: anything', 'pull', 'failure: IOException', 'TRANSFER_FAILED TRANSFER again'],
    ['dCache: source missing', 'pull', 'failure: rejected GET: 404 Not Found', 'SOURCE_MISSING SOURCE never'],
    ['dCache: checksum', 'pull', 'failure: Checksum mismatch', 'CHECKSUM_MISMATCH TRANSFER again'],
    ['dCache: source full', 'pull', 'failure: rejected GET: 507 Insufficient Storage', 'STORAGE_ERROR SOURCE again'],
    [
      'XRootD: source full, in its own words',
      'pull',
      'failure: Remote side failed with status code 500; error message: "No space left on device"',
      'STORAGE_ERROR SOURCE again',
    ],
    ['dCache: source locked', 'pull', 'failure: rejected GET: 423 Locked', 'STORAGE_BUSY SOURCE again'],
    ['dCache: source busy', 'pull', 'failure: rejected GET: 503 Too busy', 'STORAGE_BUSY SOURCE again'],
    ['source with an error', 'pull', 'failure: rejected GET: 500 Oops', 'STORAGE_ERROR SOURCE again'],
    ...(
      [
        ['GET https://se.example.org/f: no connection (ECONNREFUSED)', 'CONNECT_FAILED'],
        ['connect EHOSTUNREACH 192.0.2.7:443', 'CONNECT_FAILED'],
        ['Network is unreachable', 'CONNECT_FAILED'],
        ['java.net.ConnectException: Connection refused (Connection refused)', 'CONNECT_FAILED'],
        ['GET https://se.example.org/f: no connection in time', 'TIMEOUT_CONNECT'],
        ['java.net.SocketTimeoutException: connect timed out', 'TIMEOUT_CONNECT'],
        ['GET https://se.example.org/f: no answer in time', 'TIMEOUT_HEADERS'],
        ['GET https://se.example.org/f: the host name does not resolve (ENOTFOUND)', 'RESOLVE_FAILED'],
        ['GET https://se.example.org/f: the connection ended early (ECONNRESET)', 'CONNECTION_LOST'],
        ['Recv failure: Connection reset by peer', 'CONNECTION_LOST'],
        ['Server returned nothing (no headers, no data)', 'CONNECTION_LOST'],
        ['Failure when receiving data from the peer', 'CONNECTION_LOST'],
        ['Failed sending data to the peer', 'CONNECTION_LOST'],
      ] as const
    ).flatMap(([words, code]): typeof cases => [
      [`source: ${words}`, 'pull', `failure: ${words}`, `${code} SOURCE again`],
      [`destination: ${words}`, 'push', `failure: ${words}`, `${code} DESTINATION again`],
    ]),
    [
      'XRootD: the source gives nothing',
      'pull',
      'failure: Transfer failed because no bytes have been received from the source (pull mode) in 60 seconds',
      'TIMEOUT_NO_PROGRESS SOURCE again',
    ],
    // What fails at the active side's own disk, or with its own certificate, is no fault of the other.
    ...[
      'Error when interacting with local filesystem: Unable to write; connection timed out',
      'Error when interacting with local filesystem: Unable to write; broken pipe',
      'Problem with the local SSL certificate',
      'Problem with the SSL CA cert (path? access rights?)',
    ].map((words): (typeof cases)[number] => [words, 'pull', `failure: ${words}`, 'TRANSFER_FAILED TRANSFER again']),
    // Nor is a word in a path or beside a checksum.
    [
      'a path',
      'pull',
      'failure: Failed to write to /data/certificates/EPIPE/f1: odd',
      'TRANSFER_FAILED TRANSFER again',
    ],
    ['a checksum', 'pull', 'failure: checksum mismatch: connection closed by pool', 'CHECKSUM_MISMATCH TRANSFER again'],
    ['Java: no answer', 'pull', 'failure: se.example.org:443 failed to respond', 'CONNECTION_LOST SOURCE again'],
    ['XRootD: a stall, or no connection', 'pull', 'failure: Timeout was reached', 'TIMEOUT_NO_PROGRESS TRANSFER again'],
    ['no words', 'pull', 'aborted', 'TRANSFER_FAILED TRANSFER again'],
  ]
  for (const [name, mode, words, expected] of cases) {
    it(name, () => {
      const failure = classifyLastLine(mode, words)
      expect(summary(failure)).to.equal(expected)
      expect(failure).to.include({ phase: 'TRANSFER', message: words })
    })
  }
})

describe('exchanges without an answer', () => {
  it('are about the storage that was spoken to', () => {
    expect(summary(classifyHttpFailure(PULL, 'connect', 'm'))).to.equal('CONNECT_FAILED DESTINATION again')
    expect(summary(classifyHttpFailure(PUSH, 'timeout-headers', 'm'))).to.equal('TIMEOUT_HEADERS SOURCE again')
    expect(summary(classifyHttpFailure(at('HEAD', 'SOURCE'), 'tls', 'm'))).to.equal('TLS_FAILED SOURCE again')
    expect(summary(classifyHttpFailure(at('HEAD', 'SOURCE'), 'aborted', 'm'))).to.equal('CANCELLED GENERAL again')
  })
})

describe('what to do about a refused COPY', () => {
  const cases: [TransferCode, TransferScope, number | undefined, boolean, boolean][] = [
    ['DESTINATION_EXISTS', 'DESTINATION', 412, true, false],
    ['DESTINATION_CONFLICT', 'DESTINATION', 409, true, true],
    ['PARENT_MISSING', 'DESTINATION', 400, false, true],
    ['STORAGE_ERROR', 'DESTINATION', 500, true, false],
    ['STORAGE_ERROR', 'DESTINATION', 502, false, false],
    ['REQUEST_REFUSED', 'DESTINATION', 400, false, true],
    ['REQUEST_REFUSED', 'SOURCE', 400, false, false],
    ['NOT_FOUND', 'GENERAL', 404, false, true],
    ['SOURCE_MISSING', 'SOURCE', 404, false, false],
    ['CONNECT_FAILED', 'SOURCE', undefined, false, false],
  ]
  for (const [code, scope, httpStatus, exists, parent] of cases) {
    it(`${code} ${scope} ${httpStatus ?? ''}`, () => {
      const failure: TransferFailure = {
        code,
        scope,
        phase: 'PREPARATION',
        message: '',
        retryable: true,
        ...(httpStatus === undefined ? {} : { httpStatus }),
      }
      expect([mayExistAlready(failure), mayLackParent(failure)]).to.deep.equal([exists, parent])
    })
  }
})

describe('whatever a storage answers', () => {
  const WORDS = ['', 'no such file', 'file exists', 'no space left', 'status code 403', 'status code 507', 'parent']
  const ANYWHERE = ['HEAD', 'GET', 'POST', 'PROPFIND', 'POST /stage', 'POST /archiveinfo'] as const
  const requests: readonly Attempted[] = [
    ...ANYWHERE.flatMap(verb => (['SOURCE', 'DESTINATION'] as const).map(scope => ({ verb, scope }))),
    ...(['PUT', 'MKCOL', 'DELETE'] as const).map(verb => ({ verb, scope: 'DESTINATION' as const })),
  ]
  const fits = ({ code, scope, phase }: TransferFailure): boolean => {
    const { scopes, phases } = ERROR_CATALOGUE[code] as ErrorEntry
    return scopes.includes(scope) && phases.includes(phase)
  }
  const unfit = (failures: readonly (readonly [unknown, TransferFailure])[]) =>
    failures.filter(([, failure]) => !fits(failure)).map(([what, failure]) => `${what}: ${summary(failure)}`)

  it('to a request is told with a scope and a phase that its code has in the catalogue', () => {
    const answers = [PULL, PUSH, ...requests].flatMap(attempted =>
      WORDS.flatMap(words =>
        Array.from({ length: 300 }, (_, i) => {
          const failure = classifyAnswer(attempted, 300 + i, words)
          return [`${JSON.stringify(attempted)} ${300 + i} ${words}`, failure] as const
        }),
      ),
    )
    expect(unfit(answers)).to.deep.equal([])
  })

  it('at the end of a COPY, too', () => {
    const lines = (['pull', 'push'] as const).flatMap(mode =>
      [
        ...Array.from({ length: 200 }, (_, i) => `failure: Remote side failed with status code ${400 + i}`),
        ...[...WORDS, 'partial file', 'checksum', 'timed out', 'permission denied'].map(words => `failure: ${words}`),
      ].map(line => [`${mode} ${line}`, classifyLastLine(mode, line)] as const),
    )
    expect(unfit(lines)).to.deep.equal([])
  })
})
