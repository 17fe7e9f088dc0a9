import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  prepareSandbox,
  type RunningIssuer,
  type RunningStorage,
  type Sandbox,
  type StartIssuerOptions,
  type StartStorageOptions,
  startIssuer,
  startStorage,
} from '../../sandbox/main.ts'
import { readServerConfig } from '../../server/config.ts'
import { type RunningServer, runServer } from '../../server/main.ts'
import { type Client, createClient } from '../../shared/contract/client.ts'
import type { Secret } from '../../shared/domain/secret.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { createIssuerClient } from '../../shared/oidc/issuer-client.ts'
import { type Clock, systemClock } from '../../shared/runtime/clock.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { createLogger } from '../../shared/runtime/logger.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { systemTerminal } from '../../shared/runtime/terminal.ts'
import { ApiToken } from '../../worker/api-token.ts'
import { readWorkerConfig } from '../../worker/config.ts'
import { type RunningWorker, runWorker } from '../../worker/main.ts'
import { type HouseDatabase, newHouseDatabase } from './database.ts'
import { Leaks } from './leaks.ts'

export interface HouseOptions {
  readonly issuer?: StartIssuerOptions
  /** By name; all of the sandbox's storages start. */
  readonly storages?: Readonly<Record<string, StartStorageOptions>>
  readonly exchange?: 'always' | 'when-needed' | 'never'
  /** Names, default `exp` alone; all have the embedded issuer. The house's own account and storages are of the first. */
  readonly vos?: readonly [string, ...string[]]
  /** Further server settings, as in its file. */
  readonly server?: object | ((sandbox: Sandbox) => object)
  readonly worker?: object
  /** The server's: one that a test can put forward. */
  readonly clock?: Clock
  /** Of all that runs here: for tests that make the time. */
  readonly everyClock?: Clock
  /** Default: as `TEST_DATABASE` says. */
  readonly database?: (directory: string) => Promise<HouseDatabase>
  /** Whether links' limits and modes are learnt; default: they are as configured. */
  readonly optimize?: boolean
  /** How server and workers are started; default: in this process. */
  readonly launch?: Launcher
  /** What a killed database leaves in the logs is no fault of ours. */
  readonly mayLogErrors?: boolean
}

/** Starts them from their configurations, and hands on every line they log. */
export interface Launcher {
  server(file: object, onLog: (line: string) => void): Promise<RunningServer>
  worker(file: object, onLog: (line: string) => void): Promise<RunningWorker>
}

/**
 * The whole of Waybill in one process, with the embedded issuer and storages: what tests of the whole path begin with. In
 * every one of them no secret may be seen outside its place, every answer of the API must fit its schema, and nothing is logged
 * as an error: those are for faults of ours, whatever storages, issuers and callers do.
 */
export interface House {
  readonly directory: string
  readonly database: HouseDatabase
  readonly sandbox: Sandbox
  readonly issuer: RunningIssuer
  readonly storages: ReadonlyMap<string, RunningStorage>
  readonly http: HttpClient
  /** As the first admin, who has the account `alice`. */
  readonly client: Client
  readonly baseUrl: string
  /** All that was logged and answered so far; further secrets and places can be added. `stop` throws what it finds. */
  readonly leaks: Leaks
  /** A token for any audience, as one of the sandbox's clients. */
  token(client: 'server' | 'worker' | 'manager', audience: string, scopes: readonly string[]): Promise<Secret>
  clientFor(token: () => Promise<Secret | undefined>, baseUrl?: string): Client
  /** As the first admin, at another server of the same installation. */
  clientAt(baseUrl: string): Client
  /** Configurations of further servers, and of workers that go to another address. */
  serverFile(port: number): object
  workerFile(name: string, serverUrl: string): object
  /** What they log is searched for secrets too. */
  onLog(line: string): void
  readonly server: RunningServer
  restartServer(): Promise<void>
  /** Cuts all connections of a storage; it comes back, with its files, when `between` is over. */
  restartStorage(name: string, between: () => Promise<void>): Promise<void>
  startWorker(name?: string): Promise<RunningWorker>
  /** Adds all storages as RSEs under their names, with links between all. */
  addStorages(): Promise<void>
  stop(): Promise<void>
}

