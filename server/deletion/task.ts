import type { TaskKind } from '../tasks/kinds.ts'
import { holderOf } from '../tasks/store.ts'
import { dropPathPermits } from '../transfers/permits.ts'
import { noteDeleted } from './deleted-paths.ts'
import { forgetReplicas } from './store.ts'

/** Files are removed; what is not there is removed. */
export const deletion: TaskKind = {
  purpose: 'delete',
  async order(_executor, _task, files) {
    return { wants: new Map(files.map(({ replica_id }) => [replica_id, 'delete' as const])), last: false }
  },
  async take(executor, task, { results }, _by, now) {
    const gone = results.filter(({ result }) => result === 'done').map(({ file }) => file)
    await dropPathPermits(executor, gone, holderOf(task))
    await noteDeleted(executor, task.rse_id, gone, now)
    await forgetReplicas(executor, gone, now)
    return gone.length
  },
  next: (_task, _told, now) => now,
}
