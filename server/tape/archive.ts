import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, stateList } from '../database/sql.ts'
import { moveLocks, summedByRule } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import { type HeldTask, isHopeless, type TaskKind } from '../tasks/kinds.ts'
import { removeItems } from '../tasks/store.ts'
import { markHops } from '../transfers/hop-store.ts'
import { failAlone } from './failures.ts'

/** Between two looks: a fifth of the time that was waited for. Milliseconds. */
const LOOK = { least: 10_000, most: 600_000 }
/** Tapes are written within hours; what is not there after so long will not be. Milliseconds. */
const PATIENCE_MS = 3 * 86_400_000

const ARCHIVING = `(${stateList(['ARCHIVING'])})`

/** Copies are on disk at a storage with a tape behind it: their locks are OK when they are on tape. */
export const archive: TaskKind = {
  purpose: 'stage',
  async order(executor, _task, files) {
    const open = await query<{ replica_id: number }>(
      executor,
      `SELECT replica_id FROM transfers WHERE state IN ${ARCHIVING} AND replica_id ${oneOf(executor, 'replicas')}`,
      { replicas: encodeRows(files.map(({ replica_id }) => replica_id)) },
    )
    const waiting = new Set(open.map(row => row.replica_id))
    await removeItems(
      executor,
      files.map(({ replica_id }) => replica_id).filter(id => !waiting.has(id)),
    )
    return { wants: new Map([...waiting].map(id => [id, 'locate' as const])), last: false }
  },
  async take(executor, task, { results, error }, by, now) {
    const named = (result: string) => results.filter(one => one.result === result).map(({ file }) => file)
    const arrived = named('done')
    const late = named('pending').filter(file => now - (task.files.get(file)?.at ?? now) >= PATIENCE_MS)
    const failed = [
      ...results.flatMap(({ file, result, error: own }) =>
        result === 'failed'
          ? [{ replicaId: file, failure: failure('ARCHIVING_FAILED', own?.message ?? 'the storage gave no reason') }]
          : [],
      ),
      ...(isHopeless(task, error) ? hopeless(task, `${error.code}: ${error.message}`.slice(0, 1000)) : []),
      ...late.map(replicaId => ({
        replicaId,
        failure: failure('ARCHIVING_TIMEOUT', 'it is on disk since three days'),
      })),
    ]
    const over = [...arrived, ...failed.map(({ replicaId }) => replicaId)]
    await lockRows(executor, 'replicas', over)
    const deltas = await failAlone(executor, 'ARCHIVING', failed, by, now)
    await removeItems(executor, over)
    await addToRules(executor, summedByRule([...deltas, ...(await archived(executor, arrived, now))]), now)
    return arrived.length
  },
  next(task, _told, now) {
    return now + Math.min(LOOK.most, Math.max(LOOK.least, (now - task.created_at) / 5))
  },
}

async function archived(executor: Executor, replicaIds: readonly number[], now: number) {
  const rows = await query<{ id: number; replica_id: number }>(
    executor,
    `UPDATE transfers SET state = 'DONE', written_fence = NULL, updated_at = :now
      WHERE state IN ${ARCHIVING} AND state IN (${stateList(statesAccepting(TRANSFER_MACHINE, 'succeed', 'DONE'))})
        AND replica_id ${oneOf(executor, 'replicas')} RETURNING id, replica_id`,
    { now, replicas: encodeRows(replicaIds) },
  )
  const ids = rows.map(row => row.replica_id)
  await moveReplicas(executor, ids, 'succeed', now)
  await markHops(
    executor,
    rows.map(row => row.id),
  )
  return moveLocks(executor, ids, 'succeed')
}

function hopeless({ files }: HeldTask, words: string) {
  return [...files.keys()].map(replicaId => ({ replicaId, failure: failure('ARCHIVING_FAILED', words) }))
}

function failure(code: 'ARCHIVING_FAILED' | 'ARCHIVING_TIMEOUT', words: string) {
  return transferFailure(code, 'DESTINATION', 'FINALIZATION', words)
}
