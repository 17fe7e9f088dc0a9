import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { type Clock, systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { createStorageClient } from '../../shared/storage/storage-client.ts'
import type { StorageClient } from '../../shared/storage/types.ts'

/** What a played storage was asked: verb, path, and headers by the names they came with. */
export interface Asked {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

type Play = (request: IncomingMessage, response: ServerResponse) => void

/** Storages that play a part, and a client of them. `close` ends them all. */
export class Stage {
  readonly asked: Asked[] = []
  readonly client: StorageClient
  readonly #closing: (() => void)[] = []

  constructor(clock: Clock = systemClock, redirectHosts?: (host: string) => readonly string[]) {
    const trust = createTrust({ defaultRoots: true, clock: systemClock, log })
    const copyClient = createAgentClient({ trust, clock: systemClock })
    const client = createAgentClient({ trust, clock: systemClock })
    this.#closing.push(
      () => copyClient.close(),
      () => client.close(),
    )
    const options = { copyClient, client, clock, ...(redirectHosts === undefined ? {} : { redirectHosts }) }
    this.client = createStorageClient(options)
  }

  async storage(play: Play): Promise<string> {
    const server: Server = createServer((request, response) => {
      this.#note(request)
      request.on('error', () => undefined)
      play(request, response)
    })
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      this.#note(request)
      request.on('error', () => undefined)
      play(request, response)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    this.#closing.push(
      () => void server.close(),
      () => server.closeAllConnections(),
    )
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  close(): void {
    for (const close of this.#closing.splice(0)) close()
  }

  #note({ method = '', url = '', rawHeaders }: IncomingMessage): void {
    const headers: Record<string, string> = {}
    for (let i = 0; i < rawHeaders.length; i += 2) headers[rawHeaders[i] ?? ''] = rawHeaders[i + 1] ?? ''
    this.asked.push({ method, path: url, headers })
  }
}
