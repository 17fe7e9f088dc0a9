import type { WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { Secret } from '../shared/domain/secret.ts'
import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Activity } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import type { Mode } from './mode.ts'

/** How long one is shown again for other files, on top of what the copy at hand may take, seconds. */
const REUSE_SECONDS = 600
/** XRootD gives none that lives longer, and each is looked at when a file is opened (facts/http-tpc.md section 4). */
const LONGEST_SECONDS = 86_400
/** In memory; the longest held goes first, and is asked for again. */
const MOST_HELD = 1_000

interface Held {
  readonly token: Secret
  readonly endsAt: number
  /** So much of its life is enough for any copy: half of it, where the storage gave less than was asked for. */
  readonly enoughMs: number
}

/** The storage at the other side of a COPY, and what it has to do there. */
export interface Passive {
  readonly place: Place & { readonly traits: WorkerStorage }
  readonly activity: Activity
}

/** undefined: nobody but this worker speaks to the storages. */
export function passiveOf(mode: Mode, source: Passive['place'], destination: Passive['place']): Passive | undefined {
  if (mode === 'stream') return undefined
  return mode === 'pull' ? { place: source, activity: 'DOWNLOAD' } : { place: destination, activity: 'UPLOAD' }
}

/**
 * Whether a failure may be about the macaroon. So may a 403 to one that was shown before: XRootD has no other answer to one that
 * it does not know any more (seen, 5.5.3).
 */
export function mayBeStale({ code, side }: TransferFailure, { place }: Passive, reused: boolean): boolean {
  if (side !== place.scope) return false
  return code === 'TOKEN_REFUSED' || (code === 'PERMISSION_DENIED' && reused)
}

/**
 * What the other side of a copy is shown at storages that issue macaroons: one for the file's directory and one activity, got
 * with the grant's token just before it is needed, and shared by all files there under that grant (docs/tokens.md).
 */
export class Macaroons {
  readonly #access: StorageAccess
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #held = new Map<string, Held>()
  readonly #underWay = new Map<string, Promise<Held>>()

  constructor(options: { access: StorageAccess; clock: Clock; signal: AbortSignal }) {
    this.#access = options.access
    this.#clock = options.clock
    this.#signal = options.signal
  }

  /** For a copy that takes `copyMs` at most. Throws as `StorageAccess` does, and `StorageError` when there is none to be had. */
  async tokenFor(passive: Passive, copyMs: number): Promise<{ token: Secret; reused: boolean }> {
    const key = keyOf(passive)
    const needed = Math.min(copyMs / 1000, LONGEST_SECONDS - REUSE_SECONDS)
    const held = this.#held.get(key)
    if (held !== undefined) {
      const left = held.endsAt - this.#clock.monotonic()
      if (left > Math.min(needed * 1000, held.enoughMs)) return { token: held.token, reused: true }
    }
    const underWay = this.#underWay.get(key)
    if (underWay !== undefined) return { token: (await underWay).token, reused: false }
    const asking = this.#ask(passive, needed + REUSE_SECONDS)
      .then(asked => this.#hold(key, asked))
      .finally(() => this.#underWay.delete(key))
    this.#underWay.set(key, asking)
    return { token: (await asking).token, reused: false }
  }

  /** The storage refused it: it is not shown again. */
  forget(passive: Passive, token: Secret): void {
    const key = keyOf(passive)
    if (this.#held.get(key)?.token === token) this.#held.delete(key)
  }

  async #ask({ place, activity }: Passive, lifeSeconds: number): Promise<Held> {
    const { storage, scope, url } = place
    const directory = new URL('.', url).href
    const options = { activity, lifeSeconds, scope, signal: this.#signal }
    const askedAt = this.#clock.monotonic()
    const issued = await this.#access.use(place, token => storage.macaroon(directory, token, options))
    const lifeMs = issued.lifeSeconds * 1000
    const enoughMs = issued.lifeSeconds < lifeSeconds ? lifeMs / 2 : Number.POSITIVE_INFINITY
    return { token: issued.token, endsAt: askedAt + lifeMs, enoughMs }
  }

  #hold(key: string, asked: Held): Held {
    this.#held.delete(key)
    this.#held.set(key, asked)
    const oldest = this.#held.keys().next()
    if (this.#held.size > MOST_HELD && !oldest.done) this.#held.delete(oldest.value)
    return asked
  }
}

function keyOf({ place: { grant, url }, activity }: Passive): string {
  return `${grant} ${activity} ${url.slice(0, url.lastIndexOf('/') + 1)}`
}
