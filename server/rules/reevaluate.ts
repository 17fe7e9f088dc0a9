import { ancestors } from '../catalogue/contents-store.ts'
import { type Executor, encodeRows, keyset, lockRows, oneOf, query } from '../database/sql.ts'
import { insertDetached, rulesLettingGo } from './detached-store.ts'

/**
 * These were attached to this DID: rules on it or above it choose and expand for them, at once or when the pass they are at is
 * over, so that steady attaching holds none of them up (rucio #8436). Files came to their dataset, which is looked at whole.
 */
export async function reevaluateRules(
  executor: Executor,
  parent: { readonly id: number; readonly type: string },
  attached: readonly number[],
): Promise<void> {
  const rules = await rulesOn(executor, await ancestors(executor, parent.id))
  if (rules.length === 0) return
  const parts = parent.type === 'DATASET' ? [parent.id] : attached
  await lockRows(executor, 'rules', rules)
  const bindings = { rules: encodeRows(rules), parts: encodeRows(parts) }
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

/**
 * These were detached from this DID: rules on it or above it let go of what is not at or below theirs any more, in steps of the
 * evaluator. So do rules that have not yet let go of what held the DID itself: for them it was there until now.
 */
export async function shrinkRules(executor: Executor, parentId: number, detached: readonly number[]): Promise<void> {
  const above = await ancestors(executor, parentId)
  // In this order: what was above the DID until somebody else detached it meanwhile is found by the second.
  const rules = new Set([...(await rulesOn(executor, above)), ...(await rulesLettingGo(executor, above))])
  if (rules.size === 0) return
  await lockRows(executor, 'rules', [...rules])
  await insertDetached(executor, [...rules], detached)
}

async function rulesOn(executor: Executor, didIds: readonly number[]): Promise<number[]> {
  const rows = await query<{ id: number }>(
    executor,
    `SELECT id FROM rules WHERE stage <> 'REMOVING' AND did_id ${oneOf(executor, 'dids')}`,
    { dids: encodeRows(didIds) },
  )
  return rows.map(row => row.id)
}
