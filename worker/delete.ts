import type { StorageTask } from '../shared/contract/routes/worker.ts'
import { type AttemptFailure, asksForRest, failureOf, reportedError } from './failure.ts'
import { momentOf, permitLeft, untilOver } from './remove.ts'
import type { Done, TaskResult, TaskWorkshop } from './task.ts'

/** Requests at once: deletions are cheap for a storage, but not a hundred of them. */
const PARALLEL = 8
/** So many files in a row that fail alike end a task: the storage is away, or lets nobody do this. */
const IN_A_ROW = 5

/**
 * Removes the files, the first one alone, then several at once: dCache may believe in a HEAD what it refuses in a DELETE, and its
 * third refusal blocks the worker (facts/http-tpc.md section 5). A file that is not there is removed.
 */
export async function deleteFiles(task: StorageTask, workshop: TaskWorkshop): Promise<Done> {
  const { clock, signal, askedAt } = workshop
  const left = () => permitLeft(askedAt, task.seconds, momentOf(clock))
  const waiting = [...task.files]
  const results: TaskResult[] = []
  let failing = 0
  let code = ''
  let error: AttemptFailure | undefined
  /** False: there is no more to do. */
  const next = async (): Promise<boolean> => {
    const file = waiting.shift()
    if (file === undefined || error !== undefined || signal.aborted || left() <= 0) return false
    try {
      await removeOne(task, file.url, workshop, left)
      failing = 0
      results.push({ file: file.file, result: 'done' })
    } catch (thrown) {
      if (signal.aborted || left() <= 0) return false
      const failure = failureOf(thrown)
      failing = failure.code === code ? failing + 1 : 1
      code = failure.code
      if (failure.scope === 'TOKEN' || asksForRest(failure) || failing >= IN_A_ROW) error = failure
      results.push({ file: file.file, result: 'failed', error: reportedError(failure) })
    }
    return true
  }
  const work = async (): Promise<void> => {
    while (await next());
  }
  await next()
  await Promise.all(Array.from({ length: PARALLEL }, work))
  return { results, ...(error === undefined ? {} : { error }) }
}

async function removeOne(
  { storage, grant }: StorageTask,
  url: string,
  { access, storages, clock, signal }: TaskWorkshop,
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
    void untilOver(clock, left, answered.signal).then(end)
    try {
      if (left() <= 0) end()
      await client.remove(url, token, { scope: 'DESTINATION', signal: over.signal })
    } finally {
      answered.abort()
      signal.removeEventListener('abort', end)
    }
  })
}
