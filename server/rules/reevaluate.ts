import { ancestors } from '../catalogue/contents-store.ts'
import { type Executor, encodeRows, lockRows, oneOf, query } from '../database/sql.ts'

/**
 * Something was attached at or below these rules' DIDs: they choose and expand once more, at once or when the pass they are
 * at is over, so that steady attaching holds none of them up (rucio #8436). What exists is left alone: only what is new gets
 * locks and transfers.
 */
export async function reevaluateRules(executor: Executor, didId: number): Promise<void> {
  const dids = encodeRows(await ancestors(executor, didId))
  const above = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE stage <> 'REMOVING' AND did_id ${oneOf(executor, 'dids')}`,
    { dids },
  )
  const rules = above.map(row => row.id)
  if (rules.length === 0) return
  await lockRows(executor, 'rules', rules)
  await query(
    executor,
    `UPDATE rules SET dirty = (stage <> 'EXPANDED'), stage = CASE stage WHEN 'EXPANDED' THEN 'CHOOSING' ELSE stage END,
            state = CASE state WHEN 'OK' THEN 'REPLICATING' ELSE state END
      WHERE stage <> 'REMOVING' AND id ${oneOf(executor, 'rules')}`,
    { rules: encodeRows(rules) },
  )
}
