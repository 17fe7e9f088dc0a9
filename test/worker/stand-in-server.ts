import { EventEmitter, once } from 'node:events'
import type { z } from 'zod'
import { ApiError } from '../../shared/contract/client.ts'
import {
  type ClaimedTransfer,
  type ImportJob,
  type StorageTask,
  type WorkerStorage,
  workerRoutes,
} from '../../shared/contract/routes/worker.ts'
import type { Routes } from '../../shared/contract/routes.ts'
import { STORAGE_REFUSED } from '../../shared/domain/grant-state.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import type { IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { type PublicJwk, sealFor } from '../../shared/oidc/sealed-transport.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import type { WorkerApi } from '../../worker/server.ts'

export type ReportedOutcome = z.output<typeof workerRoutes.reportOutcomes.body>['outcomes'][number]
export type ReportedTask = z.output<typeof workerRoutes.reportTask.body>
export type ReportedFiles = z.output<typeof workerRoutes.reportImport.body>
type Renewal = z.output<Routes['reportRenewal']['body']>
type Acquired = z.input<Routes['acquireToken']['answer']>

export interface StandInGrant {
  readonly audience: string
  readonly scopes: readonly string[]
  readonly exchange: boolean
  generation: number
  exchanged: boolean
  access?: { token: Secret; expiresAt: number; lifeMs: number }
  refresh?: Secret
  refused?: { code: string; message: string }
  /** The token that was renewed since a storage refused it. */
  renewedFor?: number
}

/**
 * The rules server as a worker sees it, in memory: it hands out what a test queued, keeps grants at a real issuer, and
 * records what is reported. Every call's body is parsed by the contract's own schema.
 */
export class StandInServer extends EventEmitter<{ call: [name: string]; outcome: []; import: [] }> {
  leaseSeconds = 30
  heartbeatSeconds = 10
  permitSeconds = 10
  drained = false
  sessions = 0
  ended = new Set<number>()
  readonly outcomes: ReportedOutcome[] = []
  readonly refusedOutcomes: ReportedOutcome[] = []
  readonly imports: ReportedFiles[] = []
  readonly renewals: Renewal[] = []
  readonly progress: { transfer: number; bytes: number }[] = []
  /** That were asked for. */
  readonly permits: { transfer: number; written: boolean }[] = []
  readonly calls = new Map<string, number>()
  readonly grants = new Map<number, StandInGrant>()
  readonly storages = new Map<string, WorkerStorage>()
  readonly cancelled = new Set<number>()
  readonly queue: ClaimedTransfer[] = []
  readonly importQueue: ImportJob[] = []
  readonly taskQueue: StorageTask[] = []
  readonly taskReports: ReportedTask[] = []
  readonly wantedRenewals: number[] = []
  /** Called before each call; what it throws is what the worker sees. */
  before: (name: string) => void | Promise<void> = () => undefined
  /** Called after a call was applied: an answer that is lost. */
  after: (name: string) => void = () => undefined
  readonly #issuer: IssuerClient
  readonly #issuerUrl: string
  readonly #keys = new Map<number, PublicJwk>()
  readonly #applied = new Set<string>()
  readonly #frontier: ImportJob['directories'] = []
  readonly #given = new Map<number, ClaimedTransfer>()

  constructor(issuer: IssuerClient, issuerUrl: string) {
    super()
    this.setMaxListeners(0)
    this.#issuer = issuer
    this.#issuerUrl = issuerUrl
  }

