import { setMaxListeners } from 'node:events'
import type { z } from 'zod'
import type { ClaimedTransfer, ImportJob, WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { Routes } from '../shared/contract/routes.ts'
import type { IssuerClient } from '../shared/oidc/issuer-client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { Watchdogs } from '../shared/storage/types.ts'
import { StorageAccess } from './access.ts'
import type { Workshop } from './attempt.ts'
import { runImport } from './list.ts'
import type { WorkerMetrics } from './metrics.ts'
import type { ModeMemory } from './mode.ts'
import { Renewals } from './renewals.ts'
import { Reporter } from './report.ts'
import { RunningAttempt } from './running.ts'
import { backoff, isAway, isSessionOver, type WorkerApi } from './server.ts'
import type { HeartbeatLoad, ProgressEntry, Session } from './session.ts'
import type { Storages } from './storages.ts'
import { GrantTokens } from './tokens.ts'

export interface WorkOptions {
  readonly api: WorkerApi
  readonly issuers: ReadonlyMap<string, IssuerClient>
  readonly storages: Storages
  readonly modes: ModeMemory
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  readonly metrics: WorkerMetrics
  /** Attempts at once. */
  readonly concurrency: number
  readonly watchdogs: Partial<Watchdogs>
  readonly settleMs: number
  /** How long attempts may go on after a stop was asked for, milliseconds. */
  readonly shutdownMs: number
}

type Claimed = z.output<Routes['claim']['answer']>

/** How long the server may hold a claim for which it has no work. */
const WAIT_SECONDS = 20
/** A worker without room still asks, for grants to renew. */
const FULL_MS = 10_000
/** Room that comes free within this time is claimed together. */
const GATHER_MS = 50
/** Attempts that had to stop have so long to see it: what hangs longer is left to the next lease. */
const LAST_MS = 10_000

/** How much to claim and how long to wait for it: pure. `got`: what the last claim gave. */
export function nextClaim(room: number, got: number): { limit: number; waitSeconds: number } {
  return { limit: Math.max(0, room), waitSeconds: room > 0 && got === 0 ? WAIT_SECONDS : 0 }
}

/** Claims, runs and reports under one session, until it ends or `stopping` aborts. */
export class Work implements HeartbeatLoad {
  readonly #options: WorkOptions
  readonly #session: Session
  readonly #stopping: AbortSignal
  readonly #running = new Map<number, RunningAttempt>()
  readonly #imports = new Set<Promise<void>>()
  readonly #importing = new AbortController()
  /** Aborts when nothing of this session may go on. */
  readonly #ending = new AbortController()
  readonly #tokens: GrantTokens
  readonly #renewals: Renewals
  readonly #reporter: Reporter
  readonly #workshop: Workshop
  #freed = new AbortController()

  constructor(options: WorkOptions, session: Session, stopping: AbortSignal) {
    this.#options = options
    this.#session = session
    this.#stopping = stopping
    const { api, issuers, clock, random, log, metrics, modes, watchdogs, settleMs } = options
    const { id, recipient } = session
    const signal = this.#ending.signal
    setMaxListeners(0, signal, this.#importing.signal)
    const onLookup = (hit: boolean) => metrics.tokenLookup(hit)
    this.#tokens = new GrantTokens({ api, session: id, recipient, issuers, clock, random, signal, onLookup })
    this.#renewals = new Renewals(this.#tokens, log)
    const onAnswer = (answer: string) => metrics.outcomeReported(answer)
    this.#reporter = new Reporter({ api, session, clock, random, log, onAnswer })
    const access = new StorageAccess({ tokens: this.#tokens, clock, signal })
    this.#workshop = { api, session: id, access, modes, clock, random, watchdogs, settleMs }
  }

  /** Resolves when nothing of it runs any more, and everything was reported or the session has ended. */
  async run(): Promise<void> {
    const { clock, shutdownMs } = this.#options
    const session = this.#session
    const onEnded = () => this.#endAll()
    session.ended.addEventListener('abort', onEnded, { once: true })
    const kept = session.keep(this)
    await this.#claimAll()
    this.#importing.abort()
    if (!session.ended.aborted) await Promise.race([this.#idle(), clock.sleep(shutdownMs, session.ended)])
    this.#endAll()
    await Promise.race([this.#finished(), clock.sleep(LAST_MS)])
    if (!session.ended.aborted) {
      await Promise.race([this.#reporter.drain(), clock.sleep(LAST_MS, session.ended)])
      await session.close()
    }
    session.end()
    session.ended.removeEventListener('abort', onEnded)
    await kept
  }

  changed(): ProgressEntry[] {
    return [...this.#running.values()].flatMap(attempt => attempt.changed() ?? [])
  }

  told(entries: readonly ProgressEntry[]): void {
    for (const entry of entries) this.#running.get(entry.transfer)?.told(entry)
  }

  cancel(transfers: readonly number[]): void {
    for (const transfer of transfers) this.#running.get(transfer)?.cancel()
  }

  async #claimAll(): Promise<void> {
    const { api, clock, random, log, metrics } = this.#options
    const { ended } = this.#session
    const stop = new AbortController()
    const onStop = () => stop.abort()
    for (const signal of [this.#stopping, ended]) signal.addEventListener('abort', onStop, { once: true })
    let got: number = 1
    let failures = 0
    while (!this.#stopping.aborted && !ended.aborted) {
      await this.#gatherRoom(stop.signal)
      if (stop.signal.aborted) break
      try {
        const body = { session: this.#session.id, ...nextClaim(this.#room, got) }
        const claimed: Claimed = await api.claim({
          body,
          signal: stop.signal,
          timeoutMs: (body.waitSeconds + 30) * 1000,
        })
        failures = 0
        got = claimed.transfers.length
        metrics.claimed(got)
        if (!ended.aborted) this.#take(claimed)
      } catch (error) {
        if (stop.signal.aborted) break
        if (isSessionOver(error)) this.#session.end()
        failures += 1
        const level = isAway(error) ? 'warn' : 'error'
        log[level]({ err: error }, 'no answer to a claim')
        await clock.sleep(backoff(failures, random.fraction()), stop.signal)
      }
    }
    for (const signal of [this.#stopping, ended]) signal.removeEventListener('abort', onStop)
  }

  get #room(): number {
    return this.#options.concurrency - this.#running.size
  }

  /** At once while there is room; else when some came free, and a moment later more. */
  async #gatherRoom(stop: AbortSignal): Promise<void> {
    const { concurrency } = this.#options
    if (this.#room > 0) return
    await this.#untilFreed(1, FULL_MS, stop)
    if (this.#room > 0) await this.#untilFreed(Math.ceil(concurrency / 8), GATHER_MS, stop)
  }

  async #untilFreed(room: number, ms: number, stop: AbortSignal): Promise<void> {
    const { clock } = this.#options
    const until = clock.monotonic() + ms
    while (this.#room < room && clock.monotonic() < until && !stop.aborted) {
      this.#freed = new AbortController()
      const freed = this.#freed
      const onStop = () => freed.abort()
      stop.addEventListener('abort', onStop, { once: true })
      await clock.sleep(until - clock.monotonic(), freed.signal)
      stop.removeEventListener('abort', onStop)
    }
  }

  #take({ transfers, storages, renewals, imports }: Claimed): void {
    const traits = new Map(storages.map(storage => [storage.rse, storage]))
    for (const transfer of transfers) this.#start(transfer, traits)
    for (const job of imports) this.#startImport(job)
    this.#renewals.want(renewals)
  }

  #start(transfer: ClaimedTransfer, traits: ReadonlyMap<string, WorkerStorage>): void {
    const { storages, log, metrics, clock } = this.#options
    const attempt = new RunningAttempt(transfer, traits, { storages, workshop: this.#workshop, clock, log, metrics })
    this.#running.set(transfer.transfer, attempt)
    metrics.active(1)
    void attempt.run().then(ended => {
      this.#running.delete(transfer.transfer)
      metrics.active(-1)
      if (!this.#session.ended.aborted) this.#reporter.report(ended)
      this.#freed.abort()
    })
  }

  #startImport(job: ImportJob): void {
    const { api, storages, clock, random, log } = this.#options
    const { access } = this.#workshop
    const place = {
      url: job.url,
      grant: job.grant,
      scope: 'SOURCE',
      storage: storages.client(job.storage, job.url),
    } as const
    const options = { api, session: this.#session.id, access, clock, random, signal: this.#importing.signal }
    const running = runImport(job, place, options).catch(error =>
      log.error({ import: job.import, err: error }, 'an import failed; another session will begin it anew'),
    )
    this.#imports.add(running)
    void running.finally(() => this.#imports.delete(running))
  }

  #endAll(): void {
    this.#ending.abort()
    this.#importing.abort()
    for (const attempt of this.#running.values()) attempt.stop()
  }

  /** Resolves when no attempt runs. */
  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.race([...this.#running.values()].map(attempt => attempt.ended))
  }

  async #finished(): Promise<void> {
    await this.#idle()
    await Promise.all([...this.#imports, this.#tokens.settled()])
  }
}
