import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import type { CallerAccount } from '../accounts/caller.ts'
import { Quota } from '../accounts/quota.ts'
import { limitsFor, usageOf } from '../accounts/usage-store.ts'
import { holdForRule, totalsBelow } from '../catalogue/contents-store.ts'
import { type DidRow, findDid } from '../catalogue/did-store.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { resolveExpression } from '../storages/expression.ts'
import { ensureSourceSet } from '../transfers/source-set-store.ts'
import { holdingsBelow } from './choice-store.ts'
import { insertEvents } from './event-store.ts'
import { type Grouping, insertRule } from './store.ts'
import { demandPossible } from './totals.ts'

export interface RuleRequest {
  readonly dids: readonly string[]
  readonly copies: number
  readonly expression: string
  readonly grouping: Grouping
  readonly weight?: string | undefined
  /** Which storages its files may come from; absent: any. */
  readonly sourceExpression?: string | undefined
  readonly activity: string
  readonly priority: number
  readonly lifetime?: number | undefined
  readonly comment?: string | undefined
  readonly archive: boolean
  readonly purgeReplicas: boolean
  /** Whatever the quota: nothing is done before somebody approves it. */
  readonly askApproval: boolean
}

/** A DID that is asked for, and all that is below it. */
export interface Asked {
  readonly did: DidRow
  readonly files: number
  readonly bytes: number
}

/**
 * Takes rules in: checks what can be known at once and answers with their keys; the evaluator does the rest. Throws 4xx
 * RSE_EXPRESSION_*, COPIES_IMPOSSIBLE, QUOTA_EXCEEDED, NO_SPACE, DID_UNKNOWN, RULE_EXISTS, with the field at fault.
 */
export async function submitRules(
  executor: Executor,
  rses: readonly Rse[],
  account: CallerAccount,
  request: RuleRequest,
  now: number,
): Promise<number[]> {
  const asked = await demandRules(executor, rses, account, request)
  const { sourceExpression } = request
  if (sourceExpression !== undefined) {
    const sources = sourcesNamed(sourceExpression, rses)
    await ensureSourceSet(executor, account.voId, sourceExpression, sources)
  }
  const ids: number[] = []
  for (const [i, { did }] of asked.entries()) {
    await holdForRule(executor, did.id)
    const id = await insertRule(executor, {
      voId: account.voId,
      didId: did.id,
      accountId: account.id,
      copies: request.copies,
      expression: request.expression,
      grouping: request.grouping,
      weight: request.weight ?? null,
      sourceExpression: sourceExpression ?? null,
      activity: request.activity,
      priority: request.priority,
      comment: request.comment ?? null,
      archive: request.archive,
      purgeReplicas: request.purgeReplicas,
      expiresAt: request.lifetime === undefined ? null : now + request.lifetime * 1000,
      state: request.askApproval ? 'WAITING_APPROVAL' : 'REPLICATING',
      ignoreQuota: false,
      replaces: null,
      now,
    })
    if (id === undefined) {
      const message = `${account.name} has a rule for ${request.dids[i]} with copies=${request.copies} and this expression already`
      throw new WaybillError('RULE_EXISTS', message, { status: 409, field: `dids.${i}` })
    }
    ids.push(id)
  }
  const { dids: _, ...details } = request
  const created = ids.map(id => ({ rule_id: id, event: 'created' as const, actor: account.name, details }))
  await insertEvents(executor, created, now)
  return ids
}

/** What is asked for, once it is known that totals do not forbid it: the statements do not grow with the files. Throws as `submitRules`. */
export async function demandRules(
  read: Executor,
  rses: readonly Rse[],
  account: CallerAccount,
  request: RuleRequest,
): Promise<Asked[]> {
  const named = new Set(resolveExpression(request.expression, [...rses]))
  const candidates = rses.filter(rse => named.has(rse.name))
  if (request.sourceExpression !== undefined) sourcesNamed(request.sourceExpression, rses)
  if (request.weight !== undefined) demandWeight(request.weight, candidates)
  const asked = await askedFor(read, account, request.dids)
  const limits = request.askApproval ? [] : await limitsFor(read, account.id)
  const quota = new Quota(limits, await usageOf(read, account.id), rses)
  let requestBytes = 0
  for (const [i, { did, files, bytes }] of asked.entries()) {
    requestBytes += bytes
    const { copies, grouping, weight = null } = request
    const together = grouping === 'ALL' || (grouping === 'DATASET' && did.type !== 'CONTAINER') || did.type === 'FILE'
    const keep = await keepers(read, { did, files, bytes }, candidates, together)
    const totals = { did: request.dids[i] ?? '', copies, bytes, requestBytes, together, weight, keep }
    demandPossible(totals, candidates, quota, `dids.${i}`)
  }
  return asked
}

/** Files of a DID whose replicas are looked at before a rule on it is answered. */
const FILES_LOOKED_AT = 10_000

/** Storages that are not written to now and hold what they would have to: of what is too much to look at here any may. */
async function keepers(
  read: Executor,
  { did, files, bytes }: Asked,
  candidates: readonly Rse[],
  together: boolean,
): Promise<Set<number>> {
  const closed = candidates.filter(rse => !rse.availabilityWrite).map(rse => rse.id)
  if (closed.length === 0 || bytes === 0) return new Set()
  if (files > FILES_LOOKED_AT) return new Set(closed)
  const held = await holdingsBelow(read, did.id)
  const enough = held.filter(holding => holding.held >= (together ? bytes : 1)).map(holding => holding.rse_id)
  return new Set(enough.filter(id => closed.includes(id)))
}

async function askedFor(read: Executor, account: CallerAccount, dids: readonly string[]): Promise<Asked[]> {
  const rows: DidRow[] = []
  for (const [i, text] of dids.entries()) {
    const field = `dids.${i}`
    const did = await findDid(read, parseDid(text, field))
    if (did === undefined || did.vo_id !== account.voId) {
      throw new WaybillError('DID_UNKNOWN', `there is no DID ${text} in ${account.vo}`, { status: 404, field })
    }
    rows.push(did)
  }
  const containers = rows.filter(({ type }) => type === 'CONTAINER').map(({ id }) => id)
  const totals = await totalsBelow(read, containers)
  return rows.map(did => {
    const { files, bytes } = did.type === 'CONTAINER' ? (totals.get(did.id) ?? { files: 0, bytes: 0 }) : did
    return { did, files, bytes }
  })
}

function sourcesNamed(expression: string, rses: readonly Rse[]): number[] {
  const named = new Set(resolveExpression(expression, [...rses], 'sourceExpression'))
  return rses.filter(rse => named.has(rse.name)).map(rse => rse.id)
}

function demandWeight(weight: string, candidates: readonly Rse[]): void {
  if (candidates.some(rse => rse.attributes[weight] !== undefined)) return
  const message = `none of the storages that the expression names has an attribute ${weight}`
  throw new WaybillError('WEIGHT_UNKNOWN', message, { status: 400, field: 'weight' })
}