export async function startHouse(options: HouseOptions = {}): Promise<House> {
  const { everyClock } = options
  const clock = everyClock ?? systemClock
  const leaks = new Leaks()
  const errors: string[] = []
  const onLog = (line: string): void => {
    leaks.saw('the logs', line)
    if (line.includes('"level":50')) errors.push(line)
    if (environment.TEST_LOG !== undefined) systemTerminal.err(line)
  }
  const log = createLogger('test', 'debug', { write: onLog })
  const runtime = { clock, random: systemRandom, log }
  const answers = { checkAnswers: true, onAnswer: (body: string) => leaks.saw('the answers of the API', body) }
  const directory = await mkdtemp(join(tmpdir(), 'waybill-house-'))
  await chmod(directory, 0o755)
  const database = await (options.database ?? newHouseDatabase)(directory)
  const sandbox = await prepareSandbox({ dir: join(directory, 'sandbox'), portBase: 0 })
  for (const { id, secret } of Object.values(sandbox.clients)) leaks.guardClient(id, secret)
  for (const name of ['server', 'worker'] as const) {
    await writeFile(secretFile(directory, name), sandbox.clients[name].secret.reveal(), { mode: 0o600 })
  }
  const onToken = (token: Secret) => leaks.guard('a token', token)
  const issuer = await startIssuer(sandbox, { ...options.issuer, onToken }, runtime)
  const storages = new Map<string, RunningStorage>()
  const openStorage = async (name: string): Promise<void> => {
    storages.set(name, await startStorage(sandbox, name, options.storages?.[name] ?? {}, runtime))
  }
  for (const { name } of sandbox.storages) await openStorage(name)
  const trust = createTrust({ path: sandbox.authority.caFile, defaultRoots: false, clock, log })
  const http = createGotClient({ trust })
  const vos = options.vos ?? ['exp']
  const [vo] = vos
  const running = new Set<{ stop(): Promise<void> }>()
  let port = 0

  function issuerClient(name: 'server' | 'worker' | 'manager') {
    const { id, secret } = sandbox.clients[name]
    return createIssuerClient({
      url: sandbox.issuer,
      clientId: id,
      clientSecret: secret,
      authentication: 'basic',
      audienceParameter: 'audience',
      fetch: asFetch(http),
      clock,
      timeoutMs: 10_000,
    })
  }
  const clientFor = (bearer: () => Promise<Secret | undefined>, baseUrl = `https://localhost:${port}`): Client =>
    createClient({ baseUrl, http, token: bearer })

  const launch = options.launch ?? {
    server: file =>
      runServer(readServerConfig(sources(file), readSecret), {
        ...runtime,
        clock: options.clock ?? clock,
        holdsTime: (options.clock ?? everyClock) !== undefined,
        answers,
      }),
    worker: file => runWorker(readWorkerConfig(sources(file), readSecret, 'localhost'), runtime),
  }

  async function startServer(): Promise<RunningServer> {
    const server = await launch.server(serverFile({ directory, database, sandbox, options, vos, port }), onLog)
    port = server.port
    return watched(server)
  }

  async function startWorker(name = 'worker-1'): Promise<RunningWorker> {
    return watched(
      await launch.worker(workerFile(directory, sandbox, options, `https://localhost:${port}`, name), onLog),
    )
  }

  /** Its figures are looked at when it stops. */
  function watched<R extends RunningServer | RunningWorker>(service: R): R {
    const { metricsPort } = service
    const stopped = {
      ...service,
      async stop() {
        if (!running.delete(stopped)) return
        if (metricsPort !== undefined) {
          const figures = await http.request({ method: 'GET', url: `http://127.0.0.1:${metricsPort}/metrics` })
          leaks.saw('the metrics', await figures.text(10_000_000))
        }
        await service.stop()
      },
    }
    running.add(stopped)
    return stopped
  }

  let server = await startServer()
  const managers = { audience: AUDIENCE, scopes: ['wlcg'], clock }
  const held = new ApiToken({ issuer: issuerClient('manager'), ...managers })
  const client = clientFor(() => held.get())
  await client.addAccount({ body: { name: 'alice', vo } })
  const alice = { issuer: sandbox.issuer, subject: sandbox.clients.manager.id, account: 'alice', vo }
  await client.addIdentity({ body: alice })

  return {
    directory,
    database,
    sandbox,
    issuer,
    storages,
    http,
    client,
    get baseUrl() {
      return `https://localhost:${port}`
    },
    leaks,
    token: async (name, audience, scopes) => (await issuerClient(name).mint({ audience, scopes })).accessToken,
    clientFor,
    clientAt: baseUrl => clientFor(() => held.get(), baseUrl),
    serverFile: at => serverFile({ directory, database, sandbox, options, vos, port: at }),
    workerFile: (name, serverUrl) => workerFile(directory, sandbox, options, serverUrl, name),
    onLog,
    get server() {
      return server
    },
    async restartServer() {
      await server.stop()
      server = await startServer()
    },
    async restartStorage(name, between) {
      await storages.get(name)?.stop()
      try {
        await between()
      } finally {
        await openStorage(name)
      }
    },
    startWorker,
    async addStorages() {
      for (const { name, url, audience, basePath } of sandbox.storages) {
        const own = { name, vo, prefix: `${basePath}/exp` }
        await client.addRse({ body: { ...own, basePath, audience, protocols: [{ url }] } })
      }
      for (const source of sandbox.storages) {
        for (const destination of sandbox.storages) {
          if (source === destination) continue
          await client.setDistance({
            params: { source: source.name, destination: destination.name },
            body: { optimize: options.optimize ?? false },
          })
        }
      }
    },
    async stop() {
      await database.seenBy(leaks)
      for (const service of [...running].reverse()) await service.stop()
      await database.seenBy(leaks)
      await database.drop()
      for (const storage of storages.values()) await storage.stop()
      await issuer.stop()
      http.close()
      await rm(directory, { recursive: true, force: true })
      const found = leaks.found()
      if (found.length > 0) throw new Error(`secrets were seen:\n${found.join('\n')}`)
      if (errors.length > 0 && options.mayLogErrors !== true)
        throw new Error(`errors were logged:\n${errors.join('\n')}`)
    },
  }
}

