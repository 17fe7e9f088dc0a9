import type { WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { HttpClient } from '../shared/http/client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { defaultRedirectHosts } from '../shared/storage/redirects.ts'
import { createStorageClient } from '../shared/storage/storage-client.ts'
import type { StorageClient } from '../shared/storage/types.ts'

export interface StoragesOptions {
  /** Three pools of connections: for COPY, for COPY at storages that bear no kept connections, and for all else. */
  readonly copyClient: HttpClient
  readonly freshCopyClient: HttpClient
  readonly client: HttpClient
  readonly clock: Clock
}

/** The storage clients of the process, and where each storage may redirect to. */
export class Storages {
  readonly #kept: StorageClient
  readonly #fresh: StorageClient
  readonly #redirectHosts = new Map<string, readonly string[]>()
  /** Whose hosts are known; each claim describes its storages anew. */
  readonly #described = new WeakSet<object>()

  constructor({ copyClient, freshCopyClient, client, clock }: StoragesOptions) {
    const shared = { client, clock, redirectHosts: (host: string) => this.#redirectHosts.get(host) ?? [] }
    this.#kept = createStorageClient({ ...shared, copyClient })
    this.#fresh = createStorageClient({ ...shared, copyClient: freshCopyClient })
  }

  /** The client for a storage as the server described it. `url` is any address there. */
  client(storage: Pick<WorkerStorage, 'freshConnections' | 'redirectHosts'>, url: string): StorageClient {
    const { redirectHosts, freshConnections } = storage
    if (!this.#described.has(storage)) {
      const host = new URL(url).hostname
      this.#redirectHosts.set(host, redirectHosts.length > 0 ? redirectHosts : defaultRedirectHosts(host))
      this.#described.add(storage)
    }
    return freshConnections ? this.#fresh : this.#kept
  }
}
