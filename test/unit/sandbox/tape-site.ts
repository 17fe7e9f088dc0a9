import { expect } from 'chai'
import {
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
  type TapeSettings,
} from '../../../sandbox/main.ts'
import type { TapeFront } from '../../../sandbox/storage/tape.ts'
import { Secret } from '../../../shared/domain/secret.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { createStorageClient } from '../../../shared/storage/storage-client.ts'
import { type StorageClient, StorageError, type TapeClient } from '../../../shared/storage/types.ts'
import { ManualClock } from '../http-manual-clock.ts'
import { Fixture } from './fixture.ts'

export const CONTENT = 'a waybill travels with a consignment\n'

/** SITE-A of a sandbox with a tape system, its issuer, and Waybill's own client. The clock stands until it is moved. */
export class TapeSite {
  readonly clock = new ManualClock()
  readonly fixture: Fixture
  readonly site: StorageDescription
  readonly client: StorageClient
  #issuer: RunningIssuer | undefined
  #storage: RunningStorage | undefined

  private constructor(fixture: Fixture) {
    this.fixture = fixture
    this.site = fixture.storage('SITE-A')
    this.client = createStorageClient({ copyClient: fixture.http, client: fixture.http, clock: this.clock })
  }

  static async create(tape?: Partial<TapeSettings>): Promise<TapeSite> {
    const site = new TapeSite(await Fixture.create())
    const runtime = { clock: site.clock, random: systemRandom, log: silentLogger }
    site.#issuer = await startIssuer(site.fixture.sandbox, {}, runtime)
    site.#storage = await startStorage(site.fixture.sandbox, 'SITE-A', tape === undefined ? {} : { tape }, runtime)
    return site
  }

  async remove(): Promise<void> {
    await Promise.all([this.#storage?.stop(), this.#issuer?.stop()])
    await this.fixture.remove()
  }

  get tape(): TapeClient {
    return this.client.tape
  }

  get url(): string {
    return this.site.url
  }

  get front(): TapeFront {
    const front = this.#storage?.tape
    if (front === undefined) throw new Error('the storage has no tape')
    return front
  }

  async token(scope: string): Promise<Secret> {
    return new Secret(await this.fixture.token(scope, this.site.audience))
  }

  /** Writes files, waits until they are on tape, and takes them from disk. */
  async onTape(...paths: string[]): Promise<void> {
    await this.onDisk(...paths)
    await this.clock.advance(this.front.settings.archiveSeconds * 1000)
    for (const path of paths) expect(await this.front.evict(path)).to.equal(true)
  }

  async onDisk(...paths: string[]): Promise<void> {
    const token = (await this.token('storage.modify:/')).reveal()
    for (const path of paths) {
      const { status } = await this.fixture.call('PUT', `${this.url}${path}`, { token, body: CONTENT })
      expect(status).to.be.oneOf([201, 204])
    }
  }

  /** How many files of a request are in which state. */
  async count(token: Secret, requestId: string, paths: readonly string[]): Promise<Record<string, number>> {
    const progress = await this.tape.poll(this.url, token, requestId, paths)
    const counts: Record<string, number> = {}
    for (const { kind } of progress.known ? progress.files.values() : []) counts[kind] = (counts[kind] ?? 0) + 1
    return counts
  }

  /** Waits until the drives read so many files, gives them their time, and waits until so many files in all have come. */
  async turn(token: Secret, requestId: string, paths: readonly string[], staged: number, atDrives = 1): Promise<void> {
    await this.clock.untilSleeping(atDrives)
    await this.clock.advance(this.front.settings.secondsPerFile * 1000)
    while ((await this.count(token, requestId, paths)).staged !== staged);
  }
}

/** Status of the answer that it fails with. */
export async function refusal(run: Promise<unknown>): Promise<number | undefined> {
  const error = await run.catch((error: unknown) => error)
  if (!(error instanceof StorageError)) throw new Error('it was not refused')
  return error.failure.httpStatus
}