  readonly api: WorkerApi = {
    openSession: call =>
      this.#call('openSession', async () => {
        const { key } = workerRoutes.openSession.body.parse(call.body)
        this.sessions += 1
        this.#keys.set(this.sessions, key)
        const { leaseSeconds, heartbeatSeconds } = this
        return { session: this.sessions, leaseSeconds, heartbeatSeconds }
      }),
    heartbeat: call =>
      this.#call('heartbeat', async () => {
        this.#require(Number(call.params.id))
        this.progress.push(...workerRoutes.heartbeat.body.parse(call.body).progress)
        return { leaseSeconds: this.leaseSeconds, cancel: [...this.cancelled] }
      }),
    closeSession: call => this.#call('closeSession', async () => this.#end(Number(call.params.id))),
    claim: call =>
      this.#call('claim', async () => {
        const { session, limit, waitSeconds, held } = workerRoutes.claim.body.parse(call.body)
        this.#require(session)
        if (held !== undefined) this.#takeBack(held.transfers)
        if (this.queue.length === 0 && this.importQueue.length === 0 && waitSeconds > 0) {
          await this.#queued(call.signal)
        }
        const transfers = this.queue.splice(0, limit)
        for (const transfer of transfers) this.#given.set(transfer.transfer, transfer)
        const imports = this.importQueue.splice(0)
        return {
          transfers,
          more: false,
          storages: [...this.storages.values()],
          renewals: this.wantedRenewals.splice(0),
          imports,
          tasks: this.taskQueue.splice(0),
          drained: this.drained,
        }
      }),
    reportOutcomes: call =>
      this.#call('reportOutcomes', async () => {
        const { session, outcomes } = workerRoutes.reportOutcomes.body.parse(call.body)
        this.#require(session)
        const results = outcomes.map(outcome => {
          const key = `${outcome.transfer} ${outcome.fence}`
          const repeated = this.#applied.has(key)
          if (!repeated) {
            this.#applied.add(key)
            this.#given.delete(outcome.transfer)
            this.outcomes.push(outcome)
            this.emit('outcome')
          }
          const answer = repeated ? ('already-applied' as const) : ('applied' as const)
          return { transfer: outcome.transfer, fence: outcome.fence, answer }
        })
        return { results }
      }),
    askPermit: call => {
      const { transfer, written } = workerRoutes.askPermit.body.parse(call.body)
      this.permits.push({ transfer, written })
      return this.#call('askPermit', async () => {
        this.#require(call.body.session)
        return { seconds: this.permitSeconds, grant: transfer + CLEAN_UP }
      })
    },
    acquireToken: call =>
      this.#call('acquireToken', async () => {
        const { session, lifeSeconds, refused } = workerRoutes.acquireToken.body.parse(call.body)
        this.#require(session)
        if (refused !== undefined) this.#heed(Number(call.params.id), refused)
        return this.#acquire(session, Number(call.params.id), lifeSeconds)
      }) as ReturnType<WorkerApi['acquireToken']>,
    reportRenewal: call =>
      this.#call('reportRenewal', async () => {
        const renewal = workerRoutes.reportRenewal.body.parse(call.body)
        this.#require(renewal.session)
        this.renewals.push(renewal)
        return this.#renewed(Number(call.params.id), renewal)
      }),
    reportTask: call =>
      this.#call('reportTask', async () => {
        this.taskReports.push(workerRoutes.reportTask.body.parse(call.body))
        return {}
      }),
    reportImport: call =>
      this.#call('reportImport', async () => {
        const part = workerRoutes.reportImport.body.parse(call.body)
        this.imports.push(part)
        this.#advance(part)
        this.emit('import')
        return { directories: part.error === undefined ? [...this.#frontier] : [] }
      }),
  }

  /** As the real one does: the deepest first. */
  #advance({ fence, part, listed, directories }: ReportedFiles): void {
    const key = `import ${fence} ${part}`
    if (this.#applied.has(key)) return
    this.#applied.add(key)
    const left = this.#frontier.filter(({ directory }) => !listed.includes(directory))
    const found = directories.map((path, i) => ({ directory: part * 10_000 + i, path }))
    this.#frontier.splice(0, this.#frontier.length, ...found.reverse(), ...left)
  }

  /** What was given out and is not held there is queued again. */
  #takeBack(held: readonly { transfer: number; fence: number }[]): void {
    for (const [id, transfer] of this.#given) {
      if (held.some(({ transfer: heldId, fence }) => heldId === id && fence === transfer.fence)) continue
      this.#given.delete(id)
      this.queue.push(transfer)
    }
  }

  /** Adds work; a waiting claim gets it. */
  enqueue(...transfers: ClaimedTransfer[]): void {
    this.queue.push(...transfers)
    this.emit('call', 'enqueue')
  }

  /** One at a time: what is to be listed next is kept for the last one. */
  enqueueImport(job: ImportJob): void {
    this.#frontier.splice(0, this.#frontier.length, ...job.directories)
    this.importQueue.push(job)
    this.emit('call', 'enqueue')
  }

  /** The outcome of a transfer, once it is reported. */
  async outcomeOf(transfer: number): Promise<ReportedOutcome> {
    for (;;) {
      const found = this.outcomes.find(outcome => outcome.transfer === transfer)
      if (found !== undefined) return found
      await once(this, 'outcome')
    }
  }

  async outcomeOfFence(transfer: number, fence: number): Promise<ReportedOutcome> {
    for (;;) {
      const found = this.outcomes.find(outcome => outcome.transfer === transfer && outcome.fence === fence)
      if (found !== undefined) return found
      await once(this, 'outcome')
    }
  }

  async untilImport(): Promise<void> {
    await once(this, 'import')
  }

  /** Resolves when bytes of a copy were told. */
  async untilProgress(transfer: number): Promise<void> {
    while (!this.progress.some(entry => entry.transfer === transfer)) await this.untilCalled('heartbeat')
  }

  /** Resolves at the next call of that name. */
  async untilCalled(name: string): Promise<void> {
    for (;;) {
      const [called] = await once(this, 'call')
      if (called === name) return
    }
  }

  called(name: string): number {
    return this.calls.get(name) ?? 0
  }

  async #call<T>(name: string, run: () => Promise<T>): Promise<T> {
    this.calls.set(name, this.called(name) + 1)
    this.emit('call', name)
    await this.before(name)
    const answer = await run()
    this.after(name)
    return answer
  }

  async #queued(signal: AbortSignal | undefined): Promise<void> {
    const waiting = new AbortController()
    const onAbort = () => waiting.abort()
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      while (this.queue.length === 0 && this.importQueue.length === 0) {
        await once(this, 'call', { signal: waiting.signal })
      }
    } catch {
      throw new HttpFailure('aborted', 'POST', new URL('https://server.example/v1/worker/claims'))
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #require(session: number): void {
    if (session > 0 && session <= this.sessions && !this.ended.has(session)) return
    throw new ApiError('SESSION_ENDED', `session ${session} has ended`, { status: 409 })
  }

  #end(session: number): Record<string, never> {
    this.ended.add(session)
    return {}
  }

  /** As the real one does: mint, then have it exchanged once, then refreshed when half of its life is gone. */
  async #acquire(session: number, id: number, lifeSeconds: number): Promise<Acquired> {
    const grant = this.grants.get(id)
    if (grant === undefined) return { kind: 'refused', code: 'GRANT_UNKNOWN', message: `no grant ${id}` }
    if (grant.refused !== undefined) return { kind: 'refused', ...grant.refused }
    const { audience, scopes } = grant
    grant.access ??= await this.#mint(grant)
    const { token, expiresAt, lifeMs } = grant.access
    const fresh =
      grant.renewedFor !== grant.generation && expiresAt - systemClock.now() > Math.min(lifeSeconds * 1000, lifeMs / 2)
    if (grant.exchanged || !grant.exchange) {
      if (fresh) return this.#sealed(session, id, grant, token, expiresAt)
      if (grant.refresh === undefined) {
        grant.access = await this.#mint(grant)
        return this.#sealed(session, id, grant, grant.access.token, grant.access.expiresAt)
      }
    }
    const kind = grant.exchanged ? 'refresh' : 'exchange'
    const context = `grant:${id}:${grant.generation}:${kind}`
    const secret = grant.exchanged ? (grant.refresh ?? token) : token
    const sealed = await sealFor(this.#keys.get(session), secret, context)
    const order = { generation: grant.generation, leaseSeconds: 60, delayMs: 0, issuer: this.#issuerUrl }
    return { kind, ...order, audience, scopes: [...scopes], context, token: sealed }
  }

  /** As the real one does: one renewal, then the grant is held. */
  #heed(id: number, { generation, canary, message }: { generation: number; canary: boolean; message: string }): void {
    const grant = this.grants.get(id)
    if (grant === undefined || generation !== grant.generation) return
    if (grant.renewedFor === undefined) grant.renewedFor = generation
    else if (canary && generation > grant.renewedFor) grant.refused = { code: STORAGE_REFUSED, message }
  }

  async #mint(grant: StandInGrant): Promise<NonNullable<StandInGrant['access']>> {
    const { accessToken, expiresAt } = await this.#issuer.mint({ audience: grant.audience, scopes: grant.scopes })
    grant.generation += 1
    return { token: accessToken, expiresAt, lifeMs: expiresAt - systemClock.now() }
  }

  async #sealed(
    session: number,
    id: number,
    { generation }: StandInGrant,
    token: Secret,
    expiresAt: number,
  ): Promise<Acquired> {
    const context = `grant:${id}:${generation}:access`
    const sealed = await sealFor(this.#keys.get(session), token, context)
    return {
      kind: 'token',
      generation,
      expiresInSeconds: (expiresAt - systemClock.now()) / 1000,
      context,
      token: sealed,
    }
  }

  #renewed(id: number, { generation, result }: Renewal): { generation: number } {
    const grant = this.grants.get(id)
    if (grant === undefined || grant.generation !== generation) {
      throw new ApiError('LEASE_LOST', 'somebody else has it', { status: 409 })
    }
    if (result.kind === 'failed') {
      grant.refused = { code: result.code, message: result.message }
      return { generation }
    }
    const expiresAt = systemClock.now() + result.expiresInSeconds * 1000
    grant.access = { token: new Secret(result.accessToken), expiresAt, lifeMs: result.expiresInSeconds * 1000 }
    if (result.refreshToken !== undefined) grant.refresh = new Secret(result.refreshToken)
    grant.exchanged = true
    grant.generation += 1
    return { generation: grant.generation }
  }
}

/** A transfer's clean-up grant has its number plus this. */
export const CLEAN_UP = 10_000
