import { ancestors } from '../catalogue/did-store.ts'
import { type Executor, encodeRows, keyset, query } from '../database/sql.ts'

/**
 * Something was attached at or below these rules' DIDs: they choose and expand again from the start. Both steps leave
 * what exists alone, so only what is new gets locks and transfers.
 */
export async function reevaluateRules(executor: Executor, didId: number, now: number): Promise<void> {
  const dids = await ancestors(executor, didId)
  await query(
    executor,
    `UPDATE rules SET stage = 'CHOOSING', cursor_choice = 0, cursor_file = 0, updated_at = :now,
            state = CASE state WHEN 'OK' THEN 'REPLICATING' ELSE state END
      WHERE stage <> 'REMOVING' AND did_id IN ${keyset(executor, 'dids')}`,
    { dids: encodeRows(dids), now },
  )
}
