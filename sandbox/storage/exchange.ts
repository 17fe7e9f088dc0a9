import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpClient } from '../../shared/http/client.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import type { Logger } from '../../shared/runtime/logger.ts'
import { type Capability, parsePath } from '../wlcg.ts'
import { type Operation, permits } from './authorize.ts'
import type { Behaviour } from './behaviour.ts'
import type { Asked } from './dialect.ts'
import type { FileTree } from './file-tree.ts'
import { Refusal } from './refusal.ts'
import type { TapeFront } from './tape.ts'

/** What the verbs of one storage share. */
export interface Storage {
  readonly name: string
  readonly url: string
  readonly files: FileTree
  readonly behaviour: Behaviour
  /** Absent: a storage without tape. */
  readonly tape: TapeFront | undefined
  /** For the other side of a third-party copy. */
  readonly http: HttpClient
  /** Aborts when the storage stops, for work that outlives its client. */
  readonly stopping: AbortSignal
  readonly clock: Clock
  readonly log: Logger
}

/** One request whose token is valid. */
export class Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Decoded segments. */
  readonly path: readonly string[]
  readonly #capabilities: readonly Capability[]

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    path: readonly string[],
    capabilities: readonly Capability[],
  ) {
    this.request = request
    this.response = response
    this.path = path
    this.#capabilities = capabilities
  }

  /** A header that may be there once. Names are taken in any case. */
  header(name: string): string | undefined {
    const value = this.request.headers[name.toLowerCase()]
    return Array.isArray(value) ? value.join(', ') : value
  }

  permits(operation: Operation, path = this.path): boolean {
    return permits(this.#capabilities, operation, path)
  }

  /** Throws 403 unless the operation is granted. */
  demand(operation: Operation, path = this.path): void {
    if (!this.permits(operation, path)) {
      throw new Refusal(403, `the token does not grant ${operation} on /${path.join('/')}`, {}, 'forbidden')
    }
  }

  /** Throws 403 unless it may be told what lies here. */
  demandLook({ behaviour }: Storage): void {
    this.demand(behaviour.looksNeedRead ? 'read' : 'stat')
  }

  /** What a dialect words its refusals with. */
  get asked(): Asked {
    const source = this.header('source')
    const destination = this.header('destination')
    const mode = source !== undefined ? 'pull' : destination !== undefined ? 'push' : undefined
    return {
      verb: this.request.method ?? '',
      mode,
      path: `/${this.path.join('/')}`,
      remote: source ?? destination ?? '',
    }
  }

  /** Whether the copy must fail where the other side tells no checksum: dCache, unless it is told otherwise. */
  requiresChecksum({ behaviour }: Storage): boolean {
    const wanted = this.header('requirechecksumverification')?.trim().toLowerCase() ?? 'true'
    return behaviour.wantsChecksum && wanted !== 'false'
  }

  /** RFC 4918 section 10.6: T unless it says otherwise. */
  get mayOverwrite(): boolean {
    const overwrite = this.header('overwrite')?.trim().toUpperCase() ?? 'T'
    if (overwrite !== 'T' && overwrite !== 'F') throw new Refusal(400, 'Overwrite must be T or F')
    return overwrite === 'T'
  }

  get expectsContinue(): boolean {
    return this.header('expect')?.toLowerCase() === '100-continue'
  }

  isLocal(storage: Storage, address: string | undefined): boolean {
    return (
      address !== undefined &&
      URL.canParse(address, storage.url) &&
      new URL(address, storage.url).origin === storage.url
    )
  }

  /**
   * The path in a `Destination` on this very storage. Throws 400, and 502 for another host (RFC 4918 section 9.9.4).
   */
  localDestination(storage: Storage): string[] {
    const destination = this.header('destination')
    if (destination === undefined) throw new Refusal(400, 'Destination is missing')
    if (!this.isLocal(storage, destination)) throw new Refusal(502, 'Destination is not on this storage')
    return pathOf(destination.replace(/^[a-z]+:\/\/[^/]*/i, ''))
  }

  /** The same request, as one for another path. */
  to(path: readonly string[]): Exchange {
    return new Exchange(this.request, this.response, path, this.#capabilities)
  }

  answer(status: number, text: string, headers: Record<string, string | number> = {}): void {
    const body = text === '' ? '' : `${text}\n`
    this.response.writeHead(status, {
      ...(body !== '' && { 'Content-Type': 'text/plain; charset=utf-8' }),
      ...(status !== 204 && { 'Content-Length': Buffer.byteLength(body) }),
      ...headers,
    })
    this.response.end(this.request.method === 'HEAD' ? '' : body)
  }
}

/** Decoded segments of a request's target. Throws 400. */
export function pathOf(target: string): string[] {
  const path = parsePath(target.replace(/[?#].*$/s, ''))
  if (!path.ok) throw new Refusal(400, path.reason)
  return path.value
}
