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
  readonly onAnswer?: (answer: string) => void
  /** The server did not take an outcome: what it has of that transfer is not known. */
  readonly onDropped?: () => void
}

/** So many are sent at once, or as many as there are after the pause. */
const BATCH = 100
const PAUSE_MS = 200
const LARGEST_BATCH = 1000

/**
 * Reports outcomes in batches, one request at a time, and repeats each batch until it is answered: `already-applied` and
 * `refused` are answers too, though the transfer may still be this session's then. What is unanswered when the session ends is
 * dropped: others settle it.
 */
export class Reporter {
  readonly #options: ReporterOptions
  #queue: EndedAttempt[] = []
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
    if (this.#queue.length >= BATCH) this.#full.abort()
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
    while (this.#queue.length > 0 && !session.ended.aborted) {
      if (this.#queue.length < BATCH && !this.#draining) await clock.sleep(PAUSE_MS, this.#full.signal)
      this.#full = new AbortController()
      const batch = this.#queue.splice(0, LARGEST_BATCH)
      await this.#send(batch)
    }
    this.#queue = []
    this.#sending = undefined
  }

  async #send(batch: readonly EndedAttempt[]): Promise<void> {
    const { api, session, clock, random, log, onAnswer, onDropped } = this.#options
    try {
      const { results } = await untilAnswered({ clock, random, signal: session.ended }, () => {
        const now = clock.monotonic()
        const outcomes = batch.map(({ endedAt, ...rest }) => ({ ...rest, endedMsAgo: Math.max(0, now - endedAt) }))
        return api.reportOutcomes({ body: { session: session.id, outcomes }, signal: session.ended })
      })
      for (const one of batch) this.#unanswered.delete(one)
      for (const { transfer, answer } of results) {
        onAnswer?.(answer)
        if (answer === 'refused') {
          log.warn({ transfer }, 'the server refused an outcome: another attempt has the transfer, or it is settled')
          onDropped?.()
        }
      }
    } catch (error) {
      if (session.ended.aborted) return
      if (isSessionOver(error)) {
        session.end()
        return
      }
      // One outcome that the server cannot take must not take the others with it.
      if (batch.length > 1) {
        for (const one of batch) await this.#send([one])
        return
      }
      for (const one of batch) this.#unanswered.delete(one)
      log.error(
        { transfer: batch[0]?.transfer, ...inWords(error) },
        'the server cannot take an outcome: it will be settled',
      )
      onDropped?.()
    }
  }
}
