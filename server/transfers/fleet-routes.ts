import { WaybillError } from '../../shared/domain/errors.ts'
import { servesWithin, type WorkerPool } from '../accounts/pools.ts'
import { EVERYTHING, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import { drain, listWorkers, resume, type WorkerKey, type WorkerRow, workersNamed } from './worker-store.ts'

type FleetHandlers = Pick<Handlers, 'listWorkers' | 'drainWorker' | 'resumeWorker'>

interface Named {
  readonly params: { readonly worker: string }
  readonly body: { readonly issuer?: string | undefined; readonly client?: string | undefined }
  readonly caller: { readonly subject: string }
}

/** What admins do with workers, and what everybody sees of those that serve them. */
export function fleetHandlers(context: Context, pools: readonly WorkerPool[]): FleetHandlers {
  const { db, clock, log, wake, storages } = context

  async function change(
    { params, body, caller }: Named,
    how: 'drained' | 'resumed',
    write: (executor: Executor, key: WorkerKey) => Promise<void>,
  ) {
    const key = await requireWorker(db.read, params.worker, body)
    await db.write(executor => write(executor, key))
    // Those that wait in a claim look at once.
    wake.notify('queue')
    log.info({ ...key, subject: caller.subject }, `a worker was ${how}`)
    const now = clock.now()
    const row = (await listWorkers(db.read, EVERYTHING, [key], now)).find(({ worker }) => worker === key.worker)
    return row === undefined ? absent(key) : shown(row, now)
  }

  return {
    async listWorkers({ caller }) {
      const now = clock.now()
      const sight = sightOf(caller)
      const rses = await storages.seenBy(sight)
      const seen = sight.voIds === undefined ? undefined : pools.filter(pool => servesWithin(pool, sight, rses))
      return { items: (await listWorkers(db.read, sight, seen, now)).map(row => shown(row, now)) }
    },
    drainWorker: request => change(request, 'drained', (executor, key) => drain(executor, key, clock.now())),
    resumeWorker: request => change(request, 'resumed', resume),
  }
}

/** Throws 404 WORKER_UNKNOWN, or 409 WORKER_AMBIGUOUS where several pools have had a worker of that name. */
async function requireWorker(read: Executor, name: string, which: Named['body']): Promise<WorkerKey> {
  const [found, ...others] = await workersNamed(read, name, which)
  if (found === undefined) {
    throw new WaybillError(
      'WORKER_UNKNOWN',
      `no worker ${name} has ever had a session: \`waybill worker list\` shows all`,
      {
        status: 404,
        field: 'worker',
      },
    )
  }
  if (others.length > 0) {
    const pools = [found, ...others].map(({ issuer, client }) => `${client} of ${issuer}`)
    throw new WaybillError('WORKER_AMBIGUOUS', `several pools have a worker ${name}: say which: ${pools.join(', ')}`, {
      status: 409,
      field: 'client',
    })
  }
  return found
}

/** Of what gets no work and still has some. */
export function stateOf({
  drained_at,
  busy,
}: Pick<WorkerRow, 'drained_at' | 'busy'>): 'working' | 'draining' | 'drained' {
  if (drained_at === null) return 'working'
  return busy > 0 ? 'draining' : 'drained'
}

function shown(row: WorkerRow, now: number) {
  const seconds = (since: number): number => Math.max(0, Math.floor((now - since) / 1000))
  return {
    name: row.worker,
    issuer: row.issuer,
    client: row.client,
    state: stateOf(row),
    alive: row.expires_at !== null && row.expires_at > now,
    active: row.active,
    imports: row.imports,
    ...(row.version === null ? {} : { version: row.version }),
    ...(row.started_at === null ? {} : { sinceSeconds: seconds(row.started_at) }),
    ...(row.drained_at === null ? {} : { drainedSeconds: seconds(row.drained_at) }),
  }
}

/** Neither drained nor with a session. */
function absent({ worker, issuer, client }: WorkerKey) {
  return { name: worker, issuer, client, state: 'working' as const, alive: false, active: 0, imports: 0 }
}
