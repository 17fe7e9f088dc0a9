import { mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { WaybillError } from '../shared/domain/errors.ts'
import { Secret } from '../shared/domain/secret.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { makeDirectory } from '../shared/runtime/directory.ts'
import type { Random } from '../shared/runtime/random.ts'
import { type Authority, ensureAuthority } from './authority.ts'
import { CLIENT_NAMES, type ClientName } from './issuer/clients.ts'
import { freeBase, portsFrom } from './ports.ts'
import { createPrivateFile, hasCode, isMissing, writePrivateFile } from './private-file.ts'

/** What `sandbox.json` says: all that a tool needs in order to use the sandbox. Mode 0600, for the secrets in it. */
const credential = z.strictObject({ id: z.string(), secret: z.string() })
const clientsFile = z.strictObject({ server: credential, worker: credential, manager: credential })
const sandboxFile = z.strictObject({
  /** `/.well-known/openid-configuration` is appended to it; it is the claim `iss`. */
  issuer: z.url(),
  /** The CA's certificate, a PEM file. */
  ca: z.string(),
  clients: clientsFile,
  storages: z.array(
    z.strictObject({
      name: z.string(),
      url: z.url(),
      audience: z.string(),
      /** Scope paths are relative to it: `storage.read:/x` is good for `<url>/data/x`. */
      basePath: z.string(),
      /** What `<url>/` is on disk. */
      directory: z.string(),
    }),
  ),
})

export type StorageDescription = z.infer<typeof sandboxFile>['storages'][number]

export interface Sandbox {
  readonly directory: string
  readonly issuer: string
  readonly authority: Authority
  readonly clients: Readonly<Record<ClientName, { readonly id: string; readonly secret: Secret }>>
  readonly storages: readonly StorageDescription[]
}

export interface PrepareOptions {
  readonly dir: string
  /** The issuer's port; the storages follow. 0: the ports of the sandbox that is there, or free ones. */
  readonly portBase: number
}

const STORAGES = ['SITE-A', 'SITE-B', 'SITE-C']
const BASE_PATH = '/data'

/**
 * Makes what a sandbox consists of in `dir` (certificates, client secrets, directories), or takes what is there, and
 * writes `sandbox.json` last. Several processes may do so at once. Starts nothing.
 */
export async function prepareSandbox(
  options: PrepareOptions,
  tools: { clock: Clock; random: Random },
): Promise<Sandbox> {
  const directory = resolve(options.dir)
  await makeDirectory(directory)
  const authority = await ensureAuthority(join(directory, 'authority'), tools)
  const clients = await ensureClients(join(directory, 'clients.json'), tools.random)
  const file = join(directory, 'sandbox.json')
  const before = await readText(file)
  const decided = decidedPorts(options.portBase, before === undefined ? undefined : parse(sandboxFile, file, before))
  const ports = decided ?? portsFrom(await freeBase(STORAGES.length + 1, tools.random), STORAGES.length + 1)
  const storages = STORAGES.map((name, index) => describeStorage(directory, name, ports[index + 1] ?? 0))
  for (const storage of storages) await mkdir(storage.directory, { recursive: true })
  const description = { issuer: urlOf(ports[0] ?? 0), ca: authority.caFile, clients, storages }
  const text = `${JSON.stringify(description, null, 2)}\n`
  if (text !== before) await writePrivateFile(file, text)
  return { directory, issuer: description.issuer, authority, clients: secrets(clients), storages }
}

export interface PlannedPorts {
  /** The issuer's port of an earlier use; `undefined` when `dir` was not used. */
  readonly before: number | undefined
  /** Nothing where free ones will be taken. */
  readonly parts: readonly { readonly part: string; readonly port: number }[]
}

/** What `prepareSandbox` would let the parts listen on, without making anything. Throws `SANDBOX_UNREADABLE`. */
export async function plannedPorts({ dir, portBase }: PrepareOptions): Promise<PlannedPorts> {
  const file = join(resolve(dir), 'sandbox.json')
  const text = await readText(file)
  const before = text === undefined ? undefined : parse(sandboxFile, file, text)
  const names = ['the issuer', ...STORAGES.map(name => `the storage ${name}`)]
  const ports = decidedPorts(portBase, before) ?? []
  return {
    before: before && portOf(before.issuer),
    parts: ports.map((port, index) => ({ part: names[index] ?? '', port })),
  }
}

function describeStorage(directory: string, name: string, port: number): StorageDescription {
  const url = urlOf(port)
  return { name, url, audience: url, basePath: BASE_PATH, directory: join(directory, 'storages', name) }
}

/** First come, first written: who loses the race reads the winner's. */
async function ensureClients(file: string, random: Random): Promise<z.infer<typeof clientsFile>> {
  const present = await readText(file)
  if (present !== undefined) return parse(clientsFile, file, present)
  const made = CLIENT_NAMES.map(name => [name, { id: `waybill-${name}`, secret: random.bytes(24).toString('hex') }])
  await createPrivateFile(file, `${JSON.stringify(Object.fromEntries(made), null, 2)}\n`)
  return parse(clientsFile, file, await readFile(file, 'utf8'))
}

function secrets(clients: z.infer<typeof clientsFile>): Sandbox['clients'] {
  const sealed = ({ id, secret }: z.infer<typeof credential>) => ({ id, secret: new Secret(secret) })
  return { server: sealed(clients.server), worker: sealed(clients.worker), manager: sealed(clients.manager) }
}

function parse<Shape extends z.ZodType>(schema: Shape, file: string, text: string): z.infer<Shape> {
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    const advice = `${file} is not what a sandbox has written: take another directory, or remove the file`
    throw new WaybillError('SANDBOX_UNREADABLE', advice, { cause: error })
  }
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    // Also below what is no directory: `makeDirectory` says so better.
    if (isMissing(error) || hasCode(error, 'ENOTDIR')) return undefined
    throw error
  }
}

function urlOf(port: number): string {
  return `https://localhost:${port}`
}

export function portOf(url: string): number {
  return Number(new URL(url).port)
}

/** The issuer's first. `undefined`: whatever is free. */
function decidedPorts(portBase: number, before: z.infer<typeof sandboxFile> | undefined): number[] | undefined {
  if (portBase !== 0) return portsFrom(portBase, STORAGES.length + 1)
  return before && [before.issuer, ...before.storages.map(({ url }) => url)].map(portOf)
}
