import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import { asFetch } from '../shared/http/fetch.ts'
import { createGotClient } from '../shared/http/got-client.ts'
import { createTrust } from '../shared/http/trust.ts'
import { createIssuerClient, type Fetch } from '../shared/oidc/issuer-client.ts'
import { createBearerVerifier } from '../shared/oidc/verify-bearer.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import { startMetricsListener } from '../shared/runtime/metrics.ts'
import type { Random } from '../shared/runtime/random.ts'
import { type Service, startAll } from '../shared/runtime/services.ts'
import { version } from '../shared/runtime/version.ts'
import { authenticator } from './accounts/authenticate.ts'
import { idempotencyPruner } from './accounts/idempotency.ts'
import { listMappings } from './accounts/mapping-store.ts'
import { idleConfinements, type WorkerPool, workerPools } from './accounts/pools.ts'
import { ensureVo } from './accounts/store.ts'
import { Vos } from './accounts/vos.ts'
import { createHandlers } from './api.ts'
import { type AppOptions, createApp } from './app.ts'
import type { ServerConfig } from './config.ts'
import type { Database } from './database/database.ts'
import { clockKeeper, DatabaseClock } from './database/database-clock.ts'
import { fenceBase } from './database/epoch.ts'
import { openDatabase } from './database/open.ts'
import { reaper } from './deletion/reaper.ts'
import { recoverer } from './faults/recover.ts'
import { Kept } from './kept.ts'
import { createServerMetrics, type ServerMetrics } from './metrics.ts'
import { ruleAligner } from './rules/align.ts'
import { ruleEvaluator } from './rules/evaluate.ts'
import { ruleHistoryPruner, ruleNoter, ruleReplacer } from './rules/history.ts'
import { ruleExpirer, ruleRepairer } from './rules/upkeep.ts'
import { StorageDirectory } from './storages/directory.ts'
import { listLinks } from './storages/store.ts'
import { stagingKeeper } from './tape/staging.ts'
import { expireForeignGrants } from './tokens/expire.ts'
import { ensureIssuer, type Issuer, Issuers } from './tokens/issuers.ts'
import { grantExpirer, minters } from './tokens/minter.ts'
import { grantPlanner } from './tokens/planner.ts'
import { loadVault } from './tokens/seal.ts'
import { countUnopened, type TokenContext } from './tokens/tokens.ts'
import { hopKeeper } from './transfers/hops.ts'
import { linkOptimizer } from './transfers/optimize.ts'
import { transferReleaser } from './transfers/plan.ts'
import { replanner } from './transfers/replan.ts'
import { sessionReaper } from './transfers/sessions.ts'
import { sourceSetKeeper } from './transfers/source-sets.ts'
import { type Topic, Wake } from './wake.ts'

export interface ServerRuntime {
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  /** For tests that hold the time: `clock` counts, whatever the database's own says. */
  readonly holdsTime?: boolean
  /** For tests. */
  readonly answers?: Pick<AppOptions, 'checkAnswers' | 'onAnswer'>
}

export interface RunningServer {
  /** Of the API. */
  readonly port: number
  /** Where Prometheus finds the figures; undefined without a listener. */
  readonly metricsPort: number | undefined
  /** Takes no more requests, finishes those under way and the background work, and closes the database. */
  stop(): Promise<void>
}

/** For one request to an issuer. IAM has taken 20 s (facts/tokens.md section 2). */
const ISSUER_TIMEOUT_MS = 30_000

