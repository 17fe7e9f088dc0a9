import { join } from 'node:path'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Secret } from '../shared/domain/secret.ts'
import { type Clock, systemClock } from '../shared/runtime/clock.ts'
import { type Logger, silentLogger } from '../shared/runtime/logger.ts'
import { type Random, systemRandom } from '../shared/runtime/random.ts'
import { type Service, startAll } from '../shared/runtime/services.ts'
import {
  type PrepareOptions,
  portOf,
  prepareSandbox as prepare,
  type Sandbox,
  type StorageDescription,
} from './description.ts'
import type { RunningService } from './https-service.ts'
import { CLIENT_NAMES, registerClient } from './issuer/clients.ts'
import { type RunningIssuer, serveIssuer } from './issuer/issuer.ts'
import type { SigningAlgorithm } from './issuer/signing-key.ts'
import type { ExchangeShape } from './issuer/token-endpoint.ts'
import type { Behaviour, RefuseOrder } from './storage/behaviour.ts'
import { PLAYED, type Played } from './storage/played.ts'
import { type RunningStorage, serveStorage } from './storage/storage.ts'
import type { TapeSettings } from './storage/tape-settings.ts'

export { type PlannedPorts, plannedPorts, type Sandbox, type StorageDescription } from './description.ts'
export type { RunningIssuer } from './issuer/issuer.ts'
export type { Misbehaviour } from './issuer/misbehaviour.ts'
export { freeBase, portTrouble } from './ports.ts'
export { type Behaviour, type RefuseOrder, WELL_BEHAVED } from './storage/behaviour.ts'
export { PLAYED, type Played } from './storage/played.ts'
export type { RunningStorage } from './storage/storage.ts'
export type { TapeSettings } from './storage/tape-settings.ts'

export interface SandboxRuntime {
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
}

const QUIET: SandboxRuntime = { clock: systemClock, random: systemRandom, log: silentLogger }

/** See `description.ts`. */
export function prepareSandbox(options: PrepareOptions, runtime: SandboxRuntime = QUIET): Promise<Sandbox> {
  return prepare(options, runtime)
}

export interface StartIssuerOptions {
  /** Life of access tokens, seconds. Default 3600. */
  readonly tokenLifetime?: number
  /** Default ES256. */
  readonly algorithm?: SigningAlgorithm
  /** Default `access_token`: the refresh token comes beside it. */
  readonly exchangeShape?: ExchangeShape
  /** Default 30 days. */
  readonly refreshTokenSeconds?: number
  /** How long a used refresh token stays good. Default 60. */
  readonly rotationGraceSeconds?: number
  /** Told every access and refresh token that is given out. */
  readonly onToken?: (token: Secret) => void
}

const HOUR_SECONDS = 3600
const MONTH_SECONDS = 30 * 24 * HOUR_SECONDS

export function startIssuer(
  sandbox: Sandbox,
  options: StartIssuerOptions = {},
  runtime: SandboxRuntime = QUIET,
): Promise<RunningIssuer> {
  const { tokenLifetime = HOUR_SECONDS } = options
  return serveIssuer({
    url: sandbox.issuer,
    port: portOf(sandbox.issuer),
    directory: join(sandbox.directory, 'issuer'),
    authority: sandbox.authority,
    clients: CLIENT_NAMES.map(name => {
      const { id, secret } = sandbox.clients[name]
      return registerClient(name, id, secret, tokenLifetime)
    }),
    algorithm: options.algorithm ?? 'ES256',
    exchangeShape: options.exchangeShape ?? 'access_token',
    refreshTokenSeconds: options.refreshTokenSeconds ?? MONTH_SECONDS,
    rotationGraceSeconds: options.rotationGraceSeconds ?? 60,
    onToken: options.onToken,
    ...runtime,
  })
}

