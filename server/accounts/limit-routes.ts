import { WaybillError } from '../../shared/domain/errors.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { repairQuota } from '../rules/step-store.ts'
import { resolveExpression } from '../storages/expression.ts'
import type { Caller } from './caller.ts'
import { deleteLimit, listLimits, putLimit } from './limit-store.ts'
import { Quota } from './quota.ts'
import { sees, sightOf } from './sight.ts'
import { findAccount } from './store.ts'
import { limitsFor, usageOf } from './usage-store.ts'
import type { Vo, Vos } from './vos.ts'

type LimitHandlers = Pick<Handlers, 'setLimit' | 'removeLimit' | 'listLimits' | 'getUsage'>

/** What accounts may lock, and what they do. */
export function limitHandlers(context: Context, vos: Vos): LimitHandlers {
  const { db, storages, wake, clock, log } = context

  /** The rules that wait for it look again at once. */
  async function change(
    executor: Executor,
    voId: number,
    accountId: number | undefined,
    work: () => Promise<void>,
  ): Promise<void> {
    await work()
    await repairQuota(executor, { voId, accountId }, clock.now())
  }

  /** Why expressions name nothing, each asked once. */
  async function problems(voIds: readonly number[]): Promise<(voId: number, expression: string) => string | undefined> {
    const rses = new Map(await Promise.all(voIds.map(async id => [id, await storages.ofVo(id)] as const)))
    const known = new Map<string, string | undefined>()
    return (voId, expression) => {
      const key = `${voId} ${expression}`
      if (!known.has(key)) known.set(key, problemOf(expression, rses.get(voId) ?? []))
      return known.get(key)
    }
  }

  return {
    async setLimit({ body: { account, vo, expression, bytes }, caller }) {
      const voId = vos.named(vo).id
      // Throws 400 with the place in the expression.
      resolveExpression(expression, await storages.ofVo(voId))
      await db.write(async executor => {
        const accountId = await accountNamed(executor, voId, account)
        const limit = { voId, accountId, expression, bytes }
        await change(executor, voId, accountId, () => putLimit(executor, limit, clock.now()))
      })
      wake.notify('repairs')
      log.info({ account, vo, expression, bytes, subject: caller.subject }, 'a limit was set')
      return {}
    },
    async removeLimit({ query: { account, vo, expression }, caller }) {
      const voId = vos.named(vo).id
      await db.write(async executor => {
        const accountId = await accountNamed(executor, voId, account)
        await change(executor, voId, accountId, async () => {
          if (await deleteLimit(executor, { voId, accountId, expression })) return
          const message = `${account ?? `the VO`} has no limit at ${expression}: \`waybill account limits\` shows all`
          throw new WaybillError('LIMIT_UNKNOWN', message, { status: 404, field: 'expression' })
        })
      })
      wake.notify('repairs')
      log.info({ account, vo, expression, subject: caller.subject }, 'a limit was taken back')
      return {}
    },
    async listLimits({ query: { account, vo, cursor, limit }, caller }) {
      const sight = sightOf(caller)
      const all = account === undefined && vo === undefined
      const shown = all ? vos.all().filter(({ id }) => sees(sight, id)) : [voSeen(vos, caller, vo)]
      const names = new Map(shown.map(({ id, name }) => [id, name]))
      const voIds = [...names.keys()]
      const accountId = await accountNamed(db.read, voIds[0] ?? 0, account)
      const page = { voIds, accountId, after: decodeCursor(cursor), limit: limit + 1 }
      const rows = await listLimits(db.read, page)
      const problemAt = await problems(voIds)
      return pageOf(
        rows,
        limit,
        row => row.id,
        row => {
          const error = problemAt(row.vo_id, row.expression)
          return {
            vo: names.get(row.vo_id) ?? '',
            expression: row.expression,
            bytes: row.bytes,
            ...(row.account === null ? {} : { account: row.account }),
            ...(error === undefined ? {} : { error }),
          }
        },
      )
    },
    async getUsage({ params, query: { vo }, caller }) {
      const { id } = voSeen(vos, caller, vo)
      const accountId = (await accountNamed(db.read, id, params.account)) ?? 0
      const rses = await storages.ofVo(id)
      const usage = await usageOf(db.read, accountId)
      const quota = new Quota(await limitsFor(db.read, accountId), usage, rses)
      const items = rses.map(rse => {
        const { files = 0, bytes = 0, reserved = 0 } = usage.find(row => row.rse_id === rse.id) ?? {}
        const left = quota.left(rse.id)
        return { rse: rse.name, files, bytes, reserved, ...(left === Infinity ? {} : { left: Math.max(0, left) }) }
      })
      return { items: items.filter(item => item.files > 0 || item.reserved > 0 || item.left !== undefined) }
    },
  }
}

/** The VO that is named, or the caller's. One that it does not see is answered as one that is not there. */
function voSeen(vos: Vos, caller: Caller, name: string | undefined): Vo {
  const vo = vos.named(name ?? caller.account?.vo)
  if (sees(sightOf(caller), vo.id)) return vo
  throw new WaybillError('VO_UNKNOWN', `there is no VO ${vo.name}`, { status: 400, field: 'vo' })
}

/** Throws 404 ACCOUNT_UNKNOWN. */
async function accountNamed(read: Executor, voId: number, name: string | undefined): Promise<number | undefined> {
  if (name === undefined) return undefined
  const id = await findAccount(read, voId, name)
  if (id !== undefined) return id
  throw new WaybillError('ACCOUNT_UNKNOWN', `there is no account ${name}: \`waybill account list\` shows all`, {
    status: 404,
    field: 'account',
  })
}

function problemOf(expression: string, rses: Parameters<typeof resolveExpression>[1]): string | undefined {
  try {
    resolveExpression(expression, rses)
    return undefined
  } catch (error) {
    if (error instanceof WaybillError) return error.message
    throw error
  }
}
