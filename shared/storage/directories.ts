import type { Secret } from '../domain/secret.ts'
import type { HttpResponse } from '../http/client.ts'
import { type Attempted, transferFailure } from './classify.ts'
import { orStorageError } from './files.ts'
import { MultistatusReader } from './multistatus.ts'
import { answeredFailure, type StorageDeps, send, timeoutsAt } from './send.ts'
import { type ListedEntry, type Options, type StorageClient, StorageError } from './types.ts'

/** So long a directory once seen counts as there: for the other transfers that go to it, not for ever. */
const REMEMBER_MS = 60_000
const REMEMBER_LIMIT = 10_000
const PROPERTIES =
  '<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/></D:prop></D:propfind>'

/** Makes directories. Many transfers to a new dataset arrive at once: one of them makes it, the others wait for that. */
export class DirectoryMaker {
  readonly #deps: StorageDeps
  /** Address to the time until which it counts as there, oldest first. */
  readonly #known = new Map<string, number>()
  readonly #underWay = new Map<string, Promise<void>>()

  constructor(deps: StorageDeps) {
    this.#deps = deps
  }

  async make(url: string, token: Secret | undefined, options: Pick<Options, 'scope'> = {}): Promise<void> {
    const address = url.replace(/\/+$/, '')
    const until = this.#known.get(address)
    if (until !== undefined && until > this.#deps.clock.monotonic()) return
    const waiting = this.#underWay.get(address)
    if (waiting !== undefined) return waiting
    const making = this.#make(address, token, options).finally(() => this.#underWay.delete(address))
    this.#underWay.set(address, making)
    await making
  }

  async #make(address: string, token: Secret | undefined, options: Pick<Options, 'scope'>): Promise<void> {
    const attempted: Attempted = { verb: 'MKCOL', scope: options.scope ?? 'GENERAL' }
    let response = await this.#mkcol(attempted, address, token)
    if (response.status === 404 || response.status === 409) {
      // StoRM and dCache: the parent is missing. XRootD 6: 409 when it exists (facts/http-tpc.md section 4).
      if (response.status === 409 && (await directoryExists(this.#deps, attempted, address, token))) {
        this.#remember(address)
        return
      }
      const parent = parentOf(address)
      if (parent === undefined) throw new StorageError(await answeredFailure(attempted, response, [token]))
      await this.make(parent, token, options)
      response = await this.#mkcol(attempted, address, token)
    }
    // 405: there is something of that name (RFC 4918 section 9.3.1); a file in its place shows in the transfer.
    if (![200, 201, 204, 405].includes(response.status)) {
      throw new StorageError(await answeredFailure(attempted, response, [token]))
    }
    this.#remember(address)
  }

  #mkcol(attempted: Attempted, url: string, token: Secret | undefined): Promise<HttpResponse> {
    return orStorageError(attempted, () =>
      send(this.#deps, this.#deps.client, {
        method: 'MKCOL',
        url: `${url}/`,
        token,
        timeouts: timeoutsAt(this.#deps, url),
      }),
    )
  }

  #remember(address: string): void {
    this.#known.delete(address)
    this.#known.set(address, this.#deps.clock.monotonic() + REMEMBER_MS)
    const oldest = this.#known.keys().next()
    if (this.#known.size > REMEMBER_LIMIT && !oldest.done) this.#known.delete(oldest.value)
  }
}

function parentOf(address: string): string | undefined {
  const url = new URL(address)
  const parent = url.pathname.replace(/\/[^/]*$/, '')
  return parent === '' ? undefined : `${url.origin}${parent}`
}

export async function list(
  deps: StorageDeps,
  ...parameters: Parameters<StorageClient['list']>
): Promise<ListedEntry[]> {
  const [url, token, { signal, scope = 'GENERAL' } = {}] = parameters
  const attempted: Attempted = { verb: 'PROPFIND', scope }
  const address = `${url.replace(/\/+$/, '')}/`
  const response = await propfind(deps, attempted, address, token, '1', signal)
  if (response.status !== 207) throw new StorageError(await answeredFailure(attempted, response, [token]))
  const reader = new MultistatusReader()
  const isRead = await orStorageError(attempted, () => reader.read(response.body))
  if (!isRead) {
    const words = 'the directory has more entries than can be listed, a million and more'
    throw new StorageError(transferFailure('REQUEST_REFUSED', scope, 'PREPARATION', words))
  }
  if (!reader.isWhole) {
    const words = 'PROPFIND answered with something else than a whole multistatus document'
    throw new StorageError(transferFailure('PROTOCOL_VIOLATION', scope, 'PREPARATION', words))
  }
  // XRootD 5 writes paths as they are, later ones and all others percent-encoded.
  const raw = /^XrootD\/v?5\b/i.test(response.headers.server ?? '')
  const directory = decodeURIComponent(new URL(address).pathname).replace(/\/{2,}/g, '/')
  const entries = reader.entries(raw)
  const itself = entries.find(({ path, size }) => `${path}/` === directory && size !== undefined)
  if (itself?.directory === false) {
    throw new StorageError(transferFailure('REQUEST_REFUSED', scope, 'PREPARATION', 'it is a file, and no directory'))
  }
  return entries.filter(
    ({ path }) =>
      path.startsWith(directory) && path.length > directory.length && !path.slice(directory.length).includes('/'),
  )
}

async function directoryExists(
  deps: StorageDeps,
  attempted: Attempted,
  url: string,
  token: Secret | undefined,
): Promise<boolean> {
  const response = await propfind(deps, attempted, `${url}/`, token, '0', undefined)
  void response.text(65_536).catch(() => undefined)
  return response.status === 207
}

function propfind(
  deps: StorageDeps,
  attempted: Attempted,
  url: string,
  token: Secret | undefined,
  depth: '0' | '1',
  signal: AbortSignal | undefined,
): Promise<HttpResponse> {
  const headers = {
    Depth: depth,
    'Content-Type': 'application/xml; charset="utf-8"',
    'Content-Length': String(PROPERTIES.length),
  }
  // A directory of 100,000 files takes its time.
  const timeouts = { ...timeoutsAt(deps, url), idle: 60_000, total: 600_000 }
  return orStorageError(attempted, () =>
    send(deps, deps.client, { method: 'PROPFIND', url, token, headers, body: PROPERTIES, signal, timeouts }),
  )
}
