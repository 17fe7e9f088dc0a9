import type { Secret } from '../shared/domain/secret.ts'
import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { type StorageClient, StorageError } from '../shared/storage/types.ts'
import type { GrantTokens } from './tokens.ts'

/** One address at one storage, and the grant that opens it. */
export interface Place {
  readonly url: string
  /** Where the token is tried first, if not at `url`: an address that it surely opens. */
  readonly provenAt?: string
  readonly grant: number
  /** Which storage this is in the transfer at hand. */
  readonly scope: 'SOURCE' | 'DESTINATION'
  readonly storage: StorageClient
}

/**
 * How much life a token must have for an operation, seconds; one that never lived longer is taken while half of it is left.
 * A token is checked when a file is opened; dCache uses it again after the transfer (facts/http-tpc.md section 4).
 */
const LIFE_SECONDS = 300
/** How long a grant that a storage refused twice is not shown there again, if the server does not hold it. */
const HOLD_MS = 60_000
/** Pairs of storage and grant that are remembered; the first proven go first, at the cost of another canary. */
const MOST_PROOFS = 10_000

interface Proof {
  readonly done: Promise<void>
  /** On the monotonic clock; a failed proof counts until then. */
  until: number
}

/**
 * The tokens of grants as they are shown to storages. The first use of a grant at a storage is one canary, a HEAD: a 401 to
 * it stops all others, the token is renewed, the canary sent once more, and then the server holds the grant. dCache blocks a
 * worker's address after three 401s (facts/http-tpc.md section 5), so sixty copies must not try one bad token.
 */
export class StorageAccess {
  readonly #tokens: GrantTokens
  readonly #clock: Clock
  readonly #signal: AbortSignal
  /** By storage and grant, as long as the session lasts. */
  readonly #proofs = new Map<string, Proof>()
  /** Likewise: whether the first COPY was believed, once that is known. */
  readonly #copies = new Map<string, Promise<boolean>>()
  /** Likewise: how many COPYs in a row it denied. */
  readonly #denials = new Map<string, number>()

  constructor(options: { tokens: GrantTokens; clock: Clock; signal: AbortSignal }) {
    this.#tokens = options.tokens
    this.#clock = options.clock
    this.#signal = options.signal
  }

  /** A token to send now. Throws `TokenUnavailable`, or `StorageError` when the canary was refused or found nobody. */
  async token(place: Place): Promise<Secret> {
    await this.#proven(place)
    return this.#tokens.tokenFor(place.grant, LIFE_SECONDS)
  }

  /**
   * A storage answered 401 to this token: it is not used again, and the next one is tried by a canary. `canary`: it was the first
   * request of its kind with the grant.
   */
  refused(place: Place, token: Secret, { message }: Pick<StorageError, 'message'>, canary = false): void {
    this.#tokens.forget(place.grant, token, { canary, message })
    this.#proofs.delete(keyOf(place))
    this.#copies.delete(keyOf(place))
  }

