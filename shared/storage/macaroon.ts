import type { TransferCode, TransferScope } from '../domain/error-catalogue.ts'
import { oneLine } from '../domain/one-line.ts'
import { Secret } from '../domain/secret.ts'
import { transferFailure } from './classify.ts'
import { orStorageError } from './files.ts'
import { activityFault } from './macaroon-packets.ts'
import { answeredFailure, type StorageDeps, send, timeoutsAt } from './send.ts'
import { type Macaroon, type StorageClient, StorageError } from './types.ts'
import { storageWords } from './words.ts'

/** dCache's answer holds the macaroon three times, beside addresses with it. */
const ANSWER_LIMIT_BYTES = 65_536
/** What an `Authorization: Bearer` can carry (RFC 6750 section 2.1), and servers take in a header. */
const BEARER = /^[\w.~+/-]{16,8192}={0,2}$/

/**
 * Statuses that say more here than elsewhere: XRootD without libXrdMacaroons answers 501 [seen, 5.5.3], with it 400 or 415 to
 * what it does not understand; no 404 is about the file, which nobody looks for.
 */
const CODES: Readonly<Record<number, TransferCode>> = {
  400: 'REQUEST_REFUSED',
  404: 'NOT_SUPPORTED',
  405: 'NOT_SUPPORTED',
  415: 'NOT_SUPPORTED',
  501: 'NOT_SUPPORTED',
}

/**
 * Asks a storage for a token of its own (facts/http-tpc.md section 7). The path is that of the request; XRootD refuses a
 * caveat for it since 5.9.6.
 */
export async function macaroon(
  deps: StorageDeps,
  ...parameters: Parameters<StorageClient['macaroon']>
): Promise<Macaroon> {
  const [url, token, { activity, lifeSeconds, signal, scope = 'GENERAL' }] = parameters
  const attempted = { verb: 'POST', scope } as const
  const body = JSON.stringify({ caveats: [`activity:${activity}`], validity: `PT${Math.ceil(lifeSeconds)}S` })
  const headers = { 'Content-Type': 'application/macaroon-request', 'Content-Length': String(Buffer.byteLength(body)) }
  const request = { method: 'POST', url, token, headers, body, signal, timeouts: timeoutsAt(deps, url) }
  const response = await orStorageError(attempted, () => send(deps, deps.client, request))
  if (response.status !== 200 && response.status !== 201) {
    const failure = await answeredFailure(attempted, response, [token])
    const code = CODES[response.status]
    const message = oneLine(`no macaroon: ${failure.message}`, 1000)
    if (code === undefined) throw new StorageError({ ...failure, message })
    throw refusal(code, scope, message, response.status)
  }
  const issued = issuedOf(await orStorageError(attempted, () => response.text(ANSWER_LIMIT_BYTES)))
  if (issued === undefined) throw refusal('PROTOCOL_VIOLATION', scope, 'no macaroon: the answer to POST holds none')
  const fault = activityFault(issued.macaroon, activity)
  // XRootD gives one to everybody, and in it the activities that nobody was granted are missing [seen, 5.5.3].
  if (fault === 'narrower') {
    throw refusal(
      'PERMISSION_DENIED',
      scope,
      `no macaroon: the one that the storage gives for this token lacks ${activity}`,
    )
  }
  if (fault === 'wider') {
    throw refusal(
      'PROTOCOL_VIOLATION',
      scope,
      `no macaroon: the one that the storage gives allows more than ${activity}`,
    )
  }
  return { token: new Secret(issued.macaroon), lifeSeconds: Math.min(issued.expiresIn ?? lifeSeconds, lifeSeconds) }
}

function refusal(code: TransferCode, scope: TransferScope, words: string, httpStatus?: number): StorageError {
  const more = httpStatus === undefined ? {} : { httpStatus }
  return new StorageError(transferFailure(code, scope, 'PREPARATION', storageWords(words), more))
}

/** What an answer holds; XRootD tells a life that it has shortened. */
function issuedOf(text: string): { macaroon: string; expiresIn: number | undefined } | undefined {
  const answer = parsed(text)
  if (typeof answer !== 'object' || answer === null || !('macaroon' in answer)) return undefined
  const { macaroon } = answer
  if (typeof macaroon !== 'string' || !BEARER.test(macaroon)) return undefined
  const told = 'expires_in' in answer ? answer.expires_in : undefined
  return { macaroon, expiresIn: typeof told === 'number' && told > 0 ? told : undefined }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
