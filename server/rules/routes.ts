import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { once } from '../accounts/idempotency.ts'
import { type Sight, sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { requireDid } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import type { StorageDirectory } from '../storages/directory.ts'
import { listRules, problemsOf, type ShownRule, showRule, stuckLocksOf } from './read-store.ts'
import { repairNow, startRemoval } from './step-store.ts'
import { submitRules } from './submit.ts'
import { problemOf } from './why.ts'

type RuleHandlers = Pick<Handlers, 'addRules' | 'listRules' | 'getRule' | 'removeRule' | 'repairRule'>

/** A caller with an account. */
type Owner = Parameters<RuleHandlers['removeRule']>[0]['caller']

const PROBLEMS_SHOWN = 100

export function ruleHandlers(context: Context): RuleHandlers {
  const { db, storages } = context

  async function requireOwnRule(caller: Owner, id: number): Promise<ShownRule> {
    const rule = await requireRule(db.read, sightOf(caller), id)
    if (rule.account_id === caller.account.id || caller.admin) return rule
    throw new WaybillError('FORBIDDEN', `rule ${rule.id} belongs to ${rule.account}`, { status: 403 })
  }

  return {
    async addRules(request) {
      const { account } = request.caller
      const sight = sightOf(request.caller)
      const rses = await storages.ofVo(account.voId)
      const answer = await once(context, 'addRules', request, async (executor, now) => {
        const ids = await submitRules(executor, rses, account, request.body, now)
        return { items: await Promise.all(ids.map(async id => viewRule(await requireRule(executor, sight, id)))) }
      })
      context.wake.notify('rules')
      return answer
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
      const problems = await shownProblems(db.read, storages, rule.id)
      return { ...viewRule(rule), ...(problems.length === 0 ? {} : { problems }) }
    },
    async repairRule({ params, caller }) {
      const rule = await requireOwnRule(caller, params.id)
      if (!(await db.write(executor => repairNow(executor, rule.id, context.clock.now())))) {
        const message = `rule ${rule.id} is ${rule.state}: only what is STUCK is repaired`
        throw new WaybillError('RULE_NOT_STUCK', message, { status: 409 })
      }
      context.wake.notify('repairs')
      return viewRule(rule)
    },
    async removeRule({ params, caller }) {
      const rule = await requireOwnRule(caller, params.id)
      await db.write(executor => startRemoval(executor, rule.id, context.clock.now()))
      context.wake.notify('rules')
      return {}
    },
  }
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
  ruleId: number,
): Promise<{ did: string; rse: string; code: string; message: string }[]> {
  const names = new Map((await storages.all()).map(rse => [rse.id, rse.name]))
  const unlocked = await problemsOf(read, ruleId, PROBLEMS_SHOWN)
  const stuck = await stuckLocksOf(read, ruleId, PROBLEMS_SHOWN - unlocked.length)
  return [...unlocked, ...stuck.map(problemOf)].map(({ rse_id, ...problem }) => ({
    ...problem,
    rse: names.get(rse_id) ?? '',
  }))
}

function viewRule(rule: ShownRule) {
  return {
    id: rule.id,
    did: rule.did,
    account: rule.account,
    copies: rule.copies,
    expression: rule.expression,
    activity: rule.activity,
    priority: rule.priority,
    state: rule.state,
    locks: { ok: rule.locks_ok, replicating: rule.locks_replicating, stuck: rule.locks_stuck },
    expanded: rule.stage === 'EXPANDED',
    createdAt: rule.created_at,
    updatedAt: rule.updated_at,
    archive: Boolean(rule.archive),
    purgeReplicas: Boolean(rule.purge_replicas),
    ...(rule.comment === null ? {} : { comment: rule.comment }),
    ...(rule.error === null ? {} : { error: rule.error }),
    ...(rule.expires_at === null ? {} : { expiresAt: rule.expires_at }),
  }
}
