import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import type { CallerAccount } from '../accounts/caller.ts'
import { holdForRule } from '../catalogue/contents-store.ts'
import { findDid } from '../catalogue/did-store.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { resolveExpression } from '../storages/expression.ts'
import { insertRule } from './store.ts'

export interface RuleRequest {
  readonly dids: readonly string[]
  readonly copies: number
  readonly expression: string
  readonly activity: string
  readonly priority: number
  readonly lifetime?: number | undefined
  readonly comment?: string | undefined
  readonly archive: boolean
  readonly purgeReplicas: boolean
}

/**
 * Takes rules in: checks what can be known at once and answers with their keys; the evaluator does the rest. Throws 4xx
 * RSE_EXPRESSION_*, COPIES_IMPOSSIBLE, DID_UNKNOWN, RULE_EXISTS, with the field at fault.
 */
export async function submitRules(
  executor: Executor,
  rses: readonly Rse[],
  account: CallerAccount,
  request: RuleRequest,
  now: number,
): Promise<number[]> {
  const named = new Set(resolveExpression(request.expression, [...rses]))
  checkCopies(
    request.copies,
    rses.filter(rse => named.has(rse.name)),
  )
  const ids: number[] = []
  for (const [i, text] of request.dids.entries()) {
    const field = `dids.${i}`
    const did = await findDid(executor, parseDid(text, field))
    if (did === undefined || did.vo_id !== account.voId) {
      throw new WaybillError('DID_UNKNOWN', `there is no DID ${text} in ${account.vo}`, { status: 404, field })
    }
    await holdForRule(executor, did.id)
    const id = await insertRule(executor, {
      voId: account.voId,
      didId: did.id,
      accountId: account.id,
      copies: request.copies,
      expression: request.expression,
      activity: request.activity,
      priority: request.priority,
      comment: request.comment ?? null,
      archive: request.archive,
      purgeReplicas: request.purgeReplicas,
      expiresAt: request.lifetime === undefined ? null : now + request.lifetime * 1000,
      now,
    })
    if (id === undefined) {
      const message = `${account.name} has a rule for ${text} with copies=${request.copies} and this expression already`
      throw new WaybillError('RULE_EXISTS', message, { status: 409, field })
    }
    ids.push(id)
  }
  return ids
}

function checkCopies(copies: number, matching: readonly Rse[]): void {
  const usable = matching.filter(rse => rse.availabilityWrite)
  if (copies <= usable.length) return
  const closed = matching.filter(rse => !rse.availabilityWrite).map(rse => rse.name)
  const because = closed.length === 0 ? '' : `; not writable now: ${closed.join(', ')}`
  const storages = usable.length === 1 ? '1 writable storage' : `${usable.length} writable storages`
  const names = usable.map(rse => rse.name).join(', ')
  const named = usable.length === 0 ? 'no writable storage' : `${storages} (${names})`
  const message = `copies=${copies}, but the expression names ${named}${because}`
  throw new WaybillError('COPIES_IMPOSSIBLE', message, { status: 409, field: 'copies' })
}
