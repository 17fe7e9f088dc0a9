import { setMaxListeners } from 'node:events'
import type { z } from 'zod'
import {
  type ClaimedTransfer,
  type ImportJob,
  MOST_CLAIMED,
  MOST_HELD,
  type StorageTask,
  type WorkerStorage,
} from '../shared/contract/routes/worker.ts'
import type { Routes } from '../shared/contract/routes.ts'
import type { IssuerClient } from '../shared/oidc/issuer-client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { Watchdogs } from '../shared/storage/types.ts'
import { StorageAccess } from './access.ts'
import type { Workshop } from './attempt.ts'
import { runImport } from './list.ts'
import { Macaroons } from './macaroons.ts'
import type { WorkerMetrics } from './metrics.ts'
import type { ModeMemory } from './mode.ts'
import { type Moment, momentOf } from './remove.ts'
import { Renewals } from './renewals.ts'
import { Reporter } from './report.ts'
import { RunningAttempt } from './running.ts'
import { backoff, inWords, isSessionOver, mayHaveActed, type WorkerApi } from './server.ts'
import type { HeartbeatLoad, HeldAttempt, ProgressEntry, Session } from './session.ts'
import type { Slots } from './slots.ts'
import type { Storages } from './storages.ts'
import { runTask } from './tasks.ts'
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
  readonly slots: Slots
  readonly watchdogs: Partial<Watchdogs>
  readonly settleMs: number
  /** How long attempts may go on after a stop was asked for, milliseconds. */
  readonly shutdownMs: number
}

type Claimed = z.output<Routes['claim']['answer']>

/** How long the server may hold a claim when it had no more work for the last one. */
const WAIT_SECONDS = 20
/** Between two claims while too many outcomes are not answered. */
const HOLDING_SECONDS = 1
/** A worker without room still asks, for grants to renew. */
const FULL_MS = 10_000
/** Room that comes free within this time is claimed together. */
const GATHER_MS = 50
/** Of room ahead, while other transfers wait for slots. */
const GATHER_AHEAD_MS = 250
/** A server that was sent a claim has surely done with it after this, though its answer was lost. */
const UNSURE_MS = 120_000
/**
 * So often what is held is told whatever was answered: a claim that arrives twice, as where something on the way repeats requests,
 * gives work that nobody here ever hears of. Milliseconds.
 */
const HELD_EVERY_MS = 60_000
/** Attempts that had to stop have so long to see it: what hangs longer is left to the next lease. */
const LAST_MS = 3_000

/**
 * How much to claim and how long to wait for it: pure. `held`: transfers that run or whose outcome is not answered, `short`: the
 * last claim gave less than was asked for. Whoever holds all that the contract lets it name has room again when outcomes are
 * answered.
 */
export function nextClaim(room: number, held: number, short: boolean): { limit: number; waitSeconds: number } {
  const limit = Math.max(0, Math.min(room, MOST_CLAIMED, MOST_HELD - held))
  if (room > 0 && limit === 0) return { limit, waitSeconds: HOLDING_SECONDS }
  return { limit, waitSeconds: limit > 0 && short ? WAIT_SECONDS : 0 }
}

/** Claims, runs and reports under one session, until it ends or `stopping` aborts. */
export class Work implements HeartbeatLoad {
  readonly #options: WorkOptions
  readonly #session: Session
  readonly #stopping: AbortSignal
  readonly #running = new Map<number, RunningAttempt>()
  readonly #imports = new Map<number, { readonly running: Promise<void>; readonly stop: AbortController }>()
  readonly #tasks = new Map<number, Promise<void>>()
  readonly #tasking = new AbortController()
  /** Aborts when nothing of this session may go on. */
  readonly #ending = new AbortController()
  readonly #tokens: GrantTokens
  readonly #renewals: Renewals
  readonly #reporter: Reporter
  readonly #workshop: Workshop
  /**
   * Until then (monotonic) each claim tells what is held: the answer to one was lost, and it may still be at work, or an outcome
   * was not taken. The server has what is not held settled by others.
   */
  #unsureUntil = 0
  /** When it was told last, monotonic. */
  #heldToldAt = 0
  #drained = false
  /** The server has more than its limits let it give. */
  #more = false

