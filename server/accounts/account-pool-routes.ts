import { WaybillError } from '../../shared/domain/errors.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import { findPool, listPoolAccounts, listPools, type PoolRow, putPool, release } from './account-pool-store.ts'
import type { Vos } from './vos.ts'

type AccountPoolHandlers = Pick<Handlers, 'setAccountPool' | 'listAccountPools' | 'listPoolAccounts' | 'releaseAccount'>

export function accountPoolHandlers({ db, clock, log }: Context, vos: Vos): AccountPoolHandlers {
  async function requirePool(executor: Executor, vo: { id: number; name: string }, name: string): Promise<number> {
    const id = await findPool(executor, vo.id, name)
    if (id !== undefined) return id
    const message = `there is no pool of accounts ${name} in ${vo.name}: \`waybill account pool list\` shows all`
    throw new WaybillError('ACCOUNT_POOL_UNKNOWN', message, { status: 404, field: 'pool' })
  }

  return {
    async setAccountPool({ params, body: { size, vo: voName }, caller }) {
      const vo = vos.named(voName)
      const pool = { voId: vo.id, name: params.pool, size }
      await db.write(executor => putPool(executor, pool, clock.now()))
      log.info({ pool: pool.name, size, subject: caller.subject }, 'a pool of accounts was set')
      const [row] = await listPools(db.read, await requirePool(db.read, vo, pool.name))
      if (row === undefined) throw new Error(`pool ${pool.name} was not inserted`)
      return viewPool(row)
    },
    async listAccountPools() {
      return { items: (await listPools(db.read)).map(viewPool) }
    },
    async listPoolAccounts({ params, query: { vo, cursor, limit } }) {
      const poolId = await requirePool(db.read, vos.named(vo), params.pool)
      const rows = await listPoolAccounts(db.read, { poolId, after: decodeCursor(cursor), limit: limit + 1 })
      return pageOf(
        rows,
        limit,
        row => row.number,
        ({ account, issuer, subject, held, since }) => ({ account, issuer, subject, held: Boolean(held), since }),
      )
    },
    async releaseAccount({ params: { account }, body, caller }) {
      const vo = vos.named(body.vo)
      if (!(await db.write(executor => release(executor, vo.id, account, clock.now())))) {
        const message = `there is no account ${account} of a pool in ${vo.name}`
        throw new WaybillError('ACCOUNT_UNKNOWN', message, { status: 404, field: 'account' })
      }
      log.info({ account, subject: caller.subject }, 'an account of a pool was released')
      return { account, vo: vo.name }
    },
  }
}

function viewPool({ name, vo, size, held, released }: PoolRow) {
  return { pool: name, vo, size, held, released }
}
