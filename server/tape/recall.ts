import { transferFailure } from '../../shared/storage/classify.ts'
import { condemnReplicas } from '../catalogue/fault-store.ts'
import { summedByRule } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import { type HeldTask, HOPELESS, type Order, type TaskKind, type Told } from '../tasks/kinds.ts'
import { moveItems, removeItems, setRequest, stagingRoom, type TaskFile } from '../tasks/store.ts'
import { type FailedAlone, failAlone } from './failures.ts'
import { bringOnline, isOver, neededSources, sendBack } from './staging.ts'

/** Between two looks at a recall: a tenth of its age. Milliseconds. */
const POLL = { least: 5_000, most: 600_000 }
/** While all is on disk and only to be copied. Milliseconds. */
const IDLE_MS = 20_000
/** A storage that has not brought a file for so long is not waited for. Milliseconds. */
const PATIENCE_MS = 7 * 86_400_000

type Want = Order['wants'] extends ReadonlyMap<number, infer W> ? W : never

/** What is wanted of a file of a recall: pure. `needed`: a transfer waits for it. `isAsked`: the storage has the request. */
export function wantOf(
  { state, at }: Pick<TaskFile, 'state' | 'at'>,
  needed: boolean,
  isAsked: boolean,
  now: number,
): Want | 'nothing' | 'drop' | 'later' {
  // New files wait until the storage has done with those it was asked for: it knows one request by one name.
  if (state === 'WANTED') return !needed ? 'drop' : isAsked ? 'later' : 'stage'
  if (!isAsked) return needed && state === 'ASKED' ? 'stage' : needed && !isOver(at, now) ? 'nothing' : 'drop'
  if (state === 'ASKED') return needed ? 'poll' : 'cancel'
  return needed && !isOver(at, now) ? 'nothing' : 'release'
}

/** Files are asked back from tape in bulk, looked after until they are on disk, and let go of when they are copied. */
export const recall: TaskKind = {
  purpose: 'stage',
  async order(executor, task, files, now) {
    const ids = files.map(({ replica_id }) => replica_id)
    const needed = await neededSources(executor, ids)
    const wanted = files.map(file => ({
      ...file,
      want: wantOf(file, needed.has(file.replica_id), task.request !== null, now),
    }))
    const those = (want: string) => wanted.filter(file => file.want === want).map(({ replica_id }) => replica_id)
    // What waits in the queue for a file that leaves the disk is planned anew.
    await sendBack(
      executor,
      [...those('release'), ...those('drop')].filter(id => needed.has(id)),
      now,
    )
    await removeItems(executor, those('drop'))
    const room = those('stage').length === 0 ? 0 : await stagingRoom(executor, task.rse_id)
    const staged = new Set(those('stage').slice(0, room))
    const wants = new Map<number, Want>()
    for (const { replica_id, want } of wanted) {
      if (want === 'nothing' || want === 'drop' || want === 'later') continue
      if (want !== 'stage' || staged.has(replica_id)) wants.set(replica_id, want)
    }
    const last = task.request !== null && !wanted.some(({ want }) => want === 'nothing' || want === 'poll')
    return { wants, last, ...(task.request === null ? {} : { request: task.request }) }
  },
  async take(executor, task, told, by, now) {
    const { request, forgotten, results } = told
    const named = (result: string) => results.filter(one => one.result === result).map(({ file }) => file)
    const failed = [...results.flatMap(failureOf), ...tooLate(task, named('pending'), now), ...hopeless(task, told)]
    const deltas = await failAlone(executor, 'STAGING', failed, by, now)
    if (request !== undefined) await setRequest(executor, task.id, request)
    await moveItems(executor, named('asked'), 'ASKED', now)
    if (forgotten) {
      await setRequest(executor, task.id, null)
      await moveItems(executor, named('pending'), 'WANTED', now)
    }
    const online = named('online')
    await moveItems(executor, online, 'ONLINE', now)
    await bringOnline(executor, online, now)
    // What came too late stays: the storage is told to stop when the task is taken next, since nobody needs it then.
    const over = results.filter(({ result }) => result === 'done' || result === 'failed').map(({ file }) => file)
    await removeItems(executor, over)
    const isBare = [...task.files.values()].every(
      ({ replica_id, state }) => state === 'WANTED' || over.includes(replica_id),
    )
    if (task.request !== null && isBare && named('asked').length === 0) await setRequest(executor, task.id, null)
    const lost = failed.filter(({ failure }) => failure.code === 'FILE_LOST')
    const faults = lost.map(({ replicaId, failure: { code, message } }) => ({
      ...{ replica_id: replicaId, transfer_id: null, code, message },
    }))
    await addToRules(executor, summedByRule([...deltas, ...(await condemnReplicas(executor, faults, now))]), now)
    return online.length + named('done').length + named('asked').length
  },
  next(task, told, now) {
    if (told.results.some(({ result }) => result === 'pending' || result === 'asked')) {
      return now + Math.min(POLL.most, Math.max(POLL.least, (now - task.created_at) / 10))
    }
    return now + IDLE_MS
  },
}

function failureOf({ file, result, error }: Told['results'][number]): FailedAlone[] {
  if (result !== 'failed') return []
  const words = error?.message ?? 'the storage gave no reason'
  const code = error?.code === 'FILE_LOST' ? 'FILE_LOST' : 'STAGING_FAILED'
  return [{ replicaId: file, failure: transferFailure(code, 'SOURCE', 'PREPARATION', words) }]
}

function tooLate(task: HeldTask, pending: readonly number[], now: number): FailedAlone[] {
  const late = pending.filter(file => now - (task.files.get(file)?.at ?? now) >= PATIENCE_MS)
  return late.map(replicaId => ({
    replicaId,
    failure: transferFailure('STAGING_TIMEOUT', 'SOURCE', 'PREPARATION', 'it was asked for a week ago'),
  }))
}

/** The tape API has failed as a whole for hours: what waits for it goes elsewhere, or says why it cannot. */
function hopeless(task: HeldTask, { error, results }: Told): FailedAlone[] {
  if (error === undefined || task.failures + 1 < HOPELESS) return []
  const told = new Set(results.map(({ file }) => file))
  const waiting = [...task.files.values()].filter(
    ({ replica_id, state }) => state !== 'ONLINE' && !told.has(replica_id),
  )
  const failure = transferFailure(
    'STAGING_FAILED',
    'SOURCE',
    'PREPARATION',
    `${error.code}: ${error.message}`.slice(0, 1000),
  )
  return waiting.map(({ replica_id }) => ({ replicaId: replica_id, failure }))
}
