import type { Database } from '../database/database.ts'
import { encodeRows, oneOf, query } from '../database/sql.ts'
import { giveUp } from './give-up.ts'
import { hopeBy } from './sources.ts'

/** What is said of a file that nobody has. */
export const NOWHERE = 'no storage has a good replica of the file, and nobody is bringing one'

/** What is said of one that storages may have, but none from which its rule lets it come. */
export const NOWHERE_ALLOWED =
  'none of the storages that its rule names as sources has a good replica of the file, and nobody is bringing one there'

/** A file that is registered before it is uploaded has so long to arrive. Milliseconds. */
const PATIENCE_MS = 3_600_000

/** Ends those of these transfers whose file nobody has had for long: somebody must bring it, and the rule that wants it says so. */
export async function giveUpLost(
  db: Pick<Database, 'read' | 'write'>,
  transferIds: readonly number[],
  now: number,
): Promise<void> {
  const lost = await query<{ id: number; replica_id: number; reason: 'NO_SOURCE' | 'NO_ALLOWED_SOURCE' }>(
    db.read,
    `SELECT transfers.id, transfers.replica_id, transfers.reason FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id
      WHERE transfers.state = 'WAITING' AND transfers.reason IN ('NO_SOURCE', 'NO_ALLOWED_SOURCE')
        AND transfers.updated_at <= :since AND NOT ${hopeBy('transfers.source_set_id')} AND transfers.id ${oneOf(db.read, 'ids')}`,
    { ids: encodeRows(transferIds), since: now - PATIENCE_MS, now },
  )
  for (const reason of new Set(lost.map(row => row.reason))) {
    const alike = lost.filter(row => row.reason === reason)
    await db.write(executor => giveUp(executor, alike, reason, now))
  }
}
