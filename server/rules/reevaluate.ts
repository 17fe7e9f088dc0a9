import { ancestors } from '../catalogue/contents-store.ts'
import { type Executor, encodeRows, keyset, lockRows, oneOf, query } from '../database/sql.ts'

/**
 * These were attached to this DID: rules on it or above it choose and expand for them, at once or when the pass they are at is
 * over, so that steady attaching holds none of them up (rucio #8436). Files came to their dataset, which is looked at whole.
 */
export async function reevaluateRules(
  executor: Executor,
  parent: { readonly id: number; readonly type: string },
  attached: readonly number[],
): Promise<void> {
  const above = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE stage <> 'REMOVING' AND did_id ${oneOf(executor, 'dids')}`,
    { dids: encodeRows(await ancestors(executor, parent.id)) },
  )
  if (above.length === 0) return
  const parts = parent.type === 'DATASET' ? [parent.id] : attached
  await lockRows(
    executor,
    'rules',
    above.map(row => row.id),
  )
  const bindings = { rules: encodeRows(above.map(row => row.id)), parts: encodeRows(parts) }
  await query(
    executor,
    `INSERT INTO rule_parts (rule_id, later, did_id, grown)
     SELECT rules.id, rules.stage <> 'EXPANDED', given.value, true FROM rules, ${keyset(executor, 'parts')} AS given
      WHERE rules.stage <> 'REMOVING' AND rules.id ${oneOf(executor, 'rules')}
     ON CONFLICT (rule_id, later, did_id) DO UPDATE SET grown = true`,
    bindings,
  )
  await query(
    executor,
    `UPDATE rules SET stage = CASE stage WHEN 'EXPANDED' THEN 'CHOOSING' ELSE stage END,
            state = CASE state WHEN 'OK' THEN 'REPLICATING' ELSE state END
      WHERE stage <> 'REMOVING' AND id ${oneOf(executor, 'rules')}`,
    bindings,
  )
}
