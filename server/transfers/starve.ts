import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { TRANSFER_MACHINE } from '../../shared/domain/transfer-state.ts'
import type { Database } from '../database/database.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, skippingLocked, stateList } from '../database/sql.ts'
import { settleHints } from './bundles.ts'

const STARVING = stateList(statesAccepting(TRANSFER_MACHINE, 'starve'))
const BUNDLES_PER_ROUND = 50

interface ClosedBundle {
  id: number
  link_id: number
}

/**
 * Takes up to `limit` transfers out of the queue whose link was closed, or whose storages may not be read or written to any
 * more: planning looks for another source, or says why they wait. Answers how many. Nobody can claim them meanwhile.
 */
export async function starveTransfers(
  db: Pick<Database, 'read' | 'write'>,
  now: number,
  limit: number,
): Promise<number> {
  let starved = 0
  for (const bundle of await closedBundles(db.read)) {
    starved += await db.write(executor => starveBundle(executor, bundle, now, limit - starved))
    if (starved >= limit) break
  }
  return starved
}

async function closedBundles(read: Executor): Promise<ClosedBundle[]> {
  return query<ClosedBundle>(
    read,
    `SELECT bundles.id, bundles.link_id FROM links
       JOIN rses AS source ON source.id = links.source_rse_id
       JOIN rses AS destination ON destination.id = links.destination_rse_id
       JOIN bundles ON bundles.link_id = links.id AND bundles.has_work
      WHERE links.has_work
        AND (links.distance = 0 OR NOT source.availability_read OR NOT destination.availability_write)
      LIMIT ${BUNDLES_PER_ROUND}`,
  )
}

async function starveBundle(executor: Executor, bundle: ClosedBundle, now: number, limit: number): Promise<number> {
  // Link and bundle are locked before the queue is looked at, as a claim does it.
  await lockRows(executor, 'links', [bundle.link_id])
  await query(executor, 'UPDATE bundles SET served_at = :now WHERE id = :id', { now, id: bundle.id })
  // In these words SQLite finds the index of what is queued; a list of one state has it read the whole table.
  const free = await query<{ id: number }>(
    executor,
    `SELECT id FROM transfers WHERE bundle_id = :id AND state = 'QUEUED' ORDER BY id LIMIT :limit
      ${skippingLocked(executor, 'transfers')}`,
    { id: bundle.id, limit },
  )
  const rows = await query(
    executor,
    `UPDATE transfers SET state = 'WAITING', reason = NULL, not_before = 0, updated_at = :now
      WHERE state IN (${STARVING}) AND id ${oneOf(executor, 'free')} RETURNING id`,
    { now, free: encodeRows(free.map(row => row.id)) },
  )
  await settleHints(executor, bundle.link_id, [bundle.id])
  return rows.length
}
