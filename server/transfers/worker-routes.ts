import { contractRefusal } from '../../shared/contract/worker-contract.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { isPersonal } from '../../shared/domain/grant-state.ts'
import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import { checkRecipientKey } from '../../shared/oidc/sealed-transport.ts'
import type { Caller, WorkerRights } from '../accounts/caller.ts'
import { reachesGrant, reachOf } from '../accounts/reach.ts'
import type { Handlers } from '../app.ts'
import { takeImports } from '../imports/claim.ts'
import { isImportDue, releaseImports } from '../imports/store.ts'
import { takeFoundPart } from '../imports/take.ts'
import type { CountedOutcome, ServerMetrics } from '../metrics.ts'
import { isAtTask, isTaskDue, releaseTasks } from '../tasks/store.ts'
import { takeReport, takeTasks } from '../tasks/tasks.ts'
import { acquireToken, takeRenewal } from '../tokens/acquire.ts'
import { findGrant, grantsToRenew } from '../tokens/grant-store.ts'
import { heedRefusal } from '../tokens/refusal.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import { describeWork, NOTHING, type Work } from './claim-answer.ts'
import type { Claimant } from './claim-places.ts'
import { claimWork, isMoreQueued } from './claim-work.ts'
import type { ReportedOutcome } from './outcome-decision.ts'
import { cancelledOf, type HeldTransfer, loseTransfers, recordProgress } from './outcome-store.ts'
import { applyOutcomes } from './outcomes.ts'
import { grantPermit, holdsPermit, PERMIT_SECONDS } from './permits.ts'
import { extendSession, insertSession, requireSession, unlessDrained, type WorkerIdentity } from './session-store.ts'
import { endSession } from './sessions.ts'

type WorkerHandlers = Pick<
  Handlers,
  | 'openSession'
  | 'heartbeat'
  | 'closeSession'
  | 'claim'
  | 'reportOutcomes'
  | 'askPermit'
  | 'acquireToken'
  | 'reportRenewal'
  | 'reportImport'
  | 'reportTask'
>

export interface WorkerSettings {
  readonly leaseSeconds: number
  readonly retry: RetryPolicy
  /** Of this epoch: see `server/database/epoch.ts`. */
  readonly fenceBase: number
  readonly metrics: Pick<ServerMetrics, 'countOutcome' | 'countTokenCache'>
}

const RENEWALS_PER_CLAIM = 20
const IMPORTS_PER_CLAIM = 2
/** Before a worker is worth hearing again that has to wait for another's renewal. Milliseconds. */
const RENEWED_MS = 200
const TASKS_PER_CLAIM = 2
/** While a claim waits for work it looks again at least so often: another server may have queued some. Milliseconds. */
const LOOK_AGAIN_MS = 1_000

