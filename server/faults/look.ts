import { holdFilesOf } from '../catalogue/hold-files.ts'
import { makeAvailable } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'
import { stuckBeside } from '../rules/arrivals.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { recopy } from '../rules/recopy.ts'
import { addToRules } from '../rules/store.ts'
import { finishItems } from '../tasks/items.ts'
import type { TaskKind, Told } from '../tasks/kinds.ts'
import { addToTask, addToTasks, moveItems, noteItemErrors, type TaskRow } from '../tasks/store.ts'
import { condemnReplicas, type Fault, FOUND, loseReplicas } from './store.ts'

/** A storage that is not quite itself says so of files that it has: what is missing is looked at so much later. Milliseconds. */
const LATER_MS = 600_000
const AGAIN_MS = 60_000

export interface Suspicion {
  readonly vo_id: number
  readonly rse_id: number
  readonly replica_id: number
  readonly words: string
}

/** These replicas are said not to be there: those that count as AVAILABLE are looked at later, by a worker itself. */
export async function suspectReplicas(
  executor: Executor,
  suspicions: readonly Suspicion[],
  now: number,
): Promise<void> {
  if (suspicions.length === 0) return
  const there = await query<{ id: number }>(
    executor,
    `SELECT id FROM replicas WHERE state = 'AVAILABLE' AND id ${oneOf(executor, 'replicas')}
        AND NOT EXISTS (SELECT 1 FROM task_items WHERE task_items.replica_id = replicas.id)`,
    { replicas: encodeRows(suspicions.map(({ replica_id }) => replica_id)) },
  )
  const ids = new Set(there.map(row => row.id))
  const fresh = suspicions.filter(({ replica_id }) => ids.has(replica_id))
  await addToTasks(executor, 'look', fresh, now)
  await noteItemErrors(
    executor,
    fresh.map(({ replica_id, words }) => ({ replica_id, error: words })),
  )
}

/** These replicas of a storage are looked at as soon as a worker can, but for those in another task. Which are. */
export async function lookAtOnce(
  executor: Executor,
  storage: Pick<TaskRow, 'vo_id' | 'rse_id'>,
  replicaIds: readonly number[],
  now: number,
): Promise<Set<number>> {
  if (replicaIds.length === 0) return new Set()
  await addToTask(executor, { kind: 'look', ...storage }, replicaIds, now)
  const looked = await query<{ replica_id: number }>(
    executor,
    `SELECT task_items.replica_id FROM task_items JOIN tasks ON tasks.id = task_items.task_id AND tasks.kind = 'look'
      WHERE task_items.replica_id ${oneOf(executor, 'replicas')}`,
    { replicas: encodeRows(replicaIds) },
  )
  const ids = looked.map(row => row.replica_id)
  await moveItems(executor, ids, 'WANTED', now - LATER_MS)
  await hastenTasks(executor, ids)
  return new Set(ids)
}

/** The tasks of these files go on at once, but for those that a worker is at, or that failed. */
async function hastenTasks(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  if (replicaIds.length === 0) return
  await query(
    executor,
    `UPDATE tasks SET not_before = 0 WHERE session_id IS NULL AND failures = 0 AND id IN
       (SELECT task_id FROM task_items WHERE replica_id ${oneOf(executor, 'replicas')})`,
    { replicas: encodeRows(replicaIds) },
  )
}

/** Replicas are looked at, and are good, BAD or lost from then on. What a look does not tell is looked at again. */
export const look: TaskKind = {
  purpose: 'read',
  async order(_executor, _task, files, now) {
    const due = files.filter(({ at }) => at + LATER_MS <= now)
    return { wants: new Map(due.map(({ replica_id }) => [replica_id, 'look' as const])), last: false }
  },
  async take(executor, task, { results }, _by, now) {
    const looked = results.filter(({ result }) => result === 'done').map(({ file }) => file)
    const found = [...faultsFound(results, 'SOURCE_CORRUPT'), ...faultsFound(results, 'SOURCE_MISSING')]
    const faulty = found.map(({ replica_id }) => replica_id)
    await holdFilesOf(executor, [...faulty, ...looked])
    // Of the others somebody has said something since.
    const over = await finishItems(executor, task.id, [...looked, ...faulty])
    const good = looked.filter(id => over.has(id))
    const faults = found.filter(({ replica_id }) => over.has(replica_id))
    const wrong = faults.filter(({ code }) => code === 'SOURCE_CORRUPT')
    const lost = faults.filter(({ code }) => code === 'SOURCE_MISSING')
    // They have been looked at where they were found: a kept one stays one.
    const restored = await makeAvailable(executor, good, { event: 'restore', kept: false }, now)
    const deltas = [
      ...(await moveLocks(executor, restored, 'succeed')),
      ...(await condemnReplicas(executor, wrong, now)),
      ...(await loseReplicas(executor, lost, now)),
    ]
    const stuck = new Set((await stuckBeside(executor, restored)).map(({ id }) => id))
    const copied = await recopy(executor, [...stuck], now)
    await addToRules(executor, summedByRule([...deltas, ...copied]), now)
    return over.size
  },
  next: (_task, _told, now) => now + AGAIN_MS,
}

function faultsFound(results: Told['results'], code: 'SOURCE_CORRUPT' | 'SOURCE_MISSING'): Fault[] {
  return results.flatMap(({ file, error }) =>
    error?.code === code ? [{ replica_id: file, transfer_id: null, code, message: error.message, ...FOUND }] : [],
  )
}