  /**
   * The first COPY under a grant at a storage goes alone, until the storage has taken it: dCache believes in a HEAD what it refuses
   * in a COPY, and its third refusal blocks the worker (facts/http-tpc.md section 5). The others wait here, until `signal` aborts.
   */
  async copyTurn(place: Place, signal: AbortSignal): Promise<CopyTurn> {
    const key = keyOf(place)
    for (let before = this.#copies.get(key); before !== undefined; before = this.#copies.get(key)) {
      if (await orAborted(before, signal)) return NO_TURN
    }
    let settle: (believed: boolean) => void = () => undefined
    const turn = new Promise<boolean>(resolve => {
      settle = resolve
    })
    remember(this.#copies, key, turn)
    const end = (believed: boolean): void => {
      if (believed) this.#denials.delete(key)
      else if (this.#copies.get(key) === turn) this.#copies.delete(key)
      settle(believed)
    }
    return { isFirst: true, end }
  }

  /**
   * A storage denied a COPY (403), or its side of one (401), and has taken none under this grant since: true if another token is worth a
   * try. It may be the token or the file: once the token is renewed, then one more file may be forbidden by itself, and with the third
   * the grant is held.
   */
  denied(place: Place, token: Secret, failure: Pick<StorageError, 'message'>): boolean {
    const key = keyOf(place)
    const denials = (this.#denials.get(key) ?? 0) + 1
    remember(this.#denials, key, denials)
    if (denials !== 2) this.refused(place, token, failure, denials > 2)
    return denials === 1
  }

  /** A storage has done its side of a COPY. */
  believed(place: Place): void {
    this.#denials.delete(keyOf(place))
  }

  /** Runs one operation, and once more with another token if the first is refused. */
  async use<T>(place: Place, run: (token: Secret) => Promise<T>): Promise<T> {
    const token = await this.token(place)
    try {
      return await run(token)
    } catch (error) {
      if (!isRefusal(error)) throw error
      this.refused(place, token, error.failure)
      return run(await this.token(place))
    }
  }

  #proven(place: Place): Promise<void> {
    const key = keyOf(place)
    const known = this.#proofs.get(key)
    if (known !== undefined && known.until > this.#clock.monotonic()) return known.done
    const proof: Proof = { done: this.#prove(place), until: Number.POSITIVE_INFINITY }
    remember(this.#proofs, key, proof)
    proof.done.catch(error => {
      // A refusal is remembered; a storage that did not answer is simply asked again.
      if (isRefusal(error)) proof.until = this.#clock.monotonic() + HOLD_MS
      else if (this.#proofs.get(key) === proof) this.#proofs.delete(key)
    })
    return proof.done
  }

  async #prove(place: Place): Promise<void> {
    const { grant } = place
    let refusal: StorageError | undefined
    // After two the server holds the grant, and gives no token for a third: there is one only when the token came from a
    // request that was under way already, and the server has not heard of the refusal.
    for (let canaries = 0; canaries < 3; canaries += 1) {
      refusal = await this.#canary(place)
      if (refusal === undefined) return
    }
    await this.#tokens.tokenFor(grant, LIFE_SECONDS)
    throw refusal
  }

  /** The storage's 401, of which the server will hear. Any other answer of who has looked at the token means that it is believed. */
  async #canary({ url, provenAt = url, grant, scope, storage }: Place): Promise<StorageError | undefined> {
    const token = await this.#tokens.tokenFor(grant, LIFE_SECONDS)
    try {
      await storage.head(provenAt, token, { scope, signal: this.#signal })
      return undefined
    } catch (error) {
      if (isRefusal(error)) {
        this.#tokens.forget(grant, token, { canary: true, message: error.failure.message })
        return error
      }
      if (!(error instanceof StorageError) || error.failure.httpStatus === undefined) throw error
      if (isUnseen(error.failure)) throw error
      return undefined
    }
  }
}

const UNSEEN = new Set([429, 502, 503, 504])

/** Whether it is an answer of who has not looked at the token: dCache while it blocks an address, or a gateway with no storage behind it. */
export function isUnseen({ httpStatus }: Pick<TransferFailure, 'httpStatus'>): boolean {
  return httpStatus !== undefined && UNSEEN.has(httpStatus)
}

/** Leave to send a COPY. `end`: whether the storage believed the token; only the first call counts. */
export interface CopyTurn {
  readonly isFirst: boolean
  end(believed: boolean): void
}

/** For who need not wait, or does not any more. */
export const NO_TURN: CopyTurn = { isFirst: false, end: () => undefined }

/** What was waited for; true as soon as `signal` aborts. */
async function orAborted(awaited: Promise<boolean>, signal: AbortSignal): Promise<boolean> {
  let onAbort: () => void = () => undefined
  const aborted = new Promise<true>(resolve => {
    onAbort = () => resolve(true)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })
  return Promise.race([awaited, aborted]).finally(() => signal.removeEventListener('abort', onAbort))
}

function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  const oldest = map.keys().next()
  if (map.size > MOST_PROOFS && !oldest.done) map.delete(oldest.value)
}

function keyOf({ url, grant }: Place): string {
  return `${grant} ${url.slice(0, url.indexOf('/', 'https://'.length))}`
}

function isRefusal(error: unknown): error is StorageError {
  return error instanceof StorageError && error.failure.code === 'TOKEN_REFUSED'
}
