import type { WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { HttpClient } from '../shared/http/client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { SharedSpace } from '../shared/storage/list-space.ts'
import { defaultRedirectHosts } from '../shared/storage/redirects.ts'
import type { Patience } from '../shared/storage/send.ts'
import { createStorageClient } from '../shared/storage/storage-client.ts'
import type { StorageClient } from '../shared/storage/types.ts'
import { watchdogsOf } from './watchdogs.ts'

export interface StoragesOptions {
  /** Three pools of connections: for COPY, for COPY at storages that bear no kept connections, and for all else. */
  readonly copyClient: HttpClient
  readonly freshCopyClient: HttpClient
  readonly client: HttpClient
  readonly clock: Clock
  /** Where a storage says nothing else. */
  readonly watchdogs?: Patience
}

/** The storage clients of the process, and where each storage may redirect to. */
export class Storages {
  /** Of all directories that are listed. */
  readonly lists = new SharedSpace()
  readonly #kept: StorageClient
  readonly #fresh: StorageClient
  readonly #redirectHosts = new Map<string, readonly string[]>()
  /** By host and port. */
  readonly #patience = new Map<string, Patience>()
  readonly #usual: Patience
  /** Which are known; each claim describes its storages anew. */
  readonly #described = new WeakSet<object>()

  constructor({ copyClient, freshCopyClient, client, clock, watchdogs = {} }: StoragesOptions) {
    this.#usual = watchdogs
    const shared = {
      client,
      clock,
      redirectHosts: (host: string) => this.#redirectHosts.get(host) ?? [],
      patience: (host: string) => this.#patience.get(host) ?? this.#usual,
    }
    this.#kept = createStorageClient({ ...shared, copyClient })
    this.#fresh = createStorageClient({ ...shared, copyClient: freshCopyClient })
  }

  /** The client for a storage as the server described it. `url` is any address there. */
  client(storage: Pick<WorkerStorage, 'freshConnections' | 'redirectHosts' | 'watchdogs'>, url: string): StorageClient {
    const { redirectHosts, freshConnections, watchdogs } = storage
    if (!this.#described.has(storage)) {
      const { hostname, host } = new URL(url)
      this.#redirectHosts.set(hostname, redirectHosts.length > 0 ? redirectHosts : defaultRedirectHosts(hostname))
      this.#patience.set(host, { ...this.#usual, ...watchdogsOf(watchdogs) })
      this.#described.add(storage)
    }
    return freshConnections ? this.#fresh : this.#kept
  }
}
