import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { oneLine } from '../../shared/domain/one-line.ts'
import type { RetryPolicy } from '../../shared/domain/retry-policy.ts'
import type { Executor } from '../database/sql.ts'
import { spareWanted, tellRules } from '../deletion/spare.ts'
import { deletion } from '../deletion/task.ts'
import { look } from '../faults/look.ts'
import { protocolOf, type Rse } from '../storages/directory.ts'
import { replicaUrl } from '../storages/paths.ts'
import { archive } from '../tape/archive.ts'
import { recall } from '../tape/recall.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import { storageFor } from '../transfers/claim-answer.ts'
import type { Claimant } from '../transfers/claim-places.ts'
import { permitPaths } from '../transfers/permits.ts'
import { markTold } from './items.ts'
import { failuresAfter, type Order, type TaskKind, type Told, withinToken } from './kinds.ts'
import {
  claimTasks,
  endTurn,
  filesOfTasks,
  holderOf,
  holdTask,
  noteItemErrors,
  type TaskFile,
  type TaskRow,
  type Turn,
} from './store.ts'

/** A worker may send requests for so long, counted from before it asked; until a margin later nothing new begins there. */
const TASK_SECONDS = 120
const MARGIN_SECONDS = 30
/** Before a task is tried again that failed: longer each time. Milliseconds. */
const RETRY = { first: 30_000, longest: 6 * 3_600_000 }

const KINDS: Readonly<Record<TaskRow['kind'], TaskKind>> = { delete: deletion, recall, archive, look }

/** Tasks for a worker, with what it needs to do them. Throws 409 SESSION_ENDED. */
export async function takeTasks(context: TokenContext, claimant: Claimant, limit: number): Promise<StorageTask[]> {
  const { db, clock, storages, wake } = context
  const rses = await storages.all()
  const tasks = await db.write(async executor => {
    const now = clock.now()
    const claimed = await claimTasks(executor, claimant, limit, now)
    const files = await filesOfTasks(
      executor,
      claimed.map(({ id }) => id),
    )
    const deletions = new Set(claimed.filter(({ kind }) => kind === 'delete').map(({ id }) => id))
    const untold = files.filter(({ task_id, state }) => deletions.has(task_id) && state === 'WANTED')
    const spared = await spareWanted(
      executor,
      untold.map(({ replica_id }) => replica_id),
      now,
    )
    const described: StorageTask[] = []
    for (const task of claimed) {
      const own = files.filter(({ task_id, replica_id }) => task_id === task.id && !spared.replicas.has(replica_id))
      const rse = rses.find(candidate => candidate.id === task.rse_id && candidate.voId === task.vo_id)
      const told =
        rse && (await describe(executor, context, task, rse, own, now).catch(error => unable(context, task, error)))
      if (told !== undefined) described.push(told)
      // Nothing is to be done of it now, or this server has not heard of its storage yet.
      else await endTurn(executor, task.id, { notBefore: now + 60_000, failures: task.failures, error: null }, now)
    }
    await tellRules(executor, spared, now)
    return described
  })
  if (tasks.length > 0) wake.notify('grants')
  return tasks
}

/** Nobody may do it now, as for a VO that the configuration does not name: no other work waits for that. */
function unable({ log }: TokenContext, { id }: TaskRow, error: unknown): undefined {
  if (!(error instanceof WaybillError)) throw error
  log.warn({ task: id, code: error.code, words: error.message }, 'a task cannot be given out')
}

