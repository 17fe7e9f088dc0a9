import { setMaxListeners } from 'node:events'
import { ApiError } from '../shared/contract/client.ts'
import { WORKER_CONTRACT } from '../shared/contract/worker-contract.ts'
import { newRecipient, type Recipient } from '../shared/oidc/sealed-transport.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import { version } from '../shared/runtime/version.ts'
import { backoff, inWords, isSessionOver, type Patience, untilAnswered, type WorkerApi } from './server.ts'

/** One claim of a transfer: an older one of the same transfer is another. */
export interface HeldAttempt {
  readonly transfer: number
  readonly fence: number
}

/** `bytes` of all stripes so far. */
export interface ProgressEntry {
  readonly transfer: number
  readonly fence: number
  readonly state: 'COPYING'
  readonly bytes: number
}

/** What goes along with the heartbeats of a session. */
export interface HeartbeatLoad {
  /** What changed since `told` last heard of it. */
  changed(): ProgressEntry[]
  /** Since when the oldest of what is urgent waits to be told, monotonic milliseconds; undefined: nothing is. */
  urgentSince(): number | undefined
  /** The server knows these now. */
  told(entries: readonly ProgressEntry[]): void
  /** Transfers that nobody wants any more. */
  cancel(transfers: readonly number[]): void
}

export interface SessionOptions {
  readonly api: Pick<WorkerApi, 'openSession' | 'heartbeat' | 'closeSession'>
  readonly worker: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  readonly onRenewal?: (outcome: 'ok' | 'failed') => void
}

/** Part of the lease that is left unused, so that everything under it has stopped when it ends. */
const RESERVE = 0.15

/** When work under a lease must stop: `askedAt` is from before the request that extended it, all on the monotonic clock. */
export function stopBy(askedAt: number, leaseSeconds: number): number {
  return askedAt + leaseSeconds * 1000 * (1 - RESERVE)
}

/** What must be told soon waits at least so long, and less than twice: one request for all, and none for what is over by then. */
const TELL_MS = 200

/** Opens a session with a new key, however long the server is away. Rejects with its refusal, or when `signal` aborts. */
export async function openSession(options: SessionOptions, signal: AbortSignal): Promise<Session> {
  const { api, worker, clock, random, log } = options
  const recipient = await newRecipient()
  let askedAt = 0
  const onFailure = (error: unknown) => log.warn(inWords(error), 'no session yet: the server or the issuer is away')
  const patience: Patience = { clock, random, signal, onFailure }
  const answer = await untilAnswered(patience, () => {
    askedAt = clock.monotonic()
    return api.openSession({ body: { contract: WORKER_CONTRACT, worker, version, key: recipient.publicJwk }, signal })
  })
  return new Session(options, recipient, answer, stopBy(askedAt, answer.leaseSeconds))
}

/**
 * A lease at the server, which covers all that is claimed under it. `ended` aborts when it can no longer be relied on: then
 * every attempt stops, and nothing more is reported under it.
 */
export class Session {
  readonly id: number
  readonly recipient: Recipient
  readonly #options: SessionOptions
  readonly #heartbeatMs: number
  readonly #over = new AbortController()
  #stopBy: number
  /** Ends the wait for the next heartbeat. */
  #early = new AbortController()
  #telling = false
  #load: HeartbeatLoad | undefined

  constructor(
    options: SessionOptions,
    recipient: Recipient,
    opened: { readonly session: number; readonly heartbeatSeconds: number },
    stopBy: number,
  ) {
    this.#options = options
    this.id = opened.session
    this.recipient = recipient
    this.#heartbeatMs = opened.heartbeatSeconds * 1000
    this.#stopBy = stopBy
    // Every request under the session listens to it.
    setMaxListeners(0, this.ended)
  }

  get ended(): AbortSignal {
    return this.#over.signal
  }

  /** The server knows it no more, or all is done. */
  end(): void {
    this.#over.abort()
  }

  /**
   * Has the next heartbeat go out in a moment, with all that changed until then. Copies that end sooner tell of themselves with
   * their outcome: at a high rate of small files there is nothing to tell.
   */
  tellSoon(): void {
    if (this.#telling) return
    this.#telling = true
    void this.#tell()
  }

  async #tell(): Promise<void> {
    const { clock } = this.#options
    while (!this.ended.aborted) {
      await clock.sleep(TELL_MS, this.ended)
      const since = this.#load?.urgentSince()
      if (since === undefined) break
      if (clock.monotonic() - since < TELL_MS) continue
      this.#early.abort()
      break
    }
    this.#telling = false
  }

  /** Sends heartbeats until the session ends, and ends it when none was answered in time. */
  async keep(load: HeartbeatLoad): Promise<void> {
    this.#load = load
    await Promise.all([this.#watch(), this.#beat(load)])
  }

  /** Tells the server that nothing is held any more. What it does not hear it finds out by the lease. */
  async close(): Promise<void> {
    const { api, log } = this.#options
    try {
      await api.closeSession({ params: { id: this.id }, timeoutMs: 2_000 })
    } catch (error) {
      log.warn({ session: this.id, ...inWords(error) }, 'the session could not be closed; its lease will run out')
    }
  }

  async #watch(): Promise<void> {
    const { clock, log } = this.#options
    while (!this.ended.aborted) {
      const left = this.#stopBy - clock.monotonic()
      if (left > 0) {
        await clock.sleep(left, this.ended)
        continue
      }
      log.warn({ session: this.id }, 'the lease could not be renewed: all attempts stop')
      this.end()
    }
  }

  async #beat(load: HeartbeatLoad): Promise<void> {
    const { clock, random } = this.#options
    let failures = 0
    while (!this.ended.aborted) {
      if (failures === 0) await this.#untilHeartbeat()
      else await clock.sleep(Math.min(this.#heartbeatMs, backoff(failures, random.fraction())), this.ended)
      this.#early = new AbortController()
      if (!this.ended.aborted) failures = (await this.#heartbeat(load)) ? 0 : failures + 1
    }
  }

  async #untilHeartbeat(): Promise<void> {
    const early = this.#early
    const onEnd = () => early.abort()
    this.ended.addEventListener('abort', onEnd, { once: true })
    await this.#options.clock.sleep(this.#heartbeatMs, early.signal)
    this.ended.removeEventListener('abort', onEnd)
  }

  async #heartbeat(load: HeartbeatLoad): Promise<boolean> {
    const { api, clock, log, onRenewal } = this.#options
    const askedAt = clock.monotonic()
    const progress = load.changed()
    const timeoutMs = Math.max(1_000, Math.min(this.#heartbeatMs, this.#stopBy - askedAt))
    try {
      const answer = await api.heartbeat({ params: { id: this.id }, body: { progress }, timeoutMs, signal: this.ended })
      this.#stopBy = Math.max(this.#stopBy, stopBy(askedAt, answer.leaseSeconds))
      onRenewal?.('ok')
      load.told(progress)
      load.cancel(answer.cancel)
      return true
    } catch (error) {
      if (this.ended.aborted) return false
      onRenewal?.('failed')
      const gone = error instanceof ApiError && (error.status === 404 || error.status === 409 || error.status === 410)
      if (gone || isSessionOver(error)) {
        log.warn({ session: this.id }, 'the server has ended the session: all attempts stop')
        this.end()
      } else {
        log.warn({ session: this.id, ...inWords(error) }, 'no answer to a heartbeat')
      }
      return false
    }
  }
}