  constructor(options: WorkOptions, session: Session, stopping: AbortSignal) {
    this.#options = options
    this.#session = session
    this.#stopping = stopping
    const { api, issuers, clock, random, log, metrics, modes, watchdogs, settleMs } = options
    const { id, recipient } = session
    const signal = this.#ending.signal
    setMaxListeners(0, signal, this.#tasking.signal)
    this.#heldToldAt = clock.monotonic()
    const onLookup = (hit: boolean) => metrics.tokenLookup(hit)
    this.#tokens = new GrantTokens({ api, session: id, recipient, issuers, clock, random, signal, onLookup })
    this.#renewals = new Renewals(this.#tokens, log)
    const onAnswer = (answer: string) => metrics.outcomeReported(answer)
    const onDropped = () => this.#becomeUnsure()
    const isUrgent = (ended: number) => this.#more && options.slots.isShort(ended)
    this.#reporter = new Reporter({ api, session, clock, random, log, isUrgent, onAnswer, onDropped })
    const access = new StorageAccess({ tokens: this.#tokens, clock, signal })
    const macaroons = new Macaroons({ access, clock, signal })
    this.#workshop = { api, session: id, access, macaroons, modes, clock, random, watchdogs, settleMs }
  }

  /** Resolves when nothing of it runs any more, and everything was reported or the session has ended. */
  async run(): Promise<void> {
    const { clock, shutdownMs } = this.#options
    const session = this.#session
    session.ended.addEventListener('abort', () => this.#endAll(), { once: true })
    const kept = session.keep(this)
    await this.#claimAll()
    // What a stop interrupts of an import or a task goes on elsewhere; attempts get their time.
    this.#handBack()
    this.#tasking.abort()
    if (!session.ended.aborted) await atMost(shutdownMs, this.#idle(), clock)
    this.#endAll()
    await atMost(LAST_MS, Promise.all([this.#idle(), this.#tokens.settled()]), clock)
    if (!session.ended.aborted) {
      await atMost(LAST_MS, this.#reporter.drain(), clock)
      await session.close()
    }
    session.end()
    await kept
  }

  changed(): ProgressEntry[] {
    return [...this.#running.values()].flatMap(attempt => attempt.changed() ?? [])
  }

  urgentSince(): number | undefined {
    const times = [...this.#running.values()].flatMap(attempt => attempt.untoldSince ?? [])
    return times.length === 0 ? undefined : Math.min(...times)
  }

  told(entries: readonly ProgressEntry[]): void {
    for (const entry of entries) this.#running.get(entry.transfer)?.told(entry)
  }

  cancel(transfers: readonly number[]): void {
    for (const transfer of transfers) this.#running.get(transfer)?.cancel()
  }

  /** Until the worker stops or the session has ended. */
  async #claimAll(): Promise<void> {
    const { slots, clock, random, log } = this.#options
    const { ended } = this.#session
    const stop = eitherAborts(this.#stopping, ended)
    let short = false
    for (let failures = 0; !stop.aborted; ) {
      await gatherRoom(slots, stop)
      if (stop.aborted) break
      try {
        const held = this.#running.size + this.#reporter.unanswered.length
        const wanted = nextClaim(slots.room, held, short)
        const claimed = await this.#claim(wanted, stop)
        failures = 0
        short = claimed.transfers.length < wanted.limit
        // The server names a grant until somebody has the lease to renew it.
        if (claimed.transfers.length === 0 && claimed.renewals.length > 0) await clock.sleep(GATHER_MS, stop)
      } catch (error) {
        if (stop.aborted) break
        if (isSessionOver(error)) this.#session.end()
        log.warn(inWords(error), 'no answer to a claim')
        // The server may have put transfers under this session that nobody here knows of.
        if (mayHaveActed(error)) this.#becomeUnsure()
        failures += 1
        await clock.sleep(backoff(failures, random.fraction()), stop)
      }
    }
  }

  async #claim(wanted: { limit: number; waitSeconds: number }, signal: AbortSignal): Promise<Claimed> {
    const { api, metrics, clock } = this.#options
    const timeoutMs = (wanted.waitSeconds + 30) * 1000
    const askedAt = momentOf(clock)
    const now = clock.monotonic()
    const tells = now < this.#unsureUntil || now - this.#heldToldAt >= HELD_EVERY_MS
    if (tells) this.#heldToldAt = now
    const body = { session: this.#session.id, ...wanted, ...(tells ? { held: this.#held() } : {}) }
    const claimed = await api.claim({ body, signal, timeoutMs })
    metrics.claimed(claimed.transfers.length)
    if (!this.#session.ended.aborted) this.#take(claimed, askedAt)
    return claimed
  }

  #becomeUnsure(): void {
    this.#unsureUntil = this.#options.clock.monotonic() + UNSURE_MS
  }

  #held(): { transfers: HeldAttempt[]; imports: number[]; tasks: number[] } {
    return {
      transfers: [...[...this.#running.values()].map(attempt => attempt.held), ...this.#reporter.unanswered],
      imports: [...this.#imports].flatMap(([id, { stop }]) => (stop.signal.aborted ? [] : id)),
      tasks: [...this.#tasks.keys()],
    }
  }

  #take({ transfers, more, storages, renewals, imports, tasks, drained }: Claimed, askedAt: Moment): void {
    if (transfers.length > 0) this.#more = more
    if (drained !== this.#drained) this.#setDrained(drained)
    const traits = new Map(storages.map(storage => [storage.rse, storage]))
    for (const transfer of transfers) this.#start(transfer, traits)
    for (const job of imports) this.#startImport(job)
    for (const task of tasks) this.#startTask(task, askedAt)
    this.#renewals.want(renewals)
  }

  /** The server gives nothing. Imports may take hours: others go on with them. */
  #setDrained(drained: boolean): void {
    const { log, metrics } = this.#options
    this.#drained = drained
    metrics.drained(drained)
    if (drained && this.#imports.size > 0) {
      this.#handBack()
      this.#becomeUnsure()
    }
    if (drained) log.info({ active: this.#running.size }, 'drained by an admin: no new work until it is resumed')
    else log.info({}, 'resumed by an admin: new work is taken')
  }

  #start(transfer: ClaimedTransfer, traits: ReadonlyMap<string, WorkerStorage>): void {
    const { storages, slots, log, metrics, clock } = this.#options
    const onTaken = () => this.#session.tellSoon()
    const options = { storages, workshop: this.#workshop, slots, clock, log, metrics, onTaken }
    const attempt = new RunningAttempt(transfer, traits, options)
    this.#running.set(transfer.transfer, attempt)
    void attempt.run().then(ended => {
      this.#running.delete(transfer.transfer)
      if (!this.#session.ended.aborted) this.#reporter.report(ended)
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
    const stop = new AbortController()
    setMaxListeners(0, stop.signal)
    const options = {
      ...{ api, session: this.#session.id, access, space: storages.lists },
      ...{ clock, random, signal: stop.signal },
    }
    const running = runImport(job, place, options).catch(error => {
      log.error({ import: job.import, err: error }, 'an import has failed; it is given out again')
      this.#becomeUnsure()
    })
    const held = { running, stop }
    this.#imports.set(job.import, held)
    void running.finally(() => {
      // The same may have been given again since this was stopped.
      if (this.#imports.get(job.import) === held) this.#imports.delete(job.import)
    })
  }

  /** No import goes on here. */
  #handBack(): void {
    for (const { stop } of this.#imports.values()) stop.abort()
  }

  #startTask(task: StorageTask, askedAt: Moment): void {
    const { api, storages, clock, random, log } = this.#options
    const { access } = this.#workshop
    const signal = this.#tasking.signal
    const options = { api, session: this.#session.id, access, storages, clock, random, askedAt, signal }
    const running = runTask(task, options).catch(error => {
      log.error({ task: task.task, err: error }, 'a task could not be ended; it is given out again')
      this.#becomeUnsure()
    })
    this.#tasks.set(task.task, running)
    void running.finally(() => this.#tasks.delete(task.task))
  }

  #endAll(): void {
    this.#ending.abort()
    this.#handBack()
    this.#tasking.abort()
    for (const attempt of this.#running.values()) attempt.stop()
  }

  /** Resolves when no attempt, no import and no task runs. */
  async #idle(): Promise<void> {
    while (this.#running.size + this.#imports.size + this.#tasks.size > 0) {
      const others = [...[...this.#imports.values()].map(({ running }) => running), ...this.#tasks.values()]
      await Promise.race([...others, ...[...this.#running.values()].map(attempt => attempt.ended)])
    }
  }
}

/**
 * At once while a slot has nothing to do. While transfers are held that wait for slots there is no hurry: the larger a claim, the
 * less it costs each of them. Else when some slots came free, and a moment later more. Never at once while nothing ends: a claim for
 * nothing would follow the other as fast as the server answers.
 */
export async function gatherRoom(slots: Slots, stop: AbortSignal): Promise<void> {
  if (slots.free > 0) return
  if (slots.queued > 0) return slots.untilRoom(Math.max(1, Math.ceil(slots.pace / 2)), GATHER_AHEAD_MS, stop)
  await slots.untilRoom(1, FULL_MS, stop)
  if (slots.free > 0) await slots.untilFree(Math.ceil(slots.limit / 8), GATHER_MS, stop)
}

/** A signal of its own, since Node keeps what `AbortSignal.any` makes of long-lived signals. */
function eitherAborts(one: AbortSignal, other: AbortSignal): AbortSignal {
  const either = new AbortController()
  for (const signal of [one, other]) {
    if (signal.aborted) either.abort()
    signal.addEventListener('abort', () => either.abort(), { once: true, signal: either.signal })
  }
  setMaxListeners(0, either.signal)
  return either.signal
}

/** Waits for `work`, but no longer than `ms`; leaves no timer behind. */
async function atMost(ms: number, work: Promise<unknown>, clock: Clock): Promise<void> {
  const done = new AbortController()
  await Promise.race([work, clock.sleep(ms, done.signal)])
  done.abort()
}
