import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { expect } from 'chai'
import type { WatchdogSeconds } from '../../shared/contract/fields.ts'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { StorageError } from '../../shared/storage/types.ts'
import { Storages } from '../../worker/storages.ts'

/** A storage's own watchdogs hold for every request to it, of which the canary and the look come before any COPY. */
describe('a storage that takes connections and says nothing', () => {
  const sockets: Socket[] = []
  let server: Server
  const client = createAgentClient({ trust: createTrust({ defaultRoots: true, clock, log }), clock })

  before(async () => {
    server = createServer(socket => sockets.push(socket)).listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  after(() => {
    client.close()
    for (const socket of sockets) socket.destroy()
    server.close()
  })

  async function asked(scheme: string, own: WatchdogSeconds, usual = {}): Promise<{ code: string; ms: number }> {
    const storages = new Storages({ copyClient: client, freshCopyClient: client, client, clock, watchdogs: usual })
    const url = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}/f`
    const storage = storages.client({ freshConnections: false, redirectHosts: [], watchdogs: own }, url)
    const began = clock.monotonic()
    const error = await storage.head(url, undefined).catch((thrown: unknown) => thrown)
    if (!(error instanceof StorageError)) throw error
    return { code: error.failure.code, ms: clock.monotonic() - began }
  }

  for (const [what, scheme, own, usual, code] of [
    ['its time for a connection', 'https', { connectSeconds: 0.3 }, {}, 'TIMEOUT_CONNECT'],
    ['its time for an answer', 'http', { headersSeconds: 0.3 }, {}, 'TIMEOUT_HEADERS'],
    ['the worker’s, where it has none', 'http', {}, { headers: 300 }, 'TIMEOUT_HEADERS'],
    ['its own rather than the worker’s', 'http', { headersSeconds: 0.3 }, { headers: 60_000 }, 'TIMEOUT_HEADERS'],
  ] as const) {
    it(`gets ${what}: ${code}`, async () => {
      const found = await asked(scheme, own, usual)
      expect(found.code).to.equal(code)
      expect(found.ms).to.be.within(250, 10_000)
    })
  }
})
