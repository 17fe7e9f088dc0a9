import type { TransferFailure } from '../../shared/domain/transfer-error.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { condemnReplicas } from '../catalogue/fault-store.ts'
import { addToRules } from '../rules/store.ts'
import type { Order, TaskKind, Told } from '../tasks/kinds.ts'
import { moveItems, removeItems, setRequest, type TaskFile, type TaskRow } from '../tasks/store.ts'
import { failAlone } from './failures.ts'
import { bringOnline, isOver, neededSources } from './staging.ts'

/** Between two looks at a recall: a tenth of its age. Milliseconds. */
const POLL = { least: 5_000, most: 600_000 }
/** While all is on disk and only to be copied. Milliseconds. */
const IDLE_MS = 20_000
/** A storage that has not brought a file for so long is not waited for. Milliseconds. */
const PATIENCE_MS = 7 * 86_400_000

type Want = Order['wants'] extends ReadonlyMap<number, infer W> ? W : never

/** What is wanted of a file of a recall: pure. `needed`: a transfer waits for it. */
export function wantOf(
  { state, at }: Pick<TaskFile, 'state' | 'at'>,
  needed: boolean,
  now: number,
): Want | 'nothing' | 'drop' {
  if (state === 'WANTED') return needed ? 'stage' : 'drop'
  if (state === 'ASKED') return needed ? 'poll' : 'cancel'
  return needed && !isOver(at, now) ? 'nothing' : 'release'
}

/** Files are asked back from tape in bulk, looked after until they are on disk, and let go of when they are copied. */
export const recall: TaskKind = {
  purpose: 'stage',
  async order(executor, task, files, now) {
    const needed = await neededSources(
      executor,
      files.map(({ replica_id }) => replica_id),
    )
    const wants = new Map<number, Want>()
    const dropped: number[] = []
    let idle = false
    for (const file of files) {
      const want = wantOf(file, needed.has(file.replica_id), now)
      if (want === 'drop') dropped.push(file.replica_id)
      else if (want === 'nothing') idle = true
      else wants.set(file.replica_id, want)
    }
    await removeItems(executor, dropped)
    const last = !idle && [...wants.values()].every(want => want === 'release' || want === 'cancel')
    return { wants, last, ...(task.request === null ? {} : { request: task.request }) }
  },
  async take(executor, task, told, by, now) {
    const { request, forgotten, results } = told
    if (request !== undefined) await setRequest(executor, task.id, request)
    if (forgotten) await setRequest(executor, task.id, null)
    const named = (result: string) => results.filter(one => one.result === result).map(({ file }) => file)
    await moveItems(executor, named('asked'), 'ASKED', now)
    if (forgotten) await moveItems(executor, named('pending'), 'WANTED', now)
    const online = named('online')
    await moveItems(executor, online, 'ONLINE', now)
    await bringOnline(executor, online, now)
    const failed = [...results.flatMap(failureOf), ...tooLate(task, named('pending'), now)]
    const deltas = await failAlone(executor, 'STAGING', failed, by, now)
    await removeItems(executor, [...named('done'), ...failed.map(({ replicaId }) => replicaId)])
    const lost = failed.filter(({ failure }) => failure.code === 'FILE_LOST')
    const faults = lost.map(({ replicaId, failure: { code, message } }) => ({
      ...{ replica_id: replicaId, transfer_id: null, code, message },
    }))
    await addToRules(executor, [...deltas, ...(await condemnReplicas(executor, faults, now))], now)
    return online.length + named('done').length + named('asked').length
  },
  next(task, told, now) {
    if (told.results.some(({ result }) => result === 'pending' || result === 'asked')) {
      return now + Math.min(POLL.most, Math.max(POLL.least, (now - task.created_at) / 10))
    }
    return now + IDLE_MS
  },
}

function failureOf({
  file,
  result,
  error,
}: Told['results'][number]): { replicaId: number; failure: TransferFailure }[] {
  if (result !== 'failed') return []
  const words = error?.message ?? 'the storage gave no reason'
  const code = error?.code === 'FILE_LOST' ? 'FILE_LOST' : 'STAGING_FAILED'
  return [{ replicaId: file, failure: transferFailure(code, 'SOURCE', 'PREPARATION', words) }]
}

/** The storage is told to stop when the task is taken next: nobody needs them then. */
function tooLate(
  task: TaskRow,
  pending: readonly number[],
  now: number,
): { replicaId: number; failure: TransferFailure }[] {
  if (now - task.created_at < PATIENCE_MS) return []
  const words = 'it was asked for a week ago'
  return pending.map(replicaId => ({
    replicaId,
    failure: transferFailure('STAGING_TIMEOUT', 'SOURCE', 'PREPARATION', words),
  }))
}
