import type { Service } from '../../shared/runtime/services.ts'
import { holdFilesOf } from '../catalogue/hold-files.ts'
import { moveReplicas } from '../catalogue/replica-store.ts'
import type { Context } from '../context.ts'
import { type Executor, lockRows } from '../database/sql.ts'
import { ofFewTops } from '../deletion/tops.ts'
import { periodic } from '../periodic.ts'
import { moveLocks } from '../rules/lock-store.ts'
import { addToRules } from '../rules/store.ts'
import type { Rse } from '../storages/directory.ts'
import { addToTask, countItems } from '../tasks/store.ts'
import { atFault, type BadReplica, recoverable } from './store.ts'

/** Of all that is at fault so many are looked at in a round. */
const PER_ROUND = 1_000
/** Replicas whose deletion one transaction begins. */
const AT_ONCE = 200

/**
 * Recovers BAD replicas that rules hold, in place: what lies there is deleted first, and when it is gone the file is copied there again
 * (`forgetReplicas`). Not the only copy there is: that one stays until there is another, or somebody says that it may go. How far it got is in
 * memory only: each replica's own state says what is to be done.
 */
export function recoverer(context: Context): Service {
  let after = 0
  return periodic({
    ...context,
    name: 'recover replicas',
    interval: 5_000,
    topic: 'repairs',
    async round() {
      const { db, clock, storages, wake } = context
      const page = await atFault(db.read, after, PER_ROUND)
      const more = page.length === PER_ROUND
      after = more ? (page.at(-1) ?? 0) : 0
      const found = await recoverable(db.read, page, clock.now())
      let begun = 0
      for (const rse of await storages.all()) {
        const own = found.filter(({ rse_id, vo_id }) => rse_id === rse.id && vo_id === rse.voId)
        const some = ofFewTops(own).slice(0, AT_ONCE)
        if (some.length > 0) begun += await db.write(executor => recoverAt(executor, rse, some, clock.now()))
      }
      if (begun > 0) wake.notify('queue')
      return more
    },
  })
}

/** How many were begun: no more than may be under deletion at the storage. */
async function recoverAt(
  executor: Executor,
  rse: Pick<Rse, 'id' | 'voId' | 'maxDeletions'>,
  found: readonly BadReplica[],
  now: number,
): Promise<number> {
  // As the reaper does: the storage, and then all of the files, so that the good copies stay good ones.
  await lockRows(executor, 'rses', [rse.id])
  const room = rse.maxDeletions - (await countItems(executor, 'delete', rse.id))
  const ids = found.slice(0, Math.max(0, room)).map(({ id }) => id)
  if (ids.length === 0) return 0
  await holdFilesOf(executor, ids)
  const bad = (await recoverable(executor, ids, now)).map(({ id }) => id)
  await moveReplicas(executor, bad, 'reap', now)
  const deltas = await moveLocks(executor, bad, 'repair')
  const key = { kind: 'delete', vo_id: rse.voId, rse_id: rse.id } as const
  // One that came into another task meanwhile would never be deleted.
  if ((await addToTask(executor, key, bad, now)) < bad.length) throw new Error('a replica is in another task')
  await addToRules(executor, deltas, now)
  return bad.length
}
