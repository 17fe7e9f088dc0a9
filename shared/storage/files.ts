import { pipeline, type Readable } from 'node:stream'
import type { TransferScope } from '../domain/error-catalogue.ts'
import type { Secret } from '../domain/secret.ts'
import type { HttpTimeouts } from '../http/client.ts'
import { type Attempted, transferFailure } from './classify.ts'
import { digestTimeout, parseDigests } from './digest.ts'
import { Meter } from './meter.ts'
import { answeredFailure, failureOf, type Outgoing, type StorageDeps, send, timeoutsAt } from './send.ts'
import { type Checksums, type FileStatus, type Options, type StorageClient, StorageError } from './types.ts'

/** Bytes may pause for so long while a file is read or written. */
const IDLE_MS = 60_000

/** Of an exchange whose body is the file: it takes as long as it moves. */
function bodyTimeouts({ connect, headers }: HttpTimeouts, idle: number): HttpTimeouts {
  return { connect, headers, idle }
}

type OpenedFile = { body: Readable; size: number | undefined }

export async function head(deps: StorageDeps, ...parameters: Parameters<StorageClient['head']>): Promise<FileStatus> {
  const [url, token, { wantDigest, expectedSize, signal, scope = 'GENERAL' } = {}] = parameters
  const attempted: Attempted = { verb: 'HEAD', scope }
  const answerMs = wantDigest === undefined ? 0 : digestTimeout(expectedSize)
  const response = await orStorageError(attempted, () =>
    send(deps, deps.client, {
      method: 'HEAD',
      url,
      token,
      signal,
      headers: wantDigest === undefined ? {} : { 'Want-Digest': wantDigest },
      timeouts: timeoutsAt(deps, url, answerMs),
    }),
  )
  if (response.status === 404 || response.status === 410) return { exists: false }
  if (response.status !== 200 && response.status !== 204) {
    throw new StorageError(await answeredFailure(attempted, response, [token]))
  }
  return { exists: true, size: lengthOf(response.headers), checksums: parseDigests(response.headers) }
}

export function get(deps: StorageDeps, ...parameters: Parameters<StorageClient['get']>): Promise<OpenedFile> {
  const [url, token, options = {}] = parameters
  return openFile(deps, url, token, { ...options, timeouts: bodyTimeouts(timeoutsAt(deps, url), IDLE_MS) })
}

export async function openFile(
  deps: StorageDeps,
  url: string,
  token: Secret | undefined,
  options: Options & { range?: { first: number; last: number }; timeouts: HttpTimeouts },
): Promise<OpenedFile> {
  const { range, signal, scope = 'GENERAL', timeouts } = options
  const attempted: Attempted = { verb: 'GET', scope }
  const response = await orStorageError(attempted, () =>
    send(deps, deps.client, {
      method: 'GET',
      url,
      token,
      signal,
      headers: range === undefined ? {} : { Range: `bytes=${range.first}-${range.last}` },
      timeouts,
    }),
  )
  if (response.status === (range === undefined ? 200 : 206)) {
    const from = /^bytes (\d+)-/.exec(response.headers['content-range'] ?? '')?.[1]
    if (range === undefined || Number(from) === range.first) {
      return { body: response.body, size: lengthOf(response.headers) }
    }
  }
  if (response.status === 200 || response.status === 206) {
    response.body.destroy()
    const words = 'GET answered with another range than was asked for'
    throw new StorageError(transferFailure('PROTOCOL_VIOLATION', scope, 'PREPARATION', words))
  }
  throw new StorageError(await answeredFailure(attempted, response, [token]))
}

export async function put(deps: StorageDeps, ...parameters: Parameters<StorageClient['put']>): Promise<Checksums> {
  const [url, token, body, size, { overwrite, signal, scope = 'GENERAL' }] = parameters
  // Storages sum a file when it is closed: the answer may take as long as a checksum.
  const timeouts = bodyTimeouts(timeoutsAt(deps, url, digestTimeout(size)), Math.max(IDLE_MS, digestTimeout(size)))
  const meter = new Meter(size, () => undefined)
  // Its outcome is the meter's, which is what is sent.
  pipeline(body, meter, () => undefined)
  try {
    if (!overwrite) await refuseExisting(deps, url, token, { signal, scope })
    await orStorageError({ verb: 'PUT', scope }, () =>
      sendFile(deps, meter, { url, token, size, signal, scope, timeouts }),
    )
  } catch (error) {
    meter.destroy()
    throw meter.errored instanceof StorageError ? meter.errored : error
  }
  return meter.checksums()
}

export interface SentFile extends Pick<Outgoing, 'url' | 'token' | 'signal' | 'timeouts'> {
  readonly size: number
  readonly scope: TransferScope
}

/** PUT, body to come once the storage has said so: a redirect to a pool arrives before the first byte is sent. */
export async function sendFile(deps: StorageDeps, meter: Meter, file: SentFile): Promise<void> {
  const { url, token, size, signal, scope, timeouts } = file
  const headers = {
    'Content-Length': String(size),
    'Content-Type': 'application/octet-stream',
    ...(size > 0 ? { Expect: '100-continue' } : {}),
  }
  const response = await send(deps, deps.client, { method: 'PUT', url, token, headers, body: meter, signal, timeouts })
  if (response.status !== 200 && response.status !== 201 && response.status !== 204) {
    throw new StorageError(await answeredFailure({ verb: 'PUT', scope }, response, [token]))
  }
  await response.text(4096)
  // A storage that is content before the whole file was sent has stored something else. The last byte may have gone out
  // while the meter's own end is still to come.
  if (meter.bytes - meter.readableLength < size) {
    throw new StorageError(
      transferFailure('PROTOCOL_VIOLATION', scope, 'TRANSFER', 'PUT ended before the file was sent'),
    )
  }
}

/** Throws `DESTINATION_EXISTS` when there is a file already. */
export async function refuseExisting(
  deps: StorageDeps,
  url: string,
  token: Secret | undefined,
  { signal, scope }: { signal: AbortSignal | undefined; scope: TransferScope },
): Promise<void> {
  const found = await head(deps, url, token, { scope, ...(signal === undefined ? {} : { signal }) })
  if (!found.exists) return
  throw new StorageError(transferFailure('DESTINATION_EXISTS', scope, 'PREPARATION', 'there is a file already'))
}

export async function remove(
  deps: StorageDeps,
  ...parameters: Parameters<StorageClient['remove']>
): Promise<{ existed: boolean }> {
  const [url, token, { signal, scope = 'GENERAL' } = {}] = parameters
  const attempted: Attempted = { verb: 'DELETE', scope }
  const response = await orStorageError(attempted, () =>
    send(deps, deps.client, { method: 'DELETE', url, token, signal, timeouts: timeoutsAt(deps, url) }),
  )
  if (response.status === 404 || response.status === 410) return { existed: false }
  if (response.status === 200 || response.status === 202 || response.status === 204) return { existed: true }
  throw new StorageError(await answeredFailure(attempted, response, [token]))
}

/** Runs an exchange; what it throws becomes a `StorageError`. */
export async function orStorageError<T>(attempted: Attempted, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw new StorageError(failureOf(attempted, error))
  }
}

function lengthOf(headers: Readonly<Record<string, string>>): number | undefined {
  const length = headers['content-length']
  return length !== undefined && /^\d{1,15}$/.test(length) ? Number(length) : undefined
}
