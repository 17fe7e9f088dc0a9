import type { HttpClient } from '../http/client.ts'
import { DeadlineTimer } from '../http/deadlines.ts'
import type { Clock } from '../runtime/clock.ts'
import { copy } from './copy.ts'
import { DirectoryMaker, list } from './directories.ts'
import { get, head, put, remove } from './files.ts'
import { macaroon } from './macaroon.ts'
import { defaultRedirectHosts } from './redirects.ts'
import type { Patience, StorageDeps } from './send.ts'
import { stream } from './stream.ts'
import { createTapeClient } from './tape.ts'
import type { StorageClient } from './types.ts'

export interface StorageClientOptions {
  /** For COPY alone, and another for everything else: their connections must not mix (facts/http-tpc.md section 8). */
  copyClient: HttpClient
  /** Made by `createAgentClient`, so that uploads wait for `100 Continue`. */
  client: HttpClient
  clock: Clock
  /** Where the storage at `host` may redirect to: host names, or `.domain`. Default: its parent domain. */
  redirectHosts?: (host: string) => readonly string[]
  /** How long the storage at `host` (with its port) may take, where that is not as usual. */
  patience?: (host: string) => Patience
}

/**
 * Speaks to all storages of a process. It keeps no state but connections and, for minutes, which directories exist and where
 * tape APIs are.
 */
export function createStorageClient(options: StorageClientOptions): StorageClient {
  const { copyClient, client, clock, redirectHosts = defaultRedirectHosts, patience = () => ({}) } = options
  const deps: StorageDeps = { copyClient, client, clock, timer: new DeadlineTimer(clock), redirectHosts, patience }
  const directories = new DirectoryMaker(deps)
  return {
    head: (...parameters) => head(deps, ...parameters),
    get: (...parameters) => get(deps, ...parameters),
    put: (...parameters) => put(deps, ...parameters),
    remove: (...parameters) => remove(deps, ...parameters),
    list: (...parameters) => list(deps, ...parameters),
    mkcol: (...parameters) => directories.make(...parameters),
    macaroon: (...parameters) => macaroon(deps, ...parameters),
    copy: request => copy(deps, request),
    stream: request => stream(deps, request),
    tape: createTapeClient(deps),
  }
}
