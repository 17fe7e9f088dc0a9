import { ApiError } from '../shared/contract/client.ts'
import type { Outcome } from '../shared/contract/routes/worker.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import { inWords, isSessionOver, untilAnswered, type WorkerApi } from './server.ts'
import type { HeldAttempt, Session } from './session.ts'

/** An outcome before it is sent; `endedAt` is monotonic milliseconds. */
export type EndedAttempt = Omit<Outcome, 'transfer' | 'endedMsAgo'> & {
  readonly transfer: number
  readonly endedAt: number
}

export interface ReporterOptions {
  readonly api: Pick<WorkerApi, 'reportOutcomes'>
  readonly session: Pick<Session, 'id' | 'ended' | 'end'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  /** Whether so many outcomes are not to wait for more: the server's limits hold back what the worker wants. */
  readonly isUrgent: (count: number) => boolean
  readonly onAnswer?: (answer: string) => void
  /** The server did not take an outcome: what it has of that transfer is not known. */
  readonly onDropped?: () => void
}

/** So many are sent at once, or as many as there are after the pause. */
const BATCH = 100
const PAUSE_MS = 200
const LARGEST_BATCH = 1000
/** A batch that the server fails at so often is sent one by one. */
const TRIES = 5
/**
 * What the server fails at for so long is given up. Heartbeats have gone through meanwhile, or the session would have ended: it
 * is this outcome that the server cannot take.
 */
const POISON_MS = 120_000
/** Between two rounds with nothing but what the server fails at. */
const AGAIN_MS = 2_000

interface Suspect {
  readonly ended: EndedAttempt
  /** Monotonic milliseconds. */
  readonly since: number
}

type Sent = 'answered' | 'failing' | 'refused' | 'over'

/**
 * Reports outcomes in batches, one request at a time, and repeats each batch until it is answered: `already-applied` and
 * `refused` are answers too, though the transfer may still be this session's then. What makes the server fail is sent by itself,
 * behind all others. What is unanswered when the session ends is dropped: others settle it.
 */
export class Reporter {
  readonly #options: ReporterOptions
  #queue: EndedAttempt[] = []
  #suspects: Suspect[] = []
  readonly #unanswered = new Set<EndedAttempt>()
  #sending: Promise<void> | undefined
  #full = new AbortController()
  #draining = false

  constructor(options: ReporterOptions) {
    this.#options = options
  }

  /** Those whose outcome the server has not answered for. */
  get unanswered(): HeldAttempt[] {
    return [...this.#unanswered].map(({ transfer, fence }) => ({ transfer, fence }))
  }

  report(ended: EndedAttempt): void {
    this.#queue.push(ended)
    this.#unanswered.add(ended)
    if (this.#queue.length === BATCH || this.#options.isUrgent(this.#queue.length)) this.#full.abort()
    this.#sending ??= this.#sendAll()
  }

  /** Sends without waiting for more, and resolves when everything was answered or the session has ended. */
  async drain(): Promise<void> {
    this.#draining = true
    this.#full.abort()
    await this.#sending
  }

  async #sendAll(): Promise<void> {
    const { clock, session } = this.#options
    while (this.#queue.length + this.#suspects.length > 0 && !session.ended.aborted) {
      if (this.#queue.length === 0) await clock.sleep(AGAIN_MS, session.ended)
      else if (this.#queue.length < BATCH && !this.#draining) await clock.sleep(PAUSE_MS, this.#full.signal)
      this.#full = new AbortController()
      const batch = this.#queue.splice(0, LARGEST_BATCH)
      if (batch.length > 0) await this.#sendBatch(batch)
      await this.#sendSuspects()
    }
    this.#queue = []
    this.#suspects = []
    this.#sending = undefined
  }

  async #sendBatch(batch: readonly EndedAttempt[]): Promise<void> {
    const sent = await this.#send(batch, TRIES)
    // One outcome that the server cannot take must not take the others with it.
    const apart = sent === 'failing' || (sent === 'refused' && batch.length > 1)
    if (apart) this.#suspects.push(...batch.map(ended => ({ ended, since: this.#options.clock.monotonic() })))
    else if (sent === 'refused') this.#drop(batch)
  }

  /** Each of them once. */
  async #sendSuspects(): Promise<void> {
    const { clock } = this.#options
    for (const suspect of this.#suspects.splice(0)) {
      const sent = await this.#send([suspect.ended], 1)
      if (sent === 'failing' && clock.monotonic() - suspect.since < POISON_MS) this.#suspects.push(suspect)
      else if (sent === 'failing' || sent === 'refused') this.#drop([suspect.ended])
    }
  }

  /** Repeats while the server is away. `failing`: it was there, and failed `tries` times. */
  async #send(batch: readonly EndedAttempt[], tries: number): Promise<Sent> {
    const { api, session, clock, random, log, onAnswer, onDropped } = this.#options
    let failures = 0
    try {
      const { results } = await untilAnswered({ clock, random, signal: session.ended }, async () => {
        const now = clock.monotonic()
        const outcomes = batch.map(({ endedAt, ...rest }) => ({ ...rest, endedMsAgo: Math.max(0, now - endedAt) }))
        try {
          return await api.reportOutcomes({ body: { session: session.id, outcomes }, signal: session.ended })
        } catch (error) {
          if (isFault(error)) failures += 1
          throw failures >= tries ? new ServerFails(error) : error
        }
      })
      for (const one of batch) this.#unanswered.delete(one)
      for (const { transfer, answer } of results) {
        onAnswer?.(answer)
        if (answer === 'refused') {
          log.warn({ transfer }, 'the server refused an outcome: another attempt has the transfer, or it is settled')
          onDropped?.()
        }
      }
      return 'answered'
    } catch (error) {
      if (session.ended.aborted) return 'over'
      if (isSessionOver(error)) {
        session.end()
        return 'over'
      }
      const cause = error instanceof ServerFails ? error.cause : error
      log.warn(
        { transfers: batch.map(({ transfer }) => transfer).slice(0, 10), ...inWords(cause) },
        'outcomes were not taken',
      )
      return error instanceof ServerFails ? 'failing' : 'refused'
    }
  }

  #drop(batch: readonly EndedAttempt[]): void {
    const { log, onDropped } = this.#options
    for (const ended of batch) {
      this.#unanswered.delete(ended)
      const { transfer, fence, result, error } = ended
      log.error(
        { transfer, fence, result, error },
        'the server cannot take this outcome: it is given up, and will be settled',
      )
      onDropped?.()
    }
  }
}

/** The server itself failed at the request; whatever stands between would not say so. */
function isFault(error: unknown): boolean {
  return error instanceof ApiError && error.code === 'INTERNAL'
}

class ServerFails extends Error {
  constructor(cause: unknown) {
    super('the server failed at a report again and again', { cause })
  }
}