export function workerHandlers(context: TokenContext, settings: WorkerSettings): WorkerHandlers {
  const { db, clock, storages } = context
  const { fenceBase } = settings

  async function workFor(claimant: Claimant, limit: number, again: boolean): Promise<Work> {
    // Before transfers: what fails here must not leave transfers with a worker that never hears of them.
    const tasks = (await isTaskDue(db.read, claimant, clock.now()))
      ? await unlessDrained(takeTasks(context, claimant, TASKS_PER_CLAIM))
      : []
    const claimed = await claimWork(context, claimant, limit, again)
    const copy = claimed.find(({ state }) => state === 'CLAIMED')
    return {
      claimed,
      more: copy !== undefined && claimed.length < limit && (await isMoreQueued(db.read, copy.id)),
      renewals: await grantsToRenew(db.read, claimant, clock.now(), RENEWALS_PER_CLAIM),
      imports: (await isImportDue(db.read, claimant, clock.now()))
        ? await unlessDrained(takeImports(context, claimant, IMPORTS_PER_CLAIM))
        : [],
      tasks,
    }
  }

  return {
    async openSession({ body, caller }) {
      const refusal = contractRefusal(body.contract)
      if (refusal !== undefined)
        throw new WaybillError(refusal.code, refusal.message, { status: 409, field: 'contract' })
      await checkRecipientKey(body.key)
      const { worker, version } = body
      const now = clock.now()
      const expiresAt = now + settings.leaseSeconds * 1000
      const publicJwk = JSON.stringify(body.key)
      const session = await db.write(executor =>
        insertSession(executor, identityOf(caller), { worker, version, publicJwk, expiresAt }, now),
      )
      context.log.info({ session, worker, version, client: identityOf(caller).client }, 'a worker opened a session')
      return { session, leaseSeconds: settings.leaseSeconds, heartbeatSeconds: settings.leaseSeconds / 4 }
    },
    async heartbeat({ params, body, caller }) {
      const now = clock.now()
      await db.write(async executor => {
        await extendSession(executor, identityOf(caller), params.id, now + settings.leaseSeconds * 1000)
        await recordProgress(executor, params.id, body.progress, now)
      })
      return { leaseSeconds: settings.leaseSeconds, cancel: await cancelledOf(db.read, params.id) }
    },
    async closeSession({ params, caller }) {
      await requireSession(db.read, identityOf(caller), params.id)
      const now = clock.now()
      await db.write(executor => endSession(executor, params.id, now, now))
      context.wake.notify('queue')
      return {}
    },
    async claim({ body, caller, signal }) {
      const isDrained = async (): Promise<boolean> =>
        (await requireSession(db.read, identityOf(caller), body.session)).drained_at !== null
      const drained = await isDrained()
      const reach = reachOf(caller.worker, await storages.all())
      const { held } = body
      if (held !== undefined) {
        await db.write(async executor => {
          const now = clock.now()
          await loseTransfers(executor, body.session, now, now, held.transfers)
          await releaseImports(executor, body.session, now, held.imports)
          await releaseTasks(executor, body.session, now, held.tasks)
        })
      }
      const deadline = clock.monotonic() + body.waitSeconds * 1000
      for (let looks = 0; ; looks += 1) {
        // Who has hung up would never hear what it got.
        if (signal.aborted) return describeWork(context, settings.retry, body.session, NOTHING, drained)
        // A worker that may take nothing must not be who is told of a free slot.
        const listener = drained ? undefined : context.wake.listen('queue', signal, poolOf(caller))
        try {
          const drainedNow = looks === 0 ? drained : await isDrained()
          const work = drainedNow
            ? NOTHING
            : await workFor({ ...reach, sessionId: body.session, fenceBase }, body.limit, looks > 0)
          // Who was told of free slots and took all it asked for leaves some, perhaps, to the next who waits.
          if (looks > 0 && work.claimed.length > 0 && work.claimed.length === body.limit)
            context.wake.notifyOne('queue')
          const left = deadline - clock.monotonic()
          const over = left <= 0 || signal.aborted || context.wake.closed || drainedNow !== drained
          if (over || isSomething(work)) return describeWork(context, settings.retry, body.session, work, drainedNow)
          await clock.sleep(Math.min(left, LOOK_AGAIN_MS), listener?.signal ?? signal)
        } finally {
          listener?.release()
        }
      }
    },
    async reportOutcomes({ body, caller }) {
      await requireSession(db.read, identityOf(caller), body.session)
      const names = new Map((await storages.all()).map(rse => [rse.id, rse.name]))
      const results = await applyOutcomes(context, settings.retry, body.session, body.outcomes, (held, reported) =>
        settings.metrics.countOutcome(countedOf(held, reported, names)),
      )
      return { results }
    },
    async askPermit({ body, caller }) {
      await requireSession(db.read, identityOf(caller), body.session)
      const now = clock.now()
      const held = { sessionId: body.session, transfer: body.transfer, fence: body.fence, written: body.written }
      const rses = await storages.all()
      const grant = await db.write(async executor => {
        const { rseId, voId, top } = await grantPermit(executor, held, now)
        const rse = rses.find(candidate => candidate.id === rseId && candidate.voId === voId)
        if (rse === undefined) throw new WaybillError('RSE_UNKNOWN', 'the storage is gone', { status: 409 })
        return grantFor(executor, context.issuers, rse, 'clean-up', [top], now)
      })
      context.wake.notify('grants')
      return { seconds: PERMIT_SECONDS, grant }
    },
    async acquireToken({ params, body, caller }) {
      const session = await requireSession(db.read, identityOf(caller), body.session)
      const grant = await findGrant(db.read, params.id)
      const reach = reachOf(caller.worker, await storages.all())
      if (grant === undefined || isPersonal(grant.purpose) || !reachesGrant(reach, grant)) {
        throw new WaybillError('GRANT_UNKNOWN', `there is no grant ${params.id} for this worker`, {
          status: 404,
          field: 'id',
        })
      }
      if (
        grant.purpose === 'clean-up' &&
        !(await holdsPermit(db.read, session.id, grant.rse_id, context.clock.now()))
      ) {
        const message = 'the token to clean up is for who holds a permit at this storage: ask for one first'
        throw new WaybillError('PERMIT_MISSING', message, { status: 409 })
      }
      if (grant.purpose === 'delete' && !(await isAtTask(db.read, session.id, 'delete', grant.rse_id))) {
        const message = 'the token to delete is for who is at a task at this storage'
        throw new WaybillError('TASK_LOST', message, { status: 409 })
      }
      const holder = { sessionId: session.id, publicJwk: JSON.parse(session.public_jwk) as unknown }
      const heeded = body.refused === undefined ? grant : await heedRefusal(context, grant, body.refused)
      if (heeded === undefined) return { kind: 'wait' as const, delayMs: RENEWED_MS }
      const acquired = await acquireToken(context, holder, heeded, body.lifeSeconds * 1000)
      settings.metrics.countTokenCache(acquired.kind === 'token' ? 'hit' : 'miss')
      return acquired
    },
    async reportRenewal({ params, body, caller }) {
      await requireSession(db.read, identityOf(caller), body.session)
      return { generation: await takeRenewal(context, body.session, params.id, body) }
    },
    async reportTask({ params, body, caller }) {
      await requireSession(db.read, identityOf(caller), body.session)
      await takeReport(context, settings.retry, params.id, body)
      return {}
    },
    async reportImport({ params, body, caller }) {
      await requireSession(db.read, identityOf(caller), body.session)
      const { session: sessionId, ...part } = body
      return { directories: await takeFoundPart(context, settings.retry, params.id, { ...part, sessionId }) }
    },
  }
}

function isSomething({ claimed, renewals, imports, tasks }: Work): boolean {
  return claimed.length + renewals.length + imports.length + tasks.length > 0
}

type WorkerCaller = Pick<Caller, 'issuer'> & { readonly worker: WorkerRights }

/** What its workers may serve is alike: of what one of them can take, one is told. */
function poolOf(caller: WorkerCaller): string {
  const { issuer, client } = identityOf(caller)
  return `${issuer} ${client}`
}

function identityOf({ issuer, worker }: WorkerCaller): WorkerIdentity {
  return { issuer, client: worker.client }
}

function countedOf(held: HeldTransfer, reported: ReportedOutcome, names: ReadonlyMap<number, string>): CountedOutcome {
  const source = names.get(held.source_rse_id ?? 0) ?? ''
  const destination = names.get(held.destination_rse_id) ?? ''
  const { error } = reported
  return {
    source,
    destination,
    outcome: reported.result,
    bytes: reported.bytes,
    seconds: reported.durationMs / 1000,
    ...(error === undefined ? {} : { code: error.code, storage: error.scope === 'SOURCE' ? source : destination }),
  }
}