/** What API tokens of the tests must be for. */
export const AUDIENCE = 'https://waybill.test'

const readSecret = (path: string): string => readFileSync(path, 'utf8')

/** Secrets stand in no configuration file, but in files of their own. */
function secretFile(directory: string, client: 'server' | 'worker'): string {
  return join(directory, `${client}.secret`)
}

function sources(file: object) {
  return { flags: {}, environment: {}, file: { name: 'test', text: JSON.stringify(file) } }
}

interface ServerFile {
  readonly directory: string
  readonly database: HouseDatabase
  readonly sandbox: Sandbox
  readonly options: HouseOptions
  readonly vos: readonly string[]
  readonly port: number
}

function serverFile({ directory, database, sandbox, options, vos, port }: ServerFile): object {
  const { server, worker, manager } = sandbox.clients
  const issuer = {
    url: sandbox.issuer,
    clientId: server.id,
    clientSecretFile: secretFile(directory, 'server'),
    exchange: options.exchange ?? 'always',
  }
  return {
    listen: { port },
    tls: { certificate: sandbox.authority.certificateFile, key: sandbox.authority.keyFile },
    metrics: { host: '127.0.0.1', port: 0 },
    database: database.config,
    vault: { keyFile: join(directory, 'vault.json') },
    ca: sandbox.authority.caFile,
    audience: AUDIENCE,
    vos: vos.map(name => ({ name, issuers: [issuer] })),
    admins: [{ issuer: sandbox.issuer, subject: manager.id }],
    workers: [{ issuer: sandbox.issuer, client: worker.id }],
    ...(typeof options.server === 'function' ? options.server(sandbox) : options.server),
  }
}

function workerFile(directory: string, sandbox: Sandbox, options: HouseOptions, server: string, name: string): object {
  const { id } = sandbox.clients.worker
  return {
    server,
    audience: AUDIENCE,
    name,
    ca: sandbox.authority.caFile,
    metrics: { host: '127.0.0.1', port: 0 },
    issuers: [{ url: sandbox.issuer, clientId: id, clientSecretFile: secretFile(directory, 'worker') }],
    ...options.worker,
  }
}
