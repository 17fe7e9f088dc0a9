import { WaybillError } from '../../shared/domain/errors.ts'
import { holdForRule } from '../catalogue/contents-store.ts'
import { type Executor, queryOne } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { candidatesOf } from './candidates.ts'
import { insertEvents } from './event-store.ts'
import { approveRule, changeRule, findRule, type RuleChange, resumeRule, suspendRule } from './life-store.ts'
import type { ShownRule } from './read-store.ts'
import { lockRule, startRemoval } from './step-store.ts'
import { insertRule, type RuleRow } from './store.ts'
import { demandRules } from './submit.ts'

/** What people do with a rule that is there. Each waits for the step that is under way, and finds the rule as that left it. */

/** Throws 404 RULE_UNKNOWN: it went meanwhile. */
async function holdRule(executor: Executor, id: number): Promise<RuleRow> {
  await lockRule(executor, id)
  const rule = await findRule(executor, id)
  if (rule !== undefined) return rule
  throw new WaybillError('RULE_UNKNOWN', `there is no rule ${id}`, { status: 404, field: 'id' })
}

/** Throws 409 RULE_LOCKED. */
function demandUnlocked({ id, locked }: RuleRow): void {
  if (!locked) return
  const message = `rule ${id} is locked: \`waybill rule update ${id} --unlock\` first`
  throw new WaybillError('RULE_LOCKED', message, { status: 409 })
}

/** Throws 409 RULE_REPLACED. */
async function demandUnreplaced(executor: Executor, id: number): Promise<void> {
  const other = await queryOne<{ id: number }>(
    executor,
    "SELECT id FROM rules WHERE replaces = :id AND stage <> 'REMOVING'",
    { id },
  )
  if (other === undefined) return
  const message = `rule ${id} is being replaced by rule ${other.id}: change or remove that one`
  throw new WaybillError('RULE_REPLACED', message, { status: 409 })
}

/** Throws 409 RULE_STATE. */
function demandState(rule: RuleRow, ok: boolean, why: string): void {
  if (!ok) throw new WaybillError('RULE_STATE', `rule ${rule.id} is ${rule.state}: ${why}`, { status: 409 })
}

export async function updateRule(
  executor: Executor,
  id: number,
  { suspended, ...change }: RuleChange & { readonly suspended?: boolean | undefined },
  actor: string,
  now: number,
): Promise<void> {
  const rule = await holdRule(executor, id)
  const { locked: _, ...others } = { ...change, suspended }
  // What replaces it has what it was when that was asked for. A lock keeps it from going.
  if (Object.values(others).some(value => value !== undefined)) await demandUnreplaced(executor, id)
  await changeRule(executor, id, change, now)
  if (Object.values(change).some(value => value !== undefined)) {
    await insertEvents(executor, [{ rule_id: id, event: 'updated', actor, details: change }], now)
  }
  if (suspended === undefined) return
  demandState(rule, rule.state !== 'WAITING_APPROVAL', 'nothing is done for it before it is approved')
  if (suspended === (rule.state === 'SUSPENDED')) return
  await (suspended ? suspendRule : resumeRule)(executor, id, now)
  await insertEvents(executor, [{ rule_id: id, event: suspended ? 'suspended' : 'resumed', actor, details: {} }], now)
}

/** Throws 409 RULE_LOCKED. */
export async function removeRule(executor: Executor, id: number, actor: string, now: number): Promise<void> {
  demandUnlocked(await holdRule(executor, id))
  await insertEvents(executor, [{ rule_id: id, event: 'removed', actor, details: {} }], now)
  await startRemoval(executor, id, now)
}

/** Throws 409 RULE_STATE when it waits for nobody's approval. */
export async function judgeRule(
  executor: Executor,
  id: number,
  { approve, reason }: { readonly approve: boolean; readonly reason?: string | undefined },
  actor: string,
  now: number,
): Promise<void> {
  const rule = await holdRule(executor, id)
  demandState(rule, rule.state === 'WAITING_APPROVAL', 'it waits for nobody’s approval')
  const details = reason === undefined ? {} : { reason }
  await insertEvents(executor, [{ rule_id: id, event: approve ? 'approved' : 'denied', actor, details }], now)
  await (approve ? approveRule : startRemoval)(executor, id, now)
}

/** Whether an expression names no storage that another does not. */
function isWithin(inner: string, outer: string, rses: readonly Rse[]): boolean {
  if (inner === outer) return true
  const names = new Set(candidatesOf(outer, rses).candidates.map(rse => rse.id))
  return candidatesOf(inner, rses).candidates.every(rse => names.has(rse.id))
}

/** What is to be otherwise: the storages, the number of copies, or both. */
export interface ReplacementRequest {
  readonly expression?: string | undefined
  readonly copies?: number | undefined
}

/**
 * A new rule beside the old one, which goes when the new one is OK. To keep fewer copies at storages of the same expression is not held
 * against the quota: nothing more comes to lie anywhere. The new rule's key. Throws as `submitRules`, and 409 RULE_LOCKED, RULE_STATE,
 * RULE_REPLACED, 400 NOTHING_CHANGES.
 */
export async function replaceRule(
  executor: Executor,
  rses: readonly Rse[],
  { id, did, account, vo }: Pick<ShownRule, 'id' | 'did' | 'account'> & { readonly vo: string },
  request: ReplacementRequest,
  actor: string,
  now: number,
): Promise<number> {
  const old = await holdRule(executor, id)
  demandUnlocked(old)
  demandState(old, old.state !== 'WAITING_APPROVAL', 'deny it, and ask anew')
  const { expression = old.expression, copies = old.copies } = request
  if (expression === old.expression && copies === old.copies) {
    const message = `rule ${id} has copies=${copies} and this expression already; in parentheses it chooses anew by it`
    throw new WaybillError('NOTHING_CHANGES', message, { status: 400, field: 'copies' })
  }
  await demandUnreplaced(executor, id)
  const whole = old.stage === 'EXPANDED' && old.error === null
  const fewer = whole && expression === old.expression && copies < old.copies
  // What was approved was so many copies, at those storages.
  const approved = Boolean(old.ignore_quota) && copies <= old.copies && isWithin(expression, old.expression, rses)
  const ignoreQuota = fewer || approved
  const { grouping, activity, priority } = old
  const weight = old.weight ?? undefined
  const wanted = {
    dids: [did],
    copies,
    expression,
    grouping,
    weight,
    activity,
    priority,
    archive: Boolean(old.archive),
    purgeReplicas: Boolean(old.purge_replicas),
  }
  await demandRules(
    executor,
    rses,
    { id: old.account_id, name: account, voId: old.vo_id, vo },
    { ...wanted, askApproval: ignoreQuota },
  )
  await holdForRule(executor, old.did_id)
  const replacing = await insertRule(executor, {
    ...wanted,
    voId: old.vo_id,
    didId: old.did_id,
    accountId: old.account_id,
    weight: old.weight,
    sourceExpression: old.source_expression,
    comment: old.comment,
    expiresAt: old.expires_at,
    state: 'REPLICATING',
    ignoreQuota,
    replaces: id,
    now,
  })
  if (replacing === undefined) {
    const message = `${account} has a rule for ${did} with copies=${copies} and this expression already`
    throw new WaybillError('RULE_EXISTS', message, { status: 409 })
  }
  const events = [
    { rule_id: id, event: 'replaced', actor, details: { by: replacing, copies, expression } },
    { rule_id: replacing, event: 'replaces', actor, details: { rule: id, copies, expression, grouping } },
  ] as const
  await insertEvents(executor, events, now)
  return replacing
}
