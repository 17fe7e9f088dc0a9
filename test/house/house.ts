import { chmod, mkdtemp, rm } from 'node:fs/promises'
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
import { systemClock } from '../../shared/runtime/clock.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { createLogger, type Logger, silentLogger } from '../../shared/runtime/logger.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { readWorkerConfig } from '../../worker/config.ts'
import { type RunningWorker, runWorker } from '../../worker/main.ts'

export interface HouseOptions {
  readonly issuer?: StartIssuerOptions
  /** By name; all of the sandbox's storages start. */
  readonly storages?: Readonly<Record<string, StartStorageOptions>>
  readonly exchange?: 'always' | 'when-needed' | 'never'
  /** Further server settings, as in its file. */
  readonly server?: object
  readonly worker?: object
  readonly log?: Logger
}

/** The whole of Waybill in one process, with the embedded issuer and storages: what tests of the whole path begin with. */
export interface House {
  readonly directory: string
  readonly sandbox: Sandbox
  readonly issuer: RunningIssuer
  readonly storages: ReadonlyMap<string, RunningStorage>
  readonly http: HttpClient
  /** As the first admin, who has the account `alice`. */
  readonly client: Client
  readonly baseUrl: string
  /** A token for any audience, as one of the sandbox's clients. */
  token(client: 'server' | 'worker' | 'manager', audience: string, scopes: readonly string[]): Promise<Secret>
  clientFor(token: () => Promise<Secret | undefined>): Client
  startServer(): Promise<RunningServer>
  startWorker(name?: string): Promise<RunningWorker>
  /** Adds all storages as RSEs under their names, with links between all. */
  addStorages(): Promise<void>
  stop(): Promise<void>
}

const runtime = { clock: systemClock, random: systemRandom }

export async function startHouse(options: HouseOptions = {}): Promise<House> {
  const log = options.log ?? (environment.TEST_LOG === undefined ? silentLogger : createLogger('test', 'info'))
  const directory = await mkdtemp(join(tmpdir(), 'waybill-house-'))
  await chmod(directory, 0o755)
  const sandbox = await prepareSandbox({ dir: join(directory, 'sandbox'), portBase: 0 })
  const issuer = await startIssuer(sandbox, options.issuer)
  const storages = new Map<string, RunningStorage>()
  for (const { name } of sandbox.storages) {
    storages.set(name, await startStorage(sandbox, name, options.storages?.[name] ?? {}))
  }
  const trust = createTrust({ path: sandbox.authority.caFile, defaultRoots: false, clock: systemClock, log })
  const http = createGotClient({ trust })
  const running = new Set<{ stop(): Promise<void> }>()
  let port = 0

  async function token(
    name: 'server' | 'worker' | 'manager',
    audience: string,
    scopes: readonly string[],
  ): Promise<Secret> {
    const { id, secret } = sandbox.clients[name]
    const client = createIssuerClient({
      url: sandbox.issuer,
      clientId: id,
      clientSecret: secret,
      authentication: 'basic',
      audienceParameter: 'audience',
      fetch: asFetch(http),
      clock: systemClock,
      timeoutMs: 10_000,
    })
    return (await client.mint({ audience, scopes })).accessToken
  }
  const clientFor = (bearer: () => Promise<Secret | undefined>): Client =>
    createClient({ baseUrl: `https://localhost:${port}`, http, token: bearer })

  async function startServer(): Promise<RunningServer> {
    const server = await runServer(
      readServerConfig(sources(serverFile(directory, sandbox, options, port)), secretsOf(sandbox)),
      {
        ...runtime,
        log,
      },
    )
    port = server.port
    running.add(server)
    return server
  }

  async function startWorker(name = 'worker-1'): Promise<RunningWorker> {
    const worker = await runWorker(
      readWorkerConfig(sources(workerFile(sandbox, options, port, name)), secretsOf(sandbox), 'localhost'),
      { ...runtime, log, environment: {} },
    )
    running.add(worker)
    return worker
  }

  await startServer()
  let held: Promise<Secret> | undefined
  const client = clientFor(() => {
    held ??= token('manager', AUDIENCE, ['wlcg'])
    return held
  })
  await client.addAccount({ body: { name: 'alice' } })
  await client.addIdentity({ body: { issuer: sandbox.issuer, subject: sandbox.clients.manager.id, account: 'alice' } })

  return {
    directory,
    sandbox,
    issuer,
    storages,
    http,
    client,
    get baseUrl() {
      return `https://localhost:${port}`
    },
    token,
    clientFor,
    startServer,
    startWorker,
    async addStorages() {
      for (const { name, url, audience, basePath } of sandbox.storages) {
        await client.addRse({ body: { name, prefix: `${basePath}/exp`, basePath, audience, protocols: [{ url }] } })
      }
      for (const source of sandbox.storages) {
        for (const destination of sandbox.storages) {
          if (source === destination) continue
          await client.setDistance({ params: { source: source.name, destination: destination.name }, body: {} })
        }
      }
    },
    async stop() {
      for (const service of [...running].reverse()) await service.stop()
      for (const storage of storages.values()) await storage.stop()
      await issuer.stop()
      http.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** What API tokens of the tests must be for. */
export const AUDIENCE = 'https://waybill.test'

/** Secrets stand in no configuration file: they are named, as files are. */
function secretsOf(sandbox: Sandbox): (name: string) => string {
  return name => sandbox.clients[name === 'server' ? 'server' : 'worker'].secret.reveal()
}

function sources(file: object) {
  return { flags: {}, environment: {}, file: { name: 'test', text: JSON.stringify(file) } }
}

function serverFile(directory: string, sandbox: Sandbox, options: HouseOptions, port: number): object {
  const { server, worker, manager } = sandbox.clients
  const issuer = {
    url: sandbox.issuer,
    clientId: server.id,
    clientSecretFile: 'server',
    exchange: options.exchange ?? 'always',
  }
  return {
    listen: { port },
    tls: { certificate: sandbox.authority.certificateFile, key: sandbox.authority.keyFile },
    database: { file: join(directory, 'waybill.sqlite') },
    vault: { keyFile: join(directory, 'vault.json') },
    ca: sandbox.authority.caFile,
    audience: AUDIENCE,
    vos: [{ name: 'exp', issuers: [issuer] }],
    admins: [{ issuer: sandbox.issuer, subject: manager.id }],
    workers: [{ issuer: sandbox.issuer, client: worker.id }],
    ...options.server,
  }
}

function workerFile(sandbox: Sandbox, options: HouseOptions, port: number, name: string): object {
  const { id } = sandbox.clients.worker
  return {
    server: `https://localhost:${port}`,
    audience: AUDIENCE,
    name,
    ca: sandbox.authority.caFile,
    issuers: [{ url: sandbox.issuer, clientId: id, clientSecretFile: 'worker' }],
    ...options.worker,
  }
}
