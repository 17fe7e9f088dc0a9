import { MOST_IN_TASK } from '../../shared/contract/routes/worker.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { lockRows } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { markTold } from '../tasks/items.ts'
import { addToTask, countItems } from '../tasks/store.ts'
import { bytesToFree, toReap } from './space.ts'
import { postponeTombstones, reapReplicas, tombstones, usedBytes } from './store.ts'
import { ofFewTops } from './tops.ts'

/** What may not be deleted yet is looked at again. Milliseconds. */
const AGAIN_MS = 600_000
/** How often the space that a storage has left is added up: it reads all of its replicas. Milliseconds. */
const SPACE_EVERY_MS = 600_000

/**
 * Has replicas deleted that nobody asks for any more, `graceMs` after they lost their last lock, or as long as the storage says: those of
 * storages with a threshold only while too little is free, oldest first, but for those that are to go at once. Workers do it, as tasks.
 */
export function reaper(context: Context, graceMs: number): Service {
  /** By storage with a threshold: when it was added up, and what it holds since; as this server knows it. */
  const held = new Map<number, { at: number; bytes: number }>()

  async function toFree(rse: Rse, now: number): Promise<number | undefined> {
    const { capacityBytes, minFreeBytes } = rse
    if (capacityBytes === null || minFreeBytes === null)
      return bytesToFree({ capacityBytes, minFreeBytes, usedBytes: 0 })
    let known = held.get(rse.id)
    if (known === undefined || now - known.at >= SPACE_EVERY_MS) {
      known = { at: now, bytes: await usedBytes(context.db.read, rse.id) }
      held.set(rse.id, known)
    }
    return bytesToFree({ capacityBytes, minFreeBytes, usedBytes: known.bytes })
  }

  /** True when there may be more to do. */
  async function reapAt(rse: Rse, now: number): Promise<boolean> {
    const { db, wake } = context
    const room = rse.maxDeletions - (await countItems(db.read, 'delete', rse.id))
    const limit = Math.min(room, MOST_IN_TASK)
    if (limit <= 0) return false
    const { tombstoneDelaySeconds: delay } = rse
    const before = now - (delay === null ? graceMs : delay * 1000)
    const found = await tombstones(db.read, { voId: rse.voId, rseId: rse.id }, { before, now }, limit)
    if (found.length === 0) return false
    const candidates = ofFewTops(toReap(found, await toFree(rse, now)))
    if (candidates.length === 0) return false
    const reaped = await db.write(async executor => {
      await lockRows(executor, 'rses', [rse.id])
      const left = rse.maxDeletions - (await countItems(executor, 'delete', rse.id))
      const some = candidates.slice(0, Math.max(0, left))
      const { toDelete, remains, forgotten } = await reapReplicas(executor, some, before, now)
      const key = { kind: 'delete', vo_id: rse.voId, rse_id: rse.id } as const
      // One that came into another task meanwhile would never be deleted.
      if ((await addToTask(executor, key, toDelete, now)) < toDelete.length)
        throw new Error('a replica is in another task')
      await markTold(executor, remains)
      const gone = new Set([...toDelete, ...forgotten])
      await postponeTombstones(
        executor,
        some.map(({ id }) => id).filter(id => !gone.has(id)),
        before,
        now + AGAIN_MS,
      )
      return gone
    })
    const known = held.get(rse.id)
    if (known !== undefined) {
      const freed = candidates.filter(({ id }) => reaped.has(id)).reduce((sum, one) => sum + one.bytes, 0)
      held.set(rse.id, { ...known, bytes: known.bytes - freed })
    }
    if (reaped.size > 0) wake.notify('queue')
    return true
  }

  return periodic({
    ...context,
    name: 'reap replicas',
    interval: 5_000,
    async round() {
      let more = false
      for (const rse of await context.storages.all()) {
        if (rse.availabilityDelete) more = (await reapAt(rse, context.clock.now())) || more
      }
      return more
    },
  })
}
