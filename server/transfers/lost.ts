import type { Database } from '../database/database.ts'
import { type Executor, encodeRows, lockRows, oneOf, query } from '../database/sql.ts'
import { type GivenUp, giveUp } from './give-up.ts'
import { hopeBy } from './sources.ts'

/** What is said of a file that nobody has. */
export const NOWHERE = 'no storage has a good replica of the file, and nobody is bringing one'

/** What is said of one that storages may have, but none from which its rule lets it come. */
export const NOWHERE_ALLOWED =
  'none of the storages that its rule names as sources has a good replica of the file, and nobody is bringing one there'

/** What is said of one that was given up while nothing could be written to its destination. */
export const CLOSED = 'nothing could be written to its storage for an hour'

/** A file that is registered before it is uploaded has so long to arrive, and a downtime to end. Milliseconds. */
const PATIENCE_MS = 3_600_000

interface Lost {
  readonly id: number
  readonly replica_id: number
  readonly reason: GivenUp
}

/**
 * Ends those of these transfers whose file nobody has had for long, or whose destination nobody could write to: somebody must do
 * something, and the rule that wants it says so.
 */
export async function giveUpLost(
  db: Pick<Database, 'read' | 'write'>,
  transferIds: readonly number[],
  now: number,
): Promise<void> {
  const found = await lostOf(db.read, transferIds, now)
  for (const reason of new Set(found.map(row => row.reason))) {
    const alike = found.filter(row => row.reason === reason)
    await db.write(async executor => {
      await lockRows(
        executor,
        'replicas',
        alike.map(row => row.replica_id),
      )
      // Again: it may have arrived somewhere meanwhile, and who brings it there looks for what is stuck already.
      const ids = alike.map(row => row.id)
      await giveUp(executor, await lostOf(executor, ids, now), reason, now)
    })
  }
}

async function lostOf(executor: Executor, transferIds: readonly number[], now: number): Promise<Lost[]> {
  return query<Lost>(
    executor,
    `SELECT transfers.id, transfers.replica_id, transfers.reason FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id
       JOIN rses ON rses.id = transfers.destination_rse_id
      WHERE transfers.state = 'WAITING' AND transfers.updated_at <= :since AND transfers.id ${oneOf(executor, 'ids')}
        AND CASE WHEN transfers.reason IN ('NO_SOURCE', 'NO_ALLOWED_SOURCE') THEN NOT ${hopeBy('transfers.source_set_id')}
                 WHEN transfers.reason = 'DESTINATION_CLOSED' THEN NOT rses.availability_write ELSE false END`,
    { ids: encodeRows(transferIds), since: now - PATIENCE_MS, now },
  )
}
