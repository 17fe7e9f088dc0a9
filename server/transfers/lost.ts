import type { Database } from '../database/database.ts'
import { encodeRows, oneOf, query } from '../database/sql.ts'
import { giveUp } from './give-up.ts'
import { HOPE } from './sources.ts'

/** What is said of a file that nobody has. */
export const NOWHERE = 'no storage has a good replica of the file, and nobody is bringing one'

/** A file that is registered before it is uploaded has so long to arrive. Milliseconds. */
const PATIENCE_MS = 3_600_000

/** Ends those of these transfers whose file nobody has had for long: somebody must bring it, and the rule that wants it says so. */
export async function giveUpLost(
  db: Pick<Database, 'read' | 'write'>,
  transferIds: readonly number[],
  now: number,
): Promise<void> {
  const lost = await query<{ id: number; replica_id: number }>(
    db.read,
    `SELECT transfers.id, transfers.replica_id FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id
      WHERE transfers.state = 'WAITING' AND transfers.reason = 'NO_SOURCE' AND transfers.updated_at <= :since AND NOT ${HOPE}
        AND transfers.id ${oneOf(db.read, 'ids')}`,
    { ids: encodeRows(transferIds), since: now - PATIENCE_MS, now },
  )
  if (lost.length > 0) await db.write(executor => giveUp(executor, lost, 'NO_SOURCE', now))
}
