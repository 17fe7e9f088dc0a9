import type { z } from 'zod'
import type { StorageTask, taskResult } from '../../shared/contract/routes/worker.ts'
import type { Routes } from '../../shared/contract/routes.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { oneLine } from '../../shared/domain/one-line.ts'
import type { Executor } from '../database/sql.ts'
import { forgetReplicas } from '../deletion/store.ts'
import type { Rse } from '../storages/directory.ts'
import { protocolOf } from '../storages/directory.ts'
import { replicaUrl } from '../storages/paths.ts'
import { grantFor, type TokenContext } from '../tokens/tokens.ts'
import type { Claimant } from '../transfers/claim.ts'
import { storageFor } from '../transfers/claim-answer.ts'
import { dropPathPermits, permitPaths } from '../transfers/permits.ts'
import { claimTasks, endTurn, filesOfTasks, holdTask, noteItemErrors, type TaskFile, type TaskRow } from './store.ts'

/** A worker may send requests for so long, counted from before it asked; until a margin later nothing new begins there. */
const TASK_SECONDS = 120
const MARGIN_SECONDS = 30
/** Before a task is tried again that failed: longer each time. Milliseconds. */
const RETRY = { first: 30_000, longest: 6 * 3_600_000 }

type Report = z.output<Routes['reportTask']['body']>
type Result = z.output<typeof taskResult>

/** Tasks for a worker, with what it needs to do them. Throws 409 SESSION_ENDED. */
export async function takeTasks(context: TokenContext, claimant: Claimant, limit: number): Promise<StorageTask[]> {
  const { db, clock } = context
  const rses = await context.storages.all()
  const rseOf = (task: TaskRow): Rse | undefined => rses.find(rse => rse.id === task.rse_id && rse.voId === task.vo_id)
  const tasks = await db.write(async executor => {
    const now = clock.now()
    const claimed = await claimTasks(executor, claimant, limit, now)
    const files = await filesOfTasks(
      executor,
      claimed.map(({ id }) => id),
    )
    const described: StorageTask[] = []
    for (const task of claimed) {
      const own = files.filter(({ task_id }) => task_id === task.id)
      const rse = rseOf(task)
      // Another server knows the storage already; here it is looked at again in a moment.
      if (rse === undefined)
        await endTurn(executor, task.id, { notBefore: now + 5_000, failures: task.failures, error: null }, now)
      else described.push(await describe(executor, context, task, rse, own, now))
    }
    return described
  })
  if (tasks.length > 0) context.wake.notify('grants')
  return tasks
}

async function describe(
  executor: Executor,
  { issuers }: TokenContext,
  task: TaskRow,
  rse: Rse,
  files: readonly TaskFile[],
  now: number,
): Promise<StorageTask> {
  const { url } = protocolOf(rse)
  const tops = [...new Set(files.map(({ top }) => top))]
  // A late DELETE must not meet a file that somebody brought there since.
  await permitPaths(executor, files, holderOf(task), now, now + (TASK_SECONDS + MARGIN_SECONDS) * 1000)
  return {
    task: task.id,
    fence: task.fence,
    kind: task.kind,
    storage: storageFor(rse),
    grant: await grantFor(executor, issuers, rse, task.kind, tops, now),
    seconds: TASK_SECONDS,
    files: files.map(({ replica_id, directory, name }) => ({
      file: replica_id,
      url: replicaUrl(url, directory, name),
    })),
  }
}

/** Takes what a worker did of a task. What it does not name is left to be done. Throws 409 TASK_LOST. */
export async function takeReport(context: TokenContext, taskId: number, report: Report): Promise<void> {
  const { db, clock, log, wake } = context
  const held = { id: taskId, sessionId: report.session, fence: report.fence }
  const done = await db.write(async executor => {
    const now = clock.now()
    const task = await holdTask(executor, held)
    if (task === undefined) {
      const message = `task ${taskId} is not held under this session and fence`
      throw new WaybillError('TASK_LOST', message, { status: 409 })
    }
    const files = new Set((await filesOfTasks(executor, [taskId])).map(({ replica_id }) => replica_id))
    const results = report.results.filter(({ file }) => files.has(file))
    const gone = results.filter(({ result }) => result === 'done').map(({ file }) => file)
    await dropPathPermits(executor, gone, holderOf(task))
    await forgetReplicas(executor, gone, now)
    await noteItemErrors(executor, results.flatMap(errorOf))
    await endTurn(executor, taskId, turnAfter(task, report, gone.length, context.random.fraction(), now), now)
    return gone.length
  })
  if (report.error !== undefined)
    log.warn({ task: taskId, ...wordsOf(report.error) }, 'a task at a storage failed; it is tried again')
  if (done > 0) wake.notify('queue')
}

/** When it goes on: at once if something was done and nothing failed; else later and later. */
function turnAfter(task: TaskRow, report: Report, done: number, fraction: number, now: number) {
  const error = report.error ?? report.results.find(({ error }) => error !== undefined)?.error
  if (error === undefined) return { notBefore: now, failures: 0, error: null }
  const failures = done > 0 ? 0 : task.failures + 1
  const asked = (error.retryAfterSeconds ?? 0) * 1000
  const delay = Math.min(RETRY.longest, RETRY.first * 2 ** Math.min(failures, 20))
  const notBefore = now + Math.max(asked, Math.round(delay * (0.5 + fraction / 2)))
  const { code, words } = wordsOf(error)
  return { notBefore, failures, error: oneLine(`${code}: ${words}`, 1000) }
}

function errorOf({ file, error }: Result): { replica_id: number; error: string }[] {
  if (error === undefined) return []
  const { code, words } = wordsOf(error)
  return [{ replica_id: file, error: oneLine(`${code}: ${words}`, 1000) }]
}

function wordsOf({ code, message }: NonNullable<Report['error']>) {
  return { code, words: message }
}

/** As permits know it: no transfer has a negative number. */
function holderOf({ id, fence }: TaskRow): { transfer: number; fence: number } {
  return { transfer: -id, fence }
}
