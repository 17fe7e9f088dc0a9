import type { z } from 'zod'
import { ApiError } from '../shared/contract/client.ts'
import type { StorageTask, taskResult } from '../shared/contract/routes/worker.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { StorageAccess } from './access.ts'
import { type AttemptFailure, failureOf, reportedError } from './failure.ts'
import { type Moment, momentOf, permitLeft } from './remove.ts'
import { isSessionOver, untilAnswered, type WorkerApi } from './server.ts'
import type { Storages } from './storages.ts'

export interface TaskOptions {
  readonly api: Pick<WorkerApi, 'reportTask'>
  readonly session: number
  readonly access: StorageAccess
  readonly storages: Storages
  readonly clock: Clock
  readonly random: Random
  /** Before the claim that gave the task was asked for. */
  readonly askedAt: Moment
  /** Another worker goes on. */
  readonly signal: AbortSignal
}

type Result = z.input<typeof taskResult>

/** Requests at once: deletions are cheap for a storage, but not a hundred of them. */
const PARALLEL = 8
/** So many files in a row that fail alike end a task: the storage is away, or lets nobody do this. */
const IN_A_ROW = 5

/** What was done of a task, and what ended it before all was tried. */
interface Done {
  readonly results: Result[]
  readonly error?: AttemptFailure
}

/** Does a task as far as its time goes, and reports. What is not done is given out again. */
export async function runTask(task: StorageTask, options: TaskOptions): Promise<void> {
  const { api, session, clock, random, signal } = options
  const { results, error } = await removeAll(task, options)
  const reported = error === undefined ? {} : { error: reportedError(error) }
  const body = { session, fence: task.fence, results, ...reported }
  try {
    await untilAnswered({ clock, random, signal }, () => api.reportTask({ params: { id: task.task }, body, signal }))
  } catch (failure) {
    // Another session has it: the storage says the same to whoever asks again.
    const lost = failure instanceof ApiError && failure.code === 'TASK_LOST'
    if (!lost && !signal.aborted && !isSessionOver(failure)) throw failure
  }
}

/** Removes the files, several at once. A file that is not there is removed. */
async function removeAll(task: StorageTask, options: TaskOptions): Promise<Done> {
  const { clock, signal, askedAt } = options
  const left = () => permitLeft(askedAt, task.seconds, momentOf(clock))
  const waiting = [...task.files]
  const results: Result[] = []
  let failing = 0
  let error: AttemptFailure | undefined
  const work = async (): Promise<void> => {
    for (;;) {
      const file = waiting.shift()
      if (file === undefined || error !== undefined || signal.aborted || left() <= 0) return
      try {
        await removeOne(task, file.url, options, left)
        failing = 0
        results.push({ file: file.file, result: 'done' })
      } catch (thrown) {
        if (signal.aborted || left() <= 0) return
        const failure = failureOf(thrown)
        failing += 1
        if (failure.scope === 'TOKEN' || failing >= IN_A_ROW) error = failure
        results.push({ file: file.file, result: 'failed', error: reportedError(failure) })
      }
    }
  }
  await Promise.all(Array.from({ length: PARALLEL }, work))
  return { results, ...(error === undefined ? {} : { error }) }
}

async function removeOne(
  { storage, grant }: StorageTask,
  url: string,
  { access, storages, clock, signal }: TaskOptions,
  left: () => number,
): Promise<void> {
  const client = storages.client(storage, url)
  const place = { url, grant, scope: 'DESTINATION', storage: client } as const
  await access.use(place, async token => {
    const over = new AbortController()
    const end = () => over.abort()
    signal.addEventListener('abort', end, { once: true })
    const answered = new AbortController()
    // Whatever still waits for a connection when the time is over must not go out.
    void clock.sleep(Math.max(0, left()), answered.signal).then(() => left() <= 0 && end())
    try {
      if (left() <= 0) end()
      await client.remove(url, token, { scope: 'DESTINATION', signal: over.signal })
    } finally {
      answered.abort()
      signal.removeEventListener('abort', end)
    }
  })
}
