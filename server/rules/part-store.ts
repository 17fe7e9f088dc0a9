import type { DidType } from '../catalogue/did-store.ts'
import { type Executor, query, queryOne } from '../database/sql.ts'

/** What of a rule's DID is still to be chosen for: all of it in the beginning, then what is attached. */
export interface Part {
  readonly id: number
  readonly type: DidType
  /** Files may have come to what was chosen for before. */
  readonly grown: number | boolean
}

/** All of the rule's DID. */
export async function insertPart(
  executor: Executor,
  rule: { readonly id: number; readonly did_id: number },
  grown = false,
): Promise<void> {
  await query(
    executor,
    `INSERT INTO rule_parts (rule_id, later, did_id, grown) VALUES (:ruleId, false, :didId, :grown)
      ON CONFLICT (rule_id, later, did_id) DO NOTHING`,
    { ruleId: rule.id, didId: rule.did_id, grown },
  )
}

/** The part that the rule is at, or its next; undefined: this pass has chosen for all. */
export async function partInWork(
  read: Executor,
  rule: { readonly id: number; readonly cursor_choice: number; readonly cursor_file: number },
): Promise<Part | undefined> {
  return queryOne<Part>(
    read,
    `SELECT dids.id, dids.type, rule_parts.grown FROM rule_parts JOIN dids ON dids.id = rule_parts.did_id
      WHERE rule_id = :ruleId AND NOT later AND (:file = 0 OR did_id = :part) ORDER BY did_id LIMIT 1`,
    { ruleId: rule.id, part: rule.cursor_choice, file: rule.cursor_file },
  )
}

export async function deletePart(executor: Executor, ruleId: number, didId: number): Promise<void> {
  await query(executor, 'DELETE FROM rule_parts WHERE rule_id = :ruleId AND NOT later AND did_id = :didId', {
    ruleId,
    didId,
  })
}
