import type { Secret } from '../domain/secret.ts'
import type { HttpResponse } from '../http/client.ts'
import { type Attempted, classifyAnswer, transferFailure } from './classify.ts'
import { orStorageError } from './files.ts'
import { OwnSpace } from './list-space.ts'
import { type Answered, MultistatusReader } from './multistatus.ts'
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
  const [url, token, { signal, scope = 'GENERAL', space = new OwnSpace() } = {}] = parameters
  const attempted: Attempted = { verb: 'PROPFIND', scope }
  const address = `${url.replace(/\/+$/, '')}/`
  const response = await propfind(deps, attempted, address, token, '1', signal)
  if (response.status !== 207) throw new StorageError(await answeredFailure(attempted, response, [token]))
  const reader = new MultistatusReader(space)
  const isRead = await orStorageError(attempted, () => reader.read(response.body))
  const broken = (code: 'REQUEST_REFUSED' | 'PROTOCOL_VIOLATION', words: string): StorageError =>
    new StorageError(transferFailure(code, scope, 'PREPARATION', words, { httpStatus: response.status }))
  if (!isRead) throw broken('REQUEST_REFUSED', 'the directory has more entries than there is memory for')
  if (!reader.isWhole) {
    throw broken('PROTOCOL_VIOLATION', 'PROPFIND answered with something else than a whole multistatus document')
  }
  const directory = decodeURIComponent(new URL(address).pathname)
    .replace(/\/{2,}/g, '/')
    .replace(/(?<=.)\/$/, '')
  // XRootD 5 writes paths as they are, later ones and all others percent-encoded: the directory's own tells, where it can.
  const seemsRaw = /^XrootD\/v?5\b/i.test(response.headers.server ?? '') || reader.looksRaw
  const raw = reader.names(directory, seemsRaw) ? seemsRaw : !seemsRaw
  const { itself, inIt, elsewhere } = sortOut(directory, reader.entries(raw))
  const [stray] = elsewhere
  if (stray !== undefined || itself === undefined) {
    const seen = stray === undefined ? 'not the directory itself' : JSON.stringify(stray.slice(0, 200))
    throw broken('PROTOCOL_VIOLATION', `PROPFIND of ${directory} lists ${seen}: does a proxy write other paths?`)
  }
  if (itself.status !== undefined && itself.status >= 300) {
    throw new StorageError(classifyAnswer(attempted, itself.status, ''))
  }
  if (!itself.directory && itself.size !== undefined) throw broken('REQUEST_REFUSED', 'it is a file, and no directory')
  return inIt.map(({ status, ...entry }) =>
    status === undefined || status < 300 ? entry : { ...entry, refused: classifyAnswer(attempted, status, '') },
  )
}

/** What a PROPFIND of depth 1 answered: a storage is not trusted to list that directory, and nothing else. */
export function sortOut(directory: string, entries: readonly Answered[]) {
  const below = directory === '/' ? '/' : `${directory}/`
  const sorted: { itself: Answered | undefined; inIt: Answered[]; elsewhere: string[] } = {
    itself: undefined,
    inIt: [],
    elsewhere: [],
  }
  for (const entry of entries) {
    const name = entry.path.startsWith(below) ? entry.path.slice(below.length) : ''
    if (entry.path === directory) sorted.itself = entry
    else if (name === '' || name === '.' || name === '..' || name.includes('/')) sorted.elsewhere.push(entry.path)
    else sorted.inIt.push(entry)
  }
  return sorted
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