async function describe(
  executor: Executor,
  { issuers }: TokenContext,
  task: TaskRow,
  rse: Rse,
  files: readonly TaskFile[],
  now: number,
): Promise<StorageTask | undefined> {
  const kind = KINDS[task.kind]
  const order = await kind.order(executor, task, files, now)
  // The rest has its turn when these are done.
  const ordered = withinToken(wantedOf(files, order))
  if (ordered.length === 0) return undefined
  const tops = [...new Set(ordered.map(({ top }) => top))]
  const grant = await grantFor(executor, issuers, rse, kind.purpose, tops, now)
  const { url } = protocolOf(rse)
  // A late DELETE must not meet a file that somebody brought there since.
  if (task.kind === 'delete') {
    await permitPaths(executor, ordered, holderOf(task), now, now + (TASK_SECONDS + MARGIN_SECONDS) * 1000)
    await markTold(
      executor,
      ordered.map(({ replica_id }) => replica_id),
    )
  }
  return {
    task: task.id,
    fence: task.fence,
    kind: task.kind,
    last: order.last,
    ...(order.request === undefined ? {} : { request: order.request }),
    storage: storageFor(rse),
    grant,
    seconds: TASK_SECONDS,
    files: ordered.map(({ replica_id, directory, name, want, bytes, adler32, md5 }) => ({
      ...{ file: replica_id, url: replicaUrl(url, directory, name), want },
      ...(want === 'look' ? { bytes, ...(adler32 === null ? {} : { adler32 }), ...(md5 === null ? {} : { md5 }) } : {}),
    })),
  }
}

/** Those of them with which something is to be done, with that. */
function wantedOf(files: readonly TaskFile[], { wants }: Order) {
  return files.flatMap(file => {
    const want = wants.get(file.replica_id)
    return want === undefined ? [] : [{ ...file, want }]
  })
}

/** Takes what a worker did of a task. What it does not name is left to be done. Throws 409 TASK_LOST. */
export async function takeReport(
  context: TokenContext,
  policy: RetryPolicy,
  taskId: number,
  report: Told,
): Promise<void> {
  const { db, clock, log, random, wake } = context
  const held = { id: taskId, sessionId: report.session, fence: report.fence }
  const done = await db.write(async executor => {
    const now = clock.now()
    const task = await holdTask(executor, held)
    if (task === undefined) {
      const message = `task ${taskId} is not held under this session and fence`
      throw new WaybillError('TASK_LOST', message, { status: 409 })
    }
    const kind = KINDS[task.kind]
    const files = new Map((await filesOfTasks(executor, [taskId])).map(file => [file.replica_id, file]))
    const told = { ...report, results: report.results.filter(({ file }) => files.has(file)) }
    const by = { sessionId: report.session, policy, fraction: random.fraction() }
    const count = await kind.take(executor, { ...task, files }, told, by, now)
    await noteItemErrors(executor, told.results.flatMap(errorOf))
    await endTurn(executor, taskId, turnAfter(task, told, count, kind.next(task, told, now), by.fraction, now), now)
    return count
  })
  if (report.error !== undefined) {
    const { code, message } = report.error
    log.warn({ task: taskId, code, words: message }, 'a task at a storage failed; it is tried again')
  }
  if (done > 0) wake.notify('queue')
}

/** When it goes on: as its kind says if nothing failed; else later and later. */
function turnAfter(task: TaskRow, told: Told, done: number, next: number, fraction: number, now: number): Turn {
  const error = told.error ?? told.results.find(({ error }) => error !== undefined)?.error
  if (error === undefined) return { notBefore: Math.round(next), failures: 0, error: null }
  const failures = done > 0 ? 0 : failuresAfter(task, error)
  const asked = (error.retryAfterSeconds ?? 0) * 1000
  const delay = Math.min(RETRY.longest, RETRY.first * 2 ** Math.min(failures, 20))
  const notBefore = now + Math.max(asked, Math.round(delay * (0.5 + fraction / 2)))
  return { notBefore, failures, error: inWords(error) }
}

function errorOf({ file, error }: Told['results'][number]): { replica_id: number; error: string }[] {
  return error === undefined ? [] : [{ replica_id: file, error: inWords(error) }]
}

function inWords({ code, message }: NonNullable<Told['error']>): string {
  return oneLine(`${code}: ${message}`, 1000)
}
