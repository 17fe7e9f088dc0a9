import { MOST_IN_TASK } from '../../shared/contract/routes/worker.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { addToTask, countItems } from '../tasks/store.ts'
import { bytesToFree, firstOf } from './space.ts'
import { postponeTombstones, reapReplicas, type Tombstone, tombstones, usedBytes } from './store.ts'

/** Directories that one token for deletions names, at most. */
const TOPS_IN_TASK = 16
/** What may not be deleted yet is looked at again. Milliseconds. */
const AGAIN_MS = 600_000
/** How often the space that a storage has left is added up: it reads all of its replicas. Milliseconds. */
const SPACE_EVERY_MS = 600_000

/**
 * Has replicas deleted that nobody asks for any more, `graceMs` after they lost their last lock: those of storages with a threshold
 * only while too little is free, oldest first. Workers do it, as tasks.
 */
export function reaper(context: Context, graceMs: number): Service {
  /** By storage: when it was added up, and what is left to free; as this server knows it. */
  const wanted = new Map<number, { at: number; bytes: number | undefined }>()

  async function toFree(rse: Rse, now: number): Promise<number | undefined> {
    const known = wanted.get(rse.id)
    if (known !== undefined && now - known.at < SPACE_EVERY_MS) return known.bytes
    const { capacityBytes, minFreeBytes } = rse
    const greedy = capacityBytes === null || minFreeBytes === null
    const used = greedy ? 0 : await usedBytes(context.db.read, rse.id)
    const bytes = bytesToFree({ capacityBytes, minFreeBytes, usedBytes: used })
    wanted.set(rse.id, { at: now, bytes })
    return bytes
  }

  /** True when there may be more to do. */
  async function reapAt(rse: Rse, now: number): Promise<boolean> {
    const { db, wake } = context
    const room = rse.maxDeletions - (await countItems(db.read, 'delete', rse.id))
    const limit = Math.min(room, MOST_IN_TASK)
    if (limit <= 0) return false
    const before = now - graceMs
    const found = await tombstones(db.read, { voId: rse.voId, rseId: rse.id }, before, limit)
    if (found.length === 0) return false
    const bytes = await toFree(rse, now)
    const candidates = ofFewTops(firstOf(found, bytes))
    if (candidates.length === 0) return false
    const reaped = await db.write(async executor => {
      const { doomed, forgotten } = await reapReplicas(executor, candidates, before, now)
      if (doomed.length > 0) await addToTask(executor, { kind: 'delete', vo_id: rse.voId, rse_id: rse.id }, doomed, now)
      const settled = new Set([...doomed, ...forgotten])
      const kept = candidates.map(({ id }) => id).filter(id => !settled.has(id))
      await postponeTombstones(executor, kept, before + AGAIN_MS)
      return new Set(doomed)
    })
    const known = wanted.get(rse.id)
    if (known?.bytes !== undefined) {
      const freed = candidates.filter(({ id }) => reaped.has(id)).reduce((sum, one) => sum + one.bytes, 0)
      wanted.set(rse.id, { ...known, bytes: known.bytes - freed })
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

function ofFewTops(candidates: readonly Tombstone[]): Tombstone[] {
  const tops = new Set([...new Set(candidates.map(({ top_id }) => top_id))].slice(0, TOPS_IN_TASK))
  return candidates.filter(({ top_id }) => tops.has(top_id))
}