export interface StartStorageOptions {
  /** Which storage is played; `behaviour` goes on from there. Default: none but itself. */
  readonly plays?: Played
  readonly behaviour?: Partial<Behaviour>
  /** Gives it a tape system (`{}`: one that behaves as in `PATIENT_TAPE`), and a tape API. */
  readonly tape?: Partial<TapeSettings>
  readonly quotaBytes?: number
  /** What it refuses from its start on. */
  readonly refuse?: readonly RefuseOrder[]
  /** CA certificates (file or hashed directory) for the other side of a copy, instead of the sandbox's own CA. */
  readonly trust?: string
  /** Further names that tokens may call the storage by. */
  readonly aliases?: readonly string[]
  /** Told every request when it comes: its verb, and its target as it was sent. */
  readonly onRequest?: (verb: string, target: string, ended: Promise<unknown>) => void
}

export async function startStorage(
  sandbox: Sandbox,
  name: string,
  options: StartStorageOptions = {},
  runtime: SandboxRuntime = QUIET,
): Promise<RunningStorage> {
  const storage = storageNamed(sandbox, name)
  const running = await serveStorage({
    name,
    port: portOf(storage.url),
    url: storage.url,
    audiences: [storage.audience, ...(options.aliases ?? [])],
    basePath: storage.basePath,
    directory: storage.directory,
    incoming: join(sandbox.directory, 'incoming', name),
    issuer: sandbox.issuer,
    authority: sandbox.authority,
    trust: options.trust,
    quotaBytes: options.quotaBytes,
    behaviour: { ...(options.plays && PLAYED[options.plays]), ...options.behaviour },
    tape: options.tape,
    onRequest: options.onRequest,
    ...runtime,
  })
  for (const order of options.refuse ?? []) running.refuse(order)
  return running
}

/** Throws `SANDBOX_NO_SUCH_STORAGE`. */
export function storageNamed(sandbox: Sandbox, name: string): StorageDescription {
  const storage = sandbox.storages.find(candidate => candidate.name === name)
  if (storage !== undefined) return storage
  const known = sandbox.storages.map(candidate => candidate.name).join(', ')
  throw new WaybillError('SANDBOX_NO_SUCH_STORAGE', `the sandbox has no storage "${name}"; it has ${known}`)
}

export interface SandboxCommandOptions extends PrepareOptions {
  /** `issuer` or a storage's name; without it all of them run in this process. */
  readonly part?: string
  /** Life of access tokens, seconds. */
  readonly tokenLifetime?: number
  /** How storages behave, by name. */
  readonly storages?: ReadonlyMap<string, StartStorageOptions>
}

/** `waybill sandbox`: prepares, starts and resolves to what was started and how to stop it. */
export async function sandboxCommand(
  options: SandboxCommandOptions,
  runtime: SandboxRuntime,
): Promise<{ sandbox: Sandbox; stop: () => Promise<void> }> {
  const sandbox = await prepareSandbox(options, runtime)
  const { part, tokenLifetime, storages = new Map() } = options
  for (const name of storages.keys()) storageNamed(sandbox, name)
  const issuer = () => startIssuer(sandbox, tokenLifetime === undefined ? {} : { tokenLifetime }, runtime)
  const parts = [
    part === undefined || part === 'issuer' ? asService('issuer', issuer) : [],
    ...sandbox.storages
      .filter(({ name }) => part === undefined || part === name)
      .map(({ name }) => asService(name, () => startStorage(sandbox, name, storages.get(name) ?? {}, runtime))),
  ].flat()
  if (parts.length === 0) {
    const known = ['issuer', ...sandbox.storages.map(({ name }) => name)].join(', ')
    throw new WaybillError('SANDBOX_NO_SUCH_PART', `the sandbox has no part "${part}"; it has ${known}`)
  }
  return { sandbox, stop: await startAll(parts, runtime.log) }
}

function asService(name: string, begin: () => Promise<RunningService>): Service {
  let running: RunningService | undefined
  return {
    name,
    start: async () => {
      running = await begin()
    },
    stop: async () => running?.stop(),
  }
}
