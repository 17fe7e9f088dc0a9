import { WaybillError } from '../../shared/domain/errors.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { actorOf } from '../accounts/caller.ts'
import { once } from '../accounts/idempotency.ts'
import { demandPermission } from '../accounts/permissions.ts'
import { sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import { requireDid } from '../catalogue/routes.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import { listEvents, type ShownEvent } from './event-store.ts'
import { judgeRule, replaceRule, updateRule } from './life.ts'
import { requireOwnRule, requireRule, viewRule } from './routes.ts'

type LifeHandlers = Pick<Handlers, 'updateRule' | 'judgeRule' | 'replaceRule' | 'listRuleEvents' | 'listDidEvents'>

export function ruleLifeHandlers(context: Context): LifeHandlers {
  const { db, storages, clock, wake } = context
  return {
    async updateRule({ params, body: { lifetime, ...change }, caller }) {
      const { id } = await requireOwnRule(db.read, caller, params.id)
      const now = clock.now()
      const expiresAt = lifetime === undefined ? {} : { expiresAt: lifetime === null ? null : now + lifetime * 1000 }
      const rule = await db.write(async executor => {
        await updateRule(executor, id, { ...change, ...expiresAt }, actorOf(caller), now)
        return requireRule(executor, sightOf(caller), id)
      })
      wake.notify('rules')
      wake.notify('repairs')
      return viewRule(rule)
    },
    async judgeRule({ params, body, caller }) {
      const rule = await requireRule(db.read, sightOf(caller), params.id)
      await db.write(executor => judgeRule(executor, rule.id, body, actorOf(caller), clock.now()))
      wake.notify('rules')
      return { approved: body.approve }
    },
    async replaceRule(request) {
      const { params, body, caller } = request
      const rses = await storages.seenBy(sightOf(caller))
      const rule = await once(context, `replaceRule ${params.id}`, request, async (executor, now) => {
        const old = await requireOwnRule(executor, caller, params.id)
        await demandPermission(executor, caller, 'rule', [{ scope: parseDid(old.did).scope, field: 'id' }])
        const own = rses.filter(rse => rse.voId === old.vo_id)
        const vo = own[0]?.vo ?? ''
        const id = await replaceRule(executor, own, { ...old, vo }, body, actorOf(caller), now)
        return viewRule(await requireRule(executor, sightOf(caller), id))
      })
      wake.notify('rules')
      return rule
    },
    async listRuleEvents({ params, query: { cursor, limit }, caller }) {
      const after = decodeCursor(cursor)
      const rows = await listEvents(db.read, sightOf(caller), { ruleId: params.id, after, limit: limit + 1 })
      // Every rule was created, or replaces one.
      if (rows.length === 0 && after === 0) {
        throw new WaybillError('RULE_UNKNOWN', `there is no rule ${params.id}, and nothing is known of one`, {
          status: 404,
          field: 'id',
        })
      }
      return pageOf(rows, limit, row => row.id, viewEvent)
    },
    async listDidEvents({ query: { did, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const { id: didId } = await requireDid(db.read, sight, parseDid(did))
      const rows = await listEvents(db.read, sight, { didId, after: decodeCursor(cursor), limit: limit + 1 })
      return pageOf(rows, limit, row => row.id, viewEvent)
    },
  }
}

function viewEvent({ id, rule_id, did, at, event, actor, details }: ShownEvent) {
  const known = JSON.parse(details) as Record<string, unknown>
  return { id, rule: rule_id, did, at, event, details: known, ...(actor === null ? {} : { actor }) }
}
