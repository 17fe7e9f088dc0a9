import { transferFailure } from '../../shared/storage/classify.ts'
import { holdFilesOf } from '../catalogue/hold-files.ts'
import { condemnReplicas, FOUND } from '../faults/store.ts'
import { summedByRule } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import { type HeldTask, isHopeless, type Order, type TaskKind, type Told, withinToken } from '../tasks/kinds.ts'
import { moveItems, moveToAnother, removeItems, setRequest, type TaskFile } from '../tasks/store.ts'
import { type FailedAlone, failAlone } from './failures.ts'
import { bringOnline, isOver, neededSources, type Staging, sendBack, stagingOf } from './staging.ts'

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
  // The storage knows one request by one name: what is new has another.
  if (state === 'WANTED') return !needed ? 'drop' : isAsked ? 'later' : 'stage'
  // Who needs it again has it asked for anew.
  if (state === 'LATE') return isAsked ? 'cancel' : 'drop'
  if (!isAsked) return needed && state === 'ASKED' ? 'stage' : needed && !isOver(at, now) ? 'nothing' : 'drop'
  if (state === 'ASKED') return needed ? 'poll' : 'cancel'
  return needed && !isOver(at, now) ? 'nothing' : 'release'
}

/**
 * How many of these files a storage is asked for now: pure. Many with one request, since tapes are read in the order in which files lie
 * there; where few have room they wait until more have.
 */
export function askedNow(wanted: number, { most, asked }: Staging): number {
  const room = Math.max(0, most - asked)
  return room < Math.min(wanted, Math.ceil(most / 10)) ? 0 : Math.min(wanted, room)
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
    const toStage = withinToken(wanted.filter(({ want }) => want === 'stage')).map(({ replica_id }) => replica_id)
    const room = toStage.length === 0 ? 0 : askedNow(toStage.length, await stagingOf(executor, task))
    const staged = new Set(toStage.slice(0, room))
    // Before the storage has answered: another worker counts them.
    await moveItems(executor, [...staged], 'ASKED', now)
    // They have a request of their own: some file of this one may take days.
    const rest = staged.size === 0 ? [] : those('stage').filter(id => !staged.has(id))
    await moveToAnother(executor, task, [...those('later'), ...rest], now)
    const wants = new Map<number, Want>()
    for (const { replica_id, want } of wanted) {
      if (want === 'nothing' || want === 'drop' || want === 'later') continue
      if (want !== 'stage' || staged.has(replica_id)) wants.set(replica_id, want)
    }
    const last = task.request !== null && !wanted.some(({ want }) => want === 'nothing')
    return { wants, last, ...(task.request === null ? {} : { request: task.request }) }
  },
  async take(executor, task, told, by, now) {
    const { request, forgotten, results } = told
    const named = (result: string) => results.filter(one => one.result === result).map(({ file }) => file)
    const late = tooLate(task, named('pending'), now)
    const failed = [...results.flatMap(failureOf), ...late, ...hopeless(task, told)]
    const lost = failed.filter(({ failure }) => failure.code === 'FILE_LOST')
    await holdFilesOf(
      executor,
      lost.map(({ replicaId }) => replicaId),
    )
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
    // What came too late stays until the storage was told to stop, when the task is taken next.
    await moveItems(
      executor,
      late.map(({ replicaId }) => replicaId),
      'LATE',
      now,
    )
    // What was planned while it was let go of waits for the tape again.
    await sendBack(executor, named('done'), now)
    const over = results.filter(({ result }) => result === 'done' || result === 'failed').map(({ file }) => file)
    await removeItems(executor, over)
    const isBare = [...task.files.values()].every(
      ({ replica_id, state }) => state === 'WANTED' || over.includes(replica_id),
    )
    if (task.request !== null && isBare && named('asked').length === 0) await setRequest(executor, task.id, null)
    const faults = lost.map(({ replicaId, failure: { code, message } }) => ({
      ...{ replica_id: replicaId, transfer_id: null, code, message, ...FOUND },
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
  if (!isHopeless(task, error)) return []
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
