import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { adler32, adler32Hex } from '../../shared/domain/adler32.ts'
import { startXrootd, type Xrootd, type XrootdOptions } from '../interop/xrootd.ts'
import type { Stage } from './stage.ts'
import { CLEAN_UP, type ReportedOutcome } from './stand-in-server.ts'

const TRAITS = {
  canPull: true,
  canPush: true,
  checksum: 'adler32',
  checksumPolicy: 'destination',
  watchdogs: {},
  macaroons: false,
  freshConnections: false,
  redirectHosts: [] as string[],
} as const

/** Transfers of the stage's own have lower numbers. */
const FIRST_TRANSFER = 500

/** Two real XRootD servers, with tokens of a stage's issuer, and transfers from the first to the second. */
export class XrootdPair {
  readonly a: Xrootd
  readonly b: Xrootd
  readonly #stage: Stage
  readonly #directory: string
  #transfers = FIRST_TRANSFER

  private constructor(stage: Stage, directory: string, a: Xrootd, b: Xrootd) {
    this.#stage = stage
    this.#directory = directory
    this.a = a
    this.b = b
  }

  /** `destination`: of the second server. */
  static async start(stage: Stage, destination: Partial<XrootdOptions> = {}): Promise<XrootdPair> {
    const directory = await mkdtemp(join(tmpdir(), 'waybill-worker-xrootd-'))
    await chmod(directory, 0o755)
    const { authority, issuer } = stage.sandbox
    const start = async (name: string, more: Partial<XrootdOptions>) => {
      await mkdir(join(directory, name))
      return startXrootd({ directory: join(directory, name), authority, issuer, ...more })
    }
    return new XrootdPair(stage, directory, await start('a', {}), await start('b', destination))
  }

  async stop(): Promise<void> {
    await Promise.all([this.a.stop(), this.b.stop()])
    await rm(this.#directory, { recursive: true })
  }

  /** A file at the first server, and the transfer that brings it to the second by this mode. */
  async transfer(mode: 'pull' | 'push' | 'stream', name: string, content: Buffer): Promise<ClaimedTransfer> {
    await this.place(this.a, name, content)
    this.#transfers += 1
    const id = this.#transfers
    const grants = { source: id * 10 + 1, destination: id * 10 + 2 }
    const top = name.split('/').slice(0, 2).join('/')
    const grant = (storage: Xrootd, ...verbs: string[]) => ({
      audience: storage.audience,
      scopes: verbs.map(verb => `storage.${verb}:/${top}`),
      generation: 0,
      exchange: true,
      exchanged: false,
    })
    const { server } = this.#stage
    server.grants.set(grants.source, grant(this.a, 'read'))
    server.grants.set(grants.destination, grant(this.b, 'create', 'read'))
    server.grants.set(id + CLEAN_UP, grant(this.b, 'modify', 'read'))
    server.storages.set(`A-${mode}`, { rse: `A-${mode}`, ...TRAITS, canPush: mode !== 'stream' })
    server.storages.set(`B-${mode}`, { rse: `B-${mode}`, ...TRAITS, canPull: mode === 'pull' })
    return {
      transfer: id,
      fence: 1,
      kind: 'copy',
      did: `s:${name}`,
      bytes: content.length,
      adler32: adler32Hex(adler32(content)),
      source: { rse: `A-${mode}`, url: `${this.a.url}/${name}`, grant: grants.source },
      destination: { rse: `B-${mode}`, url: `${this.b.url}/${name}`, grant: grants.destination },
    }
  }

  /** Puts a file there behind the server's back, with parents that are its user's. */
  async place(storage: Xrootd, name: string, content: Buffer | string): Promise<void> {
    const path = join(storage.dataDirectory, name)
    const { uid, gid } = await stat(storage.dataDirectory)
    await mkdir(dirname(path), { recursive: true })
    for (let at = dirname(path); at !== storage.dataDirectory; at = dirname(at)) await chown(at, uid, gid)
    await writeFile(path, content)
    await chown(path, uid, gid)
  }

  /** What lies there on disk; undefined: nothing. */
  lies(storage: Xrootd, name: string): Promise<Buffer | undefined> {
    return readFile(join(storage.dataDirectory, name)).catch(() => undefined)
  }

  run(work: ClaimedTransfer): Promise<ReportedOutcome> {
    this.#stage.server.enqueue(work)
    return this.#stage.server.outcomeOf(work.transfer)
  }
}
