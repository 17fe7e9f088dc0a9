import { expect } from 'chai'
import { type Attempted, classifyAnswer, classifyLastLine } from '../../shared/storage/classify.ts'

const REMOTE = 'https://se.example.org:8443/a'
const NAMED = `local=/exp/a, remote=${REMOTE}`
const RELAYED = 'while fetching file size'
const SIZE = 'while fetching remote size'
const STALLED = 'failure: Error when interacting with local filesystem: Transfer failed because no bytes have been'
const TRUNCATED = 'Premature end of Content-Length delimited message body (expected: 9; received: 4)'

/**
 * Whole answers, word for word: [seen] from XRootD 5.5.3 (facts/http-tpc.md section 5), the others as the sources that the
 * facts name put them together (`sandbox/storage/dialects.ts`).
 */
describe('what storages say in full', () => {
  type Row = readonly [
    storage: string,
    mode: 'pull' | 'push',
    status: number | undefined,
    words: string,
    failure: string,
    retryable: boolean,
  ]
  const rows: readonly Row[] = [
    [
      'XRootD 6.1: source missing',
      'pull',
      404,
      `failure: HTTP response code said error: remote host returned '404 Not Found' ${RELAYED}, ${NAMED}, HTTP library failure=HTTP response code said error`,
      'SOURCE_MISSING SOURCE',
      false,
    ],
    [
      'XRootD 6.1: source refuses',
      'pull',
      403,
      `failure: HTTP response code said error: remote host returned '403 Forbidden' ${RELAYED}, ${NAMED}, HTTP library failure=HTTP response code said error`,
      'PERMISSION_DENIED SOURCE',
      false,
    ],
    [
      'XRootD 6.1: source does not answer',
      'pull',
      500,
      `failure: Couldn't connect to server: internal server failure, ${NAMED}, HTTP library failure=Couldn't connect to server`,
      'CONNECT_FAILED SOURCE',
      true,
    ],
    [
      'XRootD 6.1: exists',
      'pull',
      409,
      `failure: Unable to create /exp/a; file exists, ${NAMED}`,
      'DESTINATION_EXISTS DESTINATION',
      false,
    ],
    [
      'XRootD 6.1: cut off',
      'pull',
      undefined,
      `failure: Internal transfer failure, ${NAMED}, HTTP library failure=Transferred a partial file`,
      'SOURCE_CUT_OFF SOURCE',
      true,
    ],
    [
      'XRootD 6.1: stall of a push',
      'push',
      undefined,
      `${STALLED} transmitted to the destination (push mode) in 60 seconds., ${NAMED}`,
      'TIMEOUT_NO_PROGRESS TRANSFER',
      true,
    ],
    [
      'XRootD 5.8, EOS: source missing',
      'pull',
      500,
      `failure: Remote side se.example.org failed with status code 404 ${SIZE}, ${NAMED}`,
      'SOURCE_MISSING SOURCE',
      false,
    ],
    [
      'XRootD 5.8, EOS: source does not answer',
      'pull',
      500,
      `failure: Internal transfer failure ${SIZE}, ${NAMED}, HTTP library failure=Couldn't connect to server`,
      'CONNECT_FAILED SOURCE',
      true,
    ],
    [
      'EOS: over quota (xrootd issue 2591)',
      'pull',
      400,
      'Unable to get quota space - quota not defined or exhausted /eos/a; Disk quota exceeded',
      'DESTINATION_FULL DESTINATION',
      true,
    ],
    [
      'XRootD 5.5.3: stall [seen]',
      'pull',
      undefined,
      `${STALLED} received in 20 seconds.`,
      'TIMEOUT_NO_PROGRESS TRANSFER',
      true,
    ],
    [
      'XRootD 5.5.3: no space for all of it [seen]',
      'pull',
      undefined,
      'failure: Error when interacting with local filesystem: Unknown filesystem write failure.',
      'DESTINATION_FULL DESTINATION',
      true,
    ],
    [
      'StoRM: source missing',
      'pull',
      undefined,
      `failure: Error fetching ${REMOTE}: 404 status code: 404, reason phrase: Not Found`,
      'SOURCE_MISSING SOURCE',
      false,
    ],
    [
      'StoRM: exists',
      'push',
      undefined,
      `failure: TransferError while pushing ${REMOTE}: Remote file exists and overwrite is false`,
      'DESTINATION_EXISTS DESTINATION',
      false,
    ],
    [
      'StoRM: may not look',
      'push',
      undefined,
      `failure: TransferError while pushing ${REMOTE}: Error checking if remote file exists: 403 Forbidden`,
      'PERMISSION_DENIED DESTINATION',
      false,
    ],
    [
      'StoRM: cut off',
      'pull',
      undefined,
      `failure: ConnectionClosedException while fetching ${REMOTE}: ${TRUNCATED}`,
      'SOURCE_CUT_OFF SOURCE',
      true,
    ],
    [
      'StoRM: stall',
      'pull',
      undefined,
      `failure: SocketTimeoutException while fetching ${REMOTE}: Read timed out`,
      'TIMEOUT_NO_PROGRESS TRANSFER',
      true,
    ],
    [
      'StoRM: no space',
      'pull',
      undefined,
      `failure: IOException while fetching ${REMOTE}: No space left on device`,
      'DESTINATION_FULL DESTINATION',
      true,
    ],
    ['StoRM: parent missing', 'pull', 409, 'Parent resource does not exist', 'PARENT_MISSING DESTINATION', true],
    ['dCache: no space', 'pull', undefined, 'failure: All pools are full', 'DESTINATION_FULL DESTINATION', true],
    [
      'dCache: a reservation is full',
      'pull',
      undefined,
      'failure: No space available.',
      'DESTINATION_FULL DESTINATION',
      true,
    ],
    [
      'dCache: stall',
      'pull',
      undefined,
      'failure: socket timeout on GET (received 4 B of data; 0 B pending): Read timed out',
      'TIMEOUT_NO_PROGRESS TRANSFER',
      true,
    ],
    ['dCache: cut off', 'pull', undefined, `failure: ${TRUNCATED}`, 'SOURCE_CUT_OFF SOURCE', true],
  ]
  for (const [storage, mode, status, words, expected, retryable] of rows) {
    it(`${storage}, ${mode}: ${expected}`, () => {
      const attempted: Attempted = { verb: 'COPY', mode }
      const failure = status === undefined ? classifyLastLine(mode, words) : classifyAnswer(attempted, status, words)
      expect(`${failure.code} ${failure.scope}`).to.equal(expected)
      expect(failure.retryable).to.equal(retryable)
      expect(failure.phase).to.equal(status === undefined ? 'TRANSFER' : 'PREPARATION')
    })
  }
})
