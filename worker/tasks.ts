import { ApiError } from '../shared/contract/client.ts'
import type { StorageTask } from '../shared/contract/routes/worker.ts'
import type { Random } from '../shared/runtime/random.ts'
import { deleteFiles } from './delete.ts'
import { reportedError } from './failure.ts'
import { lookAtFiles } from './look.ts'
import { isSessionOver, untilAnswered, type WorkerApi } from './server.ts'
import { locateFiles, recallFiles } from './tape.ts'
import type { Done, TaskWorkshop } from './task.ts'

export interface TaskOptions extends TaskWorkshop {
  readonly api: Pick<WorkerApi, 'reportTask'>
  readonly session: number
  readonly random: Random
}

const KINDS: Readonly<Record<StorageTask['kind'], (task: StorageTask, workshop: TaskWorkshop) => Promise<Done>>> = {
  delete: deleteFiles,
  recall: recallFiles,
  archive: locateFiles,
  look: lookAtFiles,
}

/** Does a task as far as its time goes, and reports. What is not done is given out again. */
export async function runTask(task: StorageTask, options: TaskOptions): Promise<void> {
  const { api, session, clock, random, signal } = options
  const { error, ...done } = await KINDS[task.kind](task, options)
  const reported = error === undefined ? {} : { error: reportedError(error) }
  const body = { session, fence: task.fence, ...done, ...reported }
  try {
    await untilAnswered({ clock, random, signal }, () => api.reportTask({ params: { id: task.task }, body, signal }))
  } catch (failure) {
    // Another session has it: the storage says the same to whoever asks again.
    const lost = failure instanceof ApiError && failure.code === 'TASK_LOST'
    if (!lost && !signal.aborted && !isSessionOver(failure)) throw failure
  }
}
