import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import type { LockState } from '../../shared/domain/rule-state.ts'
import { actorOf } from '../accounts/caller.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission, type NamedScope, refusedScope } from '../accounts/permissions.ts'
import { type Sight, sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { requireDid } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import type { StorageDirectory } from '../storages/directory.ts'
import { candidatesOf } from './candidates.ts'
import { insertEvents } from './event-store.ts'
import { removeRule } from './life.ts'
import { previewRules } from './preview.ts'
import { listRules, placesOf, problemsOf, type ShownRule, showRule, stuckLocksOf } from './read-store.ts'
import { Rooms } from './room.ts'
import { repairNow } from './step-store.ts'
import { submitRules } from './submit.ts'
import { problemOf } from './why.ts'

type RuleHandlers = Pick<
  Handlers,
  'addRules' | 'previewRules' | 'listRules' | 'getRule' | 'listRulePlaces' | 'removeRule' | 'repairRule'
>

/** A caller with an account. */
type Owner = Parameters<RuleHandlers['removeRule']>[0]['caller']

const PROBLEMS_SHOWN = 100

export function ruleHandlers(context: Context): RuleHandlers {
  const { db, storages } = context
  const rooms = new Rooms(db.read, context.clock)

  return {
    async addRules(request) {
      const { account } = request.caller
      const sight = sightOf(request.caller)
      const rses = await storages.ofVo(account.voId)
      const answer = await once(context, 'addRules', request, async (executor, now) => {
        await demandPermission(executor, request.caller, 'rule', scopesOf(request.body.dids))
        const ids = await submitRules(executor, rses, account, request.body, now)
        return { items: await Promise.all(ids.map(async id => viewRule(await requireRule(executor, sight, id)))) }
      })
      context.wake.notify('rules')
      return answer
    },
    async previewRules({ body, caller }) {
      await demandPermission(db.read, caller, 'rule', scopesOf(body.dids))
      const rses = await storages.ofVo(caller.account.voId)
      return { items: await previewRules(db.read, rses, rooms, caller.account, body) }
    },
    async listRules({ query: { did, account, state, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const didId = did === undefined ? undefined : (await requireDid(db.read, sight, parseDid(did))).id
      const filter = { didId, account, state, after: decodeCursor(cursor), limit: limit + 1 }
      const rows = await listRules(db.read, sight, filter)
      return pageOf(rows, limit, row => row.id, viewRule)
    },
    async getRule({ params, caller }) {
      const rule = await requireRule(db.read, sightOf(caller), params.id)
      if (rule.state !== 'STUCK') return viewRule(rule)
      const problems = await shownProblems(db.read, storages, rule)
      return { ...viewRule(rule), ...(problems.length === 0 ? {} : { problems }) }
    },
    async listRulePlaces({ params, caller }) {
      const rule = await requireRule(db.read, sightOf(caller), params.id)
      const rows = await placesOf(db.read, rule.id)
      const rses = await storages.ofVo(rule.vo_id)
      const items = rses.flatMap(({ id, name }) => {
        const own = rows.filter(({ rse_id }) => rse_id === id)
        if (own.length === 0) return []
        const files = (state: LockState): number => own.find(row => row.state === state)?.files ?? 0
        const bytes = own.reduce((sum, row) => sum + row.bytes, 0)
        const locks = { ok: files('OK'), replicating: files('REPLICATING'), stuck: files('STUCK') }
        return [{ rse: name, bytes, locks }]
      })
      return { items }
    },
    async repairRule({ params, caller }) {
      const rule = await requireOwnRule(db.read, caller, params.id)
      const now = context.clock.now()
      const repairs = await db.write(async executor => {
        if (!(await repairNow(executor, rule.id, now))) return false
        const asked = { rule_id: rule.id, event: 'repair-asked', actor: actorOf(caller), details: {} } as const
        await insertEvents(executor, [asked], now)
        return true
      })
      if (!repairs) {
        const message = `rule ${rule.id} is ${rule.state}: only what is STUCK is repaired`
        throw new WaybillError('RULE_NOT_STUCK', message, { status: 409 })
      }
      context.wake.notify('repairs')
      return viewRule(rule)
    },
    async removeRule({ params, caller }) {
      const rule = await requireOwnRule(db.read, caller, params.id)
      await db.write(executor => removeRule(executor, rule.id, actorOf(caller), context.clock.now()))
      context.wake.notify('rules')
      return {}
    },
  }
}

function scopesOf(dids: readonly string[]): NamedScope[] {
  return dids.map((text, i) => ({ scope: parseDid(text, `dids.${i}`).scope, field: `dids.${i}` }))
}

/** The rule, if the caller may change it: its own, or in a scope that it manages. Throws 404 RULE_UNKNOWN, 403 FORBIDDEN. */
export async function requireOwnRule(read: Executor, caller: Owner, id: number): Promise<ShownRule> {
  const rule = await requireRule(read, sightOf(caller), id)
  if (rule.account_id === caller.account.id) return rule
  const { scope } = parseDid(rule.did)
  if ((await refusedScope(read, caller, 'manage', [{ scope, field: 'id' }])) === undefined) return rule
  const message = `rule ${rule.id} belongs to ${rule.account}, and ${caller.account.name} may not manage the scope ${scope}`
  throw new WaybillError('FORBIDDEN', message, { status: 403 })
}

/** Throws 404 RULE_UNKNOWN. */
export async function requireRule(executor: Executor, sight: Sight, id: number): Promise<ShownRule> {
  const rule = await showRule(executor, id)
  if (rule !== undefined && sees(sight, rule.vo_id)) return rule
  throw new WaybillError('RULE_UNKNOWN', `there is no rule ${id}`, { status: 404, field: 'id' })
}

/** The first files that could get no lock, or whose last transfer failed, and why. */
export async function shownProblems(
  read: Executor,
  storages: StorageDirectory,
  rule: Pick<ShownRule, 'id' | 'vo_id' | 'expression'>,
): Promise<{ did: string; rse: string; code: string; message: string }[]> {
  const rses = await storages.ofVo(rule.vo_id)
  const named = new Set(candidatesOf(rule.expression, rses).candidates.map(({ id }) => id))
  const known = new Map(
    rses.map(({ id, name, availabilityRead: readable, availabilityWrite: writable }) => [
      id,
      { name, readable, writable, named: named.has(id) },
    ]),
  )
  const unlocked = await problemsOf(read, rule.id, PROBLEMS_SHOWN)
  const stuck = await stuckLocksOf(read, rule.id, PROBLEMS_SHOWN - unlocked.length)
  const problems = [...unlocked, ...stuck.map(lock => problemOf(lock, known.get(lock.rse_id)))]
  return problems.map(({ rse_id, ...problem }) => ({ ...problem, rse: known.get(rse_id)?.name ?? '' }))
}

export function viewRule(rule: ShownRule) {
  return {
    id: rule.id,
    did: rule.did,
    account: rule.account,
    copies: rule.copies,
    expression: rule.expression,
    grouping: rule.grouping,
    activity: rule.activity,
    priority: rule.priority,
    state: rule.state,
    locks: { ok: rule.locks_ok, replicating: rule.locks_replicating, stuck: rule.locks_stuck },
    expanded: rule.stage === 'EXPANDED',
    createdAt: rule.created_at,
    updatedAt: rule.updated_at,
    archive: Boolean(rule.archive),
    purgeReplicas: Boolean(rule.purge_replicas),
    locked: Boolean(rule.locked),
    ...(rule.replaces === null ? {} : { replaces: rule.replaces }),
    ...(rule.replaced_by === null ? {} : { replacedBy: rule.replaced_by }),
    ...(rule.weight === null ? {} : { weight: rule.weight }),
    ...(rule.source_expression === null ? {} : { sourceExpression: rule.source_expression }),
    ...(rule.comment === null ? {} : { comment: rule.comment }),
    ...(rule.error === null ? {} : { error: rule.error }),
    ...(rule.expires_at === null ? {} : { expiresAt: rule.expires_at }),
  }
}
