import type { ClaimedTransfer, WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Attempt, Ending, Progress, Workshop } from './attempt.ts'
import { runCopy } from './copy.ts'
import { type AttemptFailure, reportedError, sideOf, workerFault } from './failure.ts'
import type { WorkerMetrics } from './metrics.ts'
import type { EndedAttempt } from './report.ts'
import type { HeldAttempt, ProgressEntry } from './session.ts'
import { runSettle } from './settle.ts'
import type { Slots } from './slots.ts'
import type { Storages } from './storages.ts'

export interface RunningOptions {
  readonly storages: Storages
  readonly workshop: Workshop
  readonly slots: Slots
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: WorkerMetrics
  /** What `changed` tells is urgent now. */
  readonly onTaken: () => void
}

/** A claimed transfer from its start to the outcome that is reported: how it is stopped, cancelled, told of and recorded. */
export class RunningAttempt {
  readonly #transfer: ClaimedTransfer
  readonly #traits: ReadonlyMap<string, WorkerStorage>
  readonly #options: RunningOptions
  readonly #stop = new AbortController()
  readonly #copying = new AbortController()
  readonly #progress: Progress = { sent: false, left: 'unknown', bytes: 0, mode: undefined }
  #told: number | undefined
  /** Monotonic milliseconds. */
  #takenAt: number | undefined
  #resolveEnded: () => void = () => undefined
  /** Resolves with the attempt. */
  readonly ended = new Promise<void>(resolve => {
    this.#resolveEnded = resolve
  })

  constructor(transfer: ClaimedTransfer, traits: ReadonlyMap<string, WorkerStorage>, options: RunningOptions) {
    this.#transfer = transfer
    this.#traits = traits
    this.#options = options
  }

  get held(): HeldAttempt {
    const { transfer, fence } = this.#transfer
    return { transfer, fence }
  }

  /** Never rejects. */
  async run(): Promise<EndedAttempt> {
    const { clock, slots, metrics } = this.#options
    const begins = await slots.take(this.#stop.signal)
    const startedAt = clock.monotonic()
    if (begins) metrics.active(1)
    const ending = begins ? await this.#end() : ({ result: 'handed-back' } as const)
    const endedAt = clock.monotonic()
    const ended = this.#outcome(ending, startedAt, endedAt)
    this.#record(ending, ended)
    if (begins) {
      metrics.active(-1)
      slots.release()
    }
    this.#resolveEnded()
    return ended
  }

  /** Everything ends, without clean-up. */
  stop(): void {
    this.#stop.abort()
    this.#copying.abort()
  }

  /** Copying ends; what it left is cleaned up. Settling has nothing to cancel: it ends with what it finds. */
  cancel(): void {
    this.#copying.abort()
  }

  /** What the server does not know yet of a copy under way. */
  changed(): ProgressEntry | undefined {
    const { transfer, fence, kind } = this.#transfer
    const { left, bytes } = this.#progress
    if (kind !== 'copy' || left !== 'own' || bytes === this.#told) return undefined
    return { transfer, fence, state: 'COPYING', bytes }
  }

  /** Since when (monotonic milliseconds) something at the destination may be its own that the server has not heard of. */
  get untoldSince(): number | undefined {
    return this.#told === undefined && this.changed() !== undefined ? this.#takenAt : undefined
  }

  told({ bytes }: ProgressEntry): void {
    this.#told = bytes
  }

  async #end(): Promise<Ending> {
    const { workshop, log } = this.#options
    const { transfer, fence, kind } = this.#transfer
    try {
      const attempt = this.#attempt()
      return await (kind === 'copy' ? runCopy(attempt, workshop) : runSettle(attempt, workshop))
    } catch (error) {
      log.error({ transfer, fence, err: error }, 'a fault of the worker ended an attempt')
      if (kind === 'settle') return { result: 'growing', failure: workerFault() }
      if (this.#progress.sent) return { result: 'unknown', failure: workerFault() }
      return { result: 'failed', failure: workerFault(), cleaned: false }
    }
  }

  #attempt(): Attempt {
    const transfer = this.#transfer
    return {
      transfer,
      source: this.#place('SOURCE', transfer.source),
      destination: this.#place('DESTINATION', transfer.destination),
      stop: this.#stop.signal,
      copying: this.#copying.signal,
      progress: this.#progress,
      onTaken: () => {
        this.#takenAt ??= this.#options.clock.monotonic()
        this.#options.onTaken()
      },
    }
  }

  #place<S extends 'SOURCE' | 'DESTINATION'>(scope: S, { rse, url, grant }: ClaimedTransfer['source']) {
    const traits = this.#traits.get(rse)
    if (traits === undefined) throw new Error(`the claim does not describe the storage ${rse}`)
    return { url, grant, scope, traits, storage: this.#options.storages.client(traits, url) }
  }

  #outcome(ending: Ending, startedAt: number, endedAt: number): EndedAttempt {
    const { transfer, fence, source, destination } = this.#transfer
    const failure = failureIn(ending)
    const { mode, left } = this.#progress
    return {
      transfer,
      fence,
      result: ending.result,
      left,
      ...(mode === undefined ? {} : { mode }),
      durationMs: endedAt - startedAt,
      endedAt,
      bytes: ending.result === 'done' ? ending.bytes : this.#progress.bytes,
      cleaned: ending.result === 'failed' && ending.cleaned,
      sourceGrant: source.grant,
      destinationGrant: destination.grant,
      ...(failure === undefined ? {} : { error: reportedError(failure) }),
    }
  }

  #record(ending: Ending, ended: EndedAttempt): void {
    const { log, metrics } = this.#options
    const { transfer, fence, did, kind, source, destination } = this.#transfer
    const failure = failureIn(ending)
    const { result, mode, bytes, durationMs } = ended
    const fields = { transfer, fence, did, kind, source: source.rse, destination: destination.rse, result, mode, bytes }
    const why = failure === undefined ? {} : { code: failure.code, scope: failure.scope, words: failure.message }
    log.info({ ...fields, ms: Math.round(durationMs), ...why }, 'attempt ended')
    metrics.attemptEnded({
      source: source.rse,
      destination: destination.rse,
      outcome: result,
      bytes,
      seconds: durationMs / 1000,
      ...(failure === undefined ? {} : { error: { rse: this.#atFault(failure), code: failure.code } }),
    })
  }

  #atFault(failure: AttemptFailure): string {
    return (sideOf(failure) === 'SOURCE' ? this.#transfer.source : this.#transfer.destination).rse
  }
}

function failureIn(ending: Ending): AttemptFailure | undefined {
  return 'failure' in ending ? ending.failure : undefined
}
