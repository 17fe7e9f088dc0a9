import { createClient } from '../shared/contract/client.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { createAgentClient } from '../shared/http/agent-client.ts'
import type { HttpClient } from '../shared/http/client.ts'
import { asFetch } from '../shared/http/fetch.ts'
import { createGotClient } from '../shared/http/got-client.ts'
import { createTrust, type Trust } from '../shared/http/trust.ts'
import { createIssuerClient, type IssuerClient } from '../shared/oidc/issuer-client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import { createRegistry, startMetricsListener } from '../shared/runtime/metrics.ts'
import type { Random } from '../shared/runtime/random.ts'
import { ApiToken } from './api-token.ts'
import type { WorkerConfig } from './config.ts'
import type { WorkOptions } from './loop.ts'
import { type WorkerMetrics, workerMetrics } from './metrics.ts'
import { ModeMemory } from './mode.ts'
import { ISSUER_TIMEOUT_MS } from './renew.ts'
import type { WorkerApi } from './server.ts'
import { workUntil } from './sessions.ts'
import { Slots } from './slots.ts'
import { Storages } from './storages.ts'
import { watchdogsOf } from './watchdogs.ts'

export interface WorkerRuntime {
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
}

export interface RunningWorker {
  /** Where Prometheus finds the figures; undefined without a listener. */
  readonly metricsPort: number | undefined
  /** Stops claiming, gives attempts the configured time, reports all that ended, and resolves when nothing runs any more. */
  stop(): Promise<void>
}

/** What the worker's own token says beside its audience: that it follows the WLCG profile. No storage takes it. */
const API_SCOPES = ['wlcg']

/** A transfer worker: it needs outbound HTTPS and nothing else. Resolves when it has begun; the server may come later. */
export async function runWorker(config: WorkerConfig, runtime: WorkerRuntime): Promise<RunningWorker> {
  const { clock, log } = runtime
  const registry = createRegistry()
  const metrics = workerMetrics(registry)
  const trust = createTrust({ ...(config.ca === undefined ? {} : { path: config.ca }), defaultRoots: true, clock, log })
  const http = createGotClient({ trust })
  const pools = storagePools(trust, config.concurrency, clock)
  const issuers = issuerClients(config, http, clock, metrics)
  const options: WorkOptions = {
    ...runtime,
    api: serverClient(config, http, issuers, clock),
    issuers,
    storages: new Storages({ ...pools, clock, watchdogs: watchdogsOf(config.watchdogs) }),
    modes: new ModeMemory(clock),
    metrics,
    slots: new Slots(config.concurrency, clock),
    watchdogs: watchdogsOf(config.watchdogs),
    settleMs: config.settleSeconds * 1000,
    shutdownMs: config.shutdownSeconds * 1000,
  }
  const listener = config.metrics && (await startMetricsListener({ ...config.metrics, registry }))
  const stopping = new AbortController()
  const working = workUntil(stopping.signal, config.name, options)
  return {
    metricsPort: listener?.port,
    async stop() {
      stopping.abort()
      await working
      for (const client of [http, ...Object.values(pools)]) client.close()
      await listener?.stop()
    },
  }
}

function serverClient(
  { server, audience, apiIssuer }: WorkerConfig,
  http: HttpClient,
  issuers: ReadonlyMap<string, IssuerClient>,
  clock: Clock,
): WorkerApi {
  const issuer = issuers.get(apiIssuer)
  if (issuer === undefined) throw new WaybillError('CONFIG_INVALID', `apiIssuer: ${apiIssuer} is not among the issuers`)
  const token = new ApiToken({ issuer, audience, scopes: API_SCOPES, clock })
  return createClient({
    baseUrl: server,
    http: token.watching(http),
    token: () => token.get(),
    userAgent: 'waybill-worker',
  })
}

/** COPY never shares a connection with other verbs (facts/http-tpc.md section 8). */
function storagePools(trust: Trust, maxSockets: number, clock: Clock) {
  const pool = { trust, maxSockets, clock }
  return {
    copyClient: createAgentClient(pool),
    freshCopyClient: createAgentClient({ ...pool, fresh: true }),
    client: createAgentClient(pool),
  }
}

function issuerClients(
  { issuers }: WorkerConfig,
  http: HttpClient,
  clock: Clock,
  metrics: WorkerMetrics,
): ReadonlyMap<string, IssuerClient> {
  const shared = { fetch: asFetch(http), clock, timeoutMs: ISSUER_TIMEOUT_MS }
  return new Map(
    issuers.map(issuer => [
      issuer.url,
      createIssuerClient({ ...shared, ...issuer, onRequest: metrics.tokenRequests(issuer.url) }),
    ]),
  )
}