/** The rules server: the API, and the services that work in its background. Resolves when it takes requests. */
export async function runServer(config: ServerConfig, runtime: ServerRuntime): Promise<RunningServer> {
  const { random, log, answers } = runtime
  const db = openDatabase(config.database)
  await db.migrate()
  const databaseClock =
    db.time && runtime.holdsTime !== true ? await DatabaseClock.start(runtime.clock, db.time, log) : undefined
  const clock = databaseClock ?? runtime.clock
  const trust = createTrust({ ...(config.ca === undefined ? {} : { path: config.ca }), defaultRoots: true, clock, log })
  const http = createGotClient({ trust })
  const fetch = asFetch(http)
  const notifications = db.notifications?.(word => wake.heard(word as Topic), clock, log)
  const wake: Wake = new Wake(topic => notifications?.say(topic))
  const metrics = createServerMetrics(db, clock)
  const vos = await declareVos(db, config)
  const context: TokenContext = {
    clock,
    random,
    log,
    db,
    storages: new StorageDirectory(db.read, clock),
    wake,
    issuers: await declareIssuers(db, config, vos, fetch, clock, metrics),
    vault: await loadVault(config.vault.keyFile, random),
    autonomyMs: config.autonomySeconds * 1000,
  }
  const unopened = await countUnopened(context)
  if (unopened > 0) {
    log.error(
      { keyFile: config.vault.keyFile, grants: unopened },
      'the vault key does not open tokens in the database: all servers need one key; what another has sealed is of no use here until it ends',
    )
  }
  const foreign = await db.write(executor => expireForeignGrants(executor, context.issuers.all()))
  if (foreign > 0) log.warn({ grants: foreign }, 'grants of clients that are configured no more are given up')
  const { maxAttempts, soonSeconds, laterSeconds, maxDelaySeconds } = config.retry
  const worker = {
    leaseSeconds: config.sessionLeaseSeconds,
    retry: { maxAttempts, soon: soonSeconds * 1000, later: laterSeconds * 1000, maxDelay: maxDelaySeconds * 1000 },
    fenceBase: fenceBase(await db.epoch()),
    metrics,
  }
  const verifier = createBearerVerifier({
    issuers: config.apiIssuers.map(url => ({ url, audience: config.audience })),
    fetch,
    clock,
    timeoutMs: ISSUER_TIMEOUT_MS,
  })
  const pools = workerPools(config, vos)
  for (const sentence of await confinementsInVain(context, pools)) log.warn({}, sentence)
  const mappings = new Kept(clock, () => listMappings(db.read))
  let ready = false
  const underway = new Set<Promise<void>>()
  const app = createApp({
    handlers: createHandlers(context, { vos, apiIssuers: config.apiIssuers, pools, mappings, worker, version }),
    authenticate: authenticator(context, verifier, config, pools, mappings),
    ...answers,
    log,
    random,
    elapsed: () => clock.monotonic() / 1000,
    ready: () => ready,
    onWork: work => {
      const over = () => underway.delete(work)
      underway.add(work)
      work.then(over, over)
    },
    onRequest: (route, status, seconds) => metrics.observeRequest(route, status, seconds),
  })
  const keepers = [
    ...(databaseClock ? [clockKeeper(databaseClock, log)] : []),
    ...(notifications ? [notifications] : []),
  ]
  const stopServices = await startAll([...keepers, ...services(context, config)], log)
  const listener = config.metrics && (await startMetricsListener({ ...config.metrics, registry: metrics.registry }))
  const server = createServer(
    { cert: await readFile(config.tls.certificate), key: await readFile(config.tls.key), minVersion: 'TLSv1.2' },
    (request, response) => {
      // Who goes on asking on a kept connection would keep the server from stopping.
      if (!ready) response.setHeader('Connection', 'close')
      app(request, response)
    },
  )
  const port = await listen(server, config.listen)
  ready = true
  log.info({ host: config.listen.host, port, version }, 'the rules server takes requests')
  return {
    port,
    metricsPort: listener?.port,
    async stop() {
      ready = false
      // Claims that wait for work end at once: whoever waits gets an empty answer.
      context.wake.close()
      await close(server)
      // Those whose callers have hung up hold no connection, but use the database.
      await Promise.allSettled(underway)
      await stopServices()
      await listener?.stop()
      http.close()
      await db.close()
    },
  }
}

function services(context: TokenContext, { deletion }: ServerConfig): Service[] {
  return [
    ruleEvaluator(context),
    ruleExpirer(context),
    ruleRepairer(context),
    ruleAligner(context),
    ruleReplacer(context),
    ruleNoter(context),
    ruleHistoryPruner(context),
    grantPlanner(context),
    ...minters(context),
    grantExpirer(context),
    transferReleaser(context),
    hopKeeper(context),
    sourceSetKeeper(context),
    replanner(context),
    linkOptimizer(context),
    sessionReaper(context),
    stagingKeeper(context),
    recoverer(context),
    reaper(context, deletion.graceSeconds * 1000),
    idempotencyPruner(context),
  ]
}

async function declareVos(db: Database, config: ServerConfig): Promise<Vos> {
  const vos = []
  for (const { name, issuers } of config.vos) {
    const id = await db.write(executor => ensureVo(executor, name))
    vos.push({ id, name, issuers: issuers.map(issuer => issuer.url) })
  }
  return new Vos(vos)
}

async function declareIssuers(
  db: Database,
  config: ServerConfig,
  vos: Vos,
  fetch: Fetch,
  clock: Clock,
  metrics: ServerMetrics,
): Promise<Issuers> {
  const issuers: Issuer[] = []
  for (const vo of config.vos) {
    for (const issuer of vo.issuers) {
      const id = await db.write(executor => ensureIssuer(executor, issuer.url))
      const client = createIssuerClient({
        ...issuer,
        fetch,
        clock,
        timeoutMs: ISSUER_TIMEOUT_MS,
        onRequest: (grantType, outcome, seconds) =>
          metrics.countTokenRequest({ issuer: issuer.url, grantType, outcome, seconds }),
      })
      issuers.push({ ...issuer, id, voId: vos.named(vo.name).id, client })
    }
  }
  return new Issuers(issuers)
}

async function confinementsInVain({ db, storages }: TokenContext, pools: readonly WorkerPool[]): Promise<string[]> {
  const names = new Map((await storages.all()).map(rse => [rse.id, rse.name]))
  const links = (await listLinks(db.read)).map(link => ({
    source: names.get(link.source_rse_id) ?? '',
    destination: names.get(link.destination_rse_id) ?? '',
  }))
  return idleConfinements(pools, [...names.values()], links)
}

async function listen(server: Server, { host, port }: { host: string; port: number }): Promise<number> {
  server.listen(port, host)
  await once(server, 'listening')
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}

async function close(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeIdleConnections()
  await closed
}
