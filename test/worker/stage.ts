import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Registry } from 'prom-client'
import {
  prepareSandbox,
  type RunningIssuer,
  type RunningStorage,
  type Sandbox,
  type StorageDescription,
  startIssuer,
  startStorage,
} from '../../sandbox/main.ts'
import { ApiError } from '../../shared/contract/client.ts'
import type { ClaimedTransfer, WorkerStorage } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { createIssuerClient, type IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { type Clock, systemClock as clock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { systemRandom as random } from '../../shared/runtime/random.ts'
import type { WorkOptions } from '../../worker/loop.ts'
import { workerMetrics } from '../../worker/metrics.ts'
import { ModeMemory } from '../../worker/mode.ts'
import { workUntil } from '../../worker/sessions.ts'
import { Slots } from '../../worker/slots.ts'
import { Storages } from '../../worker/storages.ts'
import { CLEAN_UP, StandInServer } from './stand-in-server.ts'

export interface StageOptions {
  /** Life of access tokens, seconds. */
  readonly tokenLifetime?: number
  readonly source?: Partial<WorkerStorage>
  readonly destination?: Partial<WorkerStorage>
}

const DIRECTORY = '/data/exp/ds'

/** What happens at a storage between two looks at it: options of the worker's. */
export function betweenLooks(happens: () => Promise<void>): Pick<WorkOptions, 'clock' | 'settleMs'> {
  const settleMs = 123
  const sleep: Clock['sleep'] = (ms, signal) => (ms === settleMs ? happens() : clock.sleep(ms, signal))
  return { clock: { ...clock, sleep }, settleMs }
}

/** For `before` of the server: it gives no permits. */
export function refusePermits(name: string): void {
  if (name === 'askPermit') throw new ApiError('PERMIT_REFUSED', 'it is none of yours', { status: 409 })
}

/** A whole small world for a worker: the embedded issuer, two embedded storages, and a rules server in memory. */
export class Stage {
  readonly sandbox: Sandbox
  readonly issuer: RunningIssuer
  readonly a: RunningStorage
  readonly b: RunningStorage
  readonly server: StandInServer
  readonly options: WorkOptions
  readonly #clients: readonly HttpClient[]
  #transfers = 0
  #stopWork: () => Promise<void> = async () => undefined

  private constructor(
    world: { sandbox: Sandbox; issuer: RunningIssuer; a: RunningStorage; b: RunningStorage },
    server: StandInServer,
    options: WorkOptions,
    clients: readonly HttpClient[],
  ) {
    this.sandbox = world.sandbox
    this.issuer = world.issuer
    this.a = world.a
    this.b = world.b
    this.server = server
    this.options = options
    this.#clients = clients
  }

  static async create({ tokenLifetime = 3600, source, destination }: StageOptions = {}): Promise<Stage> {
    const sandbox = await prepareSandbox({ dir: await mkdtemp(join(tmpdir(), 'waybill-worker-')), portBase: 0 })
    const issuer = await startIssuer(sandbox, { tokenLifetime })
    const a = await startStorage(sandbox, 'SITE-A')
    const b = await startStorage(sandbox, 'SITE-B')
    const trust = createTrust({ path: sandbox.authority.caFile, defaultRoots: false, clock, log })
    const http = createGotClient({ trust })
    const pools = {
      copyClient: createAgentClient({ trust, clock }),
      freshCopyClient: createAgentClient({ trust, clock, fresh: true }),
      client: createAgentClient({ trust, clock }),
    }
    const server = new StandInServer(issuerClient(sandbox, http, 'server'), sandbox.issuer)
    const traits = {
      checksumPolicy: 'destination',
      watchdogs: {},
      canPull: true,
      canPush: true,
      checksum: 'adler32',
      freshConnections: false,
      macaroons: false,
    } as const
    server.storages.set('SITE-A', { rse: 'SITE-A', ...traits, redirectHosts: ['localhost'], ...source })
    server.storages.set('SITE-B', { rse: 'SITE-B', ...traits, redirectHosts: ['localhost'], ...destination })
    const options: WorkOptions = {
      api: server.api,
      issuers: new Map([[sandbox.issuer, issuerClient(sandbox, http, 'worker')]]),
      storages: new Storages({ ...pools, clock }),
      modes: new ModeMemory(clock),
      clock,
      random,
      log,
      metrics: workerMetrics(new Registry()),
      slots: new Slots(8, clock),
      watchdogs: {},
      settleMs: 50,
      shutdownMs: 5_000,
    }
    return new Stage({ sandbox, issuer, a, b }, server, options, [http, ...Object.values(pools)])
  }

  /** Works until stopped, one session after the other. */
  start(overrides: Partial<WorkOptions> = {}): { stop: () => Promise<void> } {
    const options = { ...this.options, ...overrides }
    const stopping = new AbortController()
    const working = workUntil(stopping.signal, 'w1', options)
    this.#stopWork = async () => {
      stopping.abort()
      await working
    }
    return { stop: this.#stopWork }
  }

  /** Writes a file at the first storage and gives the transfer that copies it to the second. Its grants are of its own. */
  async transfer(
    name: string,
    content: Buffer | string,
    overrides: Partial<ClaimedTransfer> = {},
  ): Promise<ClaimedTransfer> {
    const bytes = Buffer.from(content)
    await this.write('SITE-A', name, bytes)
    this.#transfers += 1
    const transfer = this.#transfers
    const a = this.storage('SITE-A')
    const b = this.storage('SITE-B')
    const grant = (site: StorageDescription, ...verbs: string[]) => ({
      audience: site.audience,
      scopes: verbs.map(verb => `storage.${verb}:/exp/ds`),
      generation: 0,
      exchange: true,
      exchanged: false,
    })
    const ids = { source: transfer * 10 + 1, destination: transfer * 10 + 2 }
    this.server.grants.set(ids.source, grant(a, 'read'))
    this.server.grants.set(ids.destination, grant(b, 'create', 'read'))
    this.server.grants.set(transfer + CLEAN_UP, grant(b, 'modify', 'read'))
    return {
      transfer,
      fence: 1,
      kind: 'copy',
      did: `exp:${name}`,
      bytes: bytes.length,
      adler32: adler32Hex(adler32(bytes)),
      source: { rse: 'SITE-A', url: `${a.url}${DIRECTORY}/${name}`, grant: ids.source },
      destination: { rse: 'SITE-B', url: `${b.url}${DIRECTORY}/${name}`, grant: ids.destination },
      ...overrides,
    }
  }

  storage(name: string): StorageDescription {
    const found = this.sandbox.storages.find(storage => storage.name === name)
    if (found === undefined) throw new Error(`no storage ${name}`)
    return found
  }

  /** Puts a file into a storage behind its back. */
  async write(storage: string, name: string, content: Buffer | string): Promise<void> {
    const path = this.#path(storage, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
  }

  /** What lies there on disk; undefined: nothing. */
  async read(storage: string, name: string): Promise<Buffer | undefined> {
    return readFile(this.#path(storage, name)).catch(() => undefined)
  }

  async end(): Promise<void> {
    await this.#stopWork()
    await Promise.all([this.a.stop(), this.b.stop(), this.issuer.stop()])
    for (const client of this.#clients) client.close()
    await rm(this.sandbox.directory, { recursive: true, force: true })
  }

  #path(storage: string, name: string): string {
    return join(this.storage(storage).directory, DIRECTORY, name)
  }
}

export function issuerClient(sandbox: Sandbox, http: HttpClient, name: 'server' | 'worker'): IssuerClient {
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
