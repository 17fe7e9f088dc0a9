import type { Quota } from '../accounts/quota.ts'
import { holdQuota } from '../accounts/usage-store.ts'
import { type Executor, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { choicesOf, chosenRses } from './choice-store.ts'
import type { RuleRow } from './store.ts'

/** What a rule may lock. */
export interface RuleQuota {
  readonly quota: Quota
  /** The rule that it replaces, where it may have what that one has whatever the quota; null: nothing is free. */
  readonly freeAs: number | null
}

/**
 * As `holdQuota`. Who approved a rule has approved whatever it locks, also by the one that takes its place. A rule with fewer copies than
 * the one that it replaces may have what that one has where that one has it, and else no more than the account may.
 */
export async function holdRuleQuota(
  executor: Executor,
  { account_id, ignore_quota, replaces }: Pick<RuleRow, 'account_id' | 'ignore_quota' | 'replaces'>,
  rses: readonly Rse[],
): Promise<RuleQuota> {
  const approved = await isApproved(executor, { ignore_quota, replaces })
  const quota = await holdQuota(executor, { account_id, ignore_quota: approved }, rses)
  return { quota, freeAs: ignore_quota && !approved ? replaces : null }
}

/** Of rules that take each other's place the first one was approved, or none. */
async function isApproved(
  executor: Executor,
  { ignore_quota, replaces }: Pick<RuleRow, 'ignore_quota' | 'replaces'>,
): Promise<boolean> {
  if (!ignore_quota || replaces === null) return Boolean(ignore_quota)
  const replaced = await queryOne<Pick<RuleRow, 'ignore_quota' | 'replaces'>>(
    executor,
    'SELECT ignore_quota, replaces FROM rules WHERE id = :replaces',
    { replaces },
  )
  return replaced !== undefined && isApproved(executor, replaced)
}

/** Where a rule keeps these datasets; and `whole`, a DID that is kept together, where it has chosen anything. */
export async function placesChosen(
  executor: Executor,
  ruleId: number | null,
  datasetIds: readonly number[],
  whole: number | undefined,
): Promise<((unitId: number, rseId: number) => boolean) | undefined> {
  if (ruleId === null) return undefined
  const places = new Set<string>()
  for (const { dataset_id, rse_id } of await choicesOf(executor, ruleId, datasetIds))
    places.add(`${dataset_id}@${rse_id}`)
  if (whole !== undefined) for (const rseId of await chosenRses(executor, ruleId)) places.add(`${whole}@${rseId}`)
  return (unitId, rseId) => places.has(`${unitId}@${rseId}`)
}
