import { createClient } from '../../shared/contract/client.ts'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { createIssuerClient } from '../../shared/oidc/issuer-client.ts'
import { createLogger } from '../../shared/runtime/logger.ts'
import { createRegistry } from '../../shared/runtime/metrics.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { ApiToken } from '../../worker/api-token.ts'
import { workerMetrics } from '../../worker/metrics.ts'
import { ModeMemory } from '../../worker/mode.ts'
import { workUntil } from '../../worker/sessions.ts'
import { Slots } from '../../worker/slots.ts'
import { Storages } from '../../worker/storages.ts'
import { AUDIENCE, type House } from '../house/house.ts'
import type { MadeTime } from './made-time.ts'
import { TroubledLine } from './troubled-line.ts'

const CONCURRENCY = 6
const SETTLE_MS = 2_000
const SHUTDOWN_MS = 5_000

export interface TroubledWorker {
  readonly line: TroubledLine
  /** Ends it: in order, or after `line.cut()` as a machine that lost its power. */
  stop(): Promise<void>
}

/** As `runWorker` does, but that all it sends goes through a line that can fail. */
export function startTroubledWorker(house: House, clock: MadeTime, name: string): TroubledWorker {
  const log = createLogger('test', 'debug', { write: house.onLog })
  const trust = createTrust({ path: house.sandbox.authority.caFile, defaultRoots: false, clock, log })
  const line = new TroubledLine(clock)
  const http = createGotClient({ trust })
  const pools = {
    copyClient: line.http(createAgentClient({ trust, clock })),
    freshCopyClient: line.http(createAgentClient({ trust, clock, fresh: true })),
    client: line.http(createAgentClient({ trust, clock })),
  }
  const { id, secret } = house.sandbox.clients.worker
  const issuer = createIssuerClient({
    url: house.sandbox.issuer,
    clientId: id,
    clientSecret: secret,
    authentication: 'basic',
    audienceParameter: 'audience',
    fetch: asFetch(line.issuerHttp(http)),
    clock,
    timeoutMs: 10_000,
  })
  const token = new ApiToken({ issuer, audience: AUDIENCE, scopes: ['wlcg'], clock })
  const stopping = new AbortController()
  const working = workUntil(stopping.signal, name, {
    api: line.api(createClient({ baseUrl: house.baseUrl, http: token.watching(http), token: () => token.get() })),
    issuers: new Map([[house.sandbox.issuer, issuer]]),
    storages: new Storages({ ...pools, clock }),
    modes: new ModeMemory(clock),
    clock,
    random: systemRandom,
    log,
    metrics: workerMetrics(createRegistry()),
    slots: new Slots(CONCURRENCY, clock),
    watchdogs: {},
    settleMs: SETTLE_MS,
    shutdownMs: SHUTDOWN_MS,
  })
  return {
    line,
    async stop() {
      stopping.abort()
      await working
      for (const client of [http, ...Object.values(pools)]) client.close()
    },
  }
}
