import { WaybillError } from '../../shared/domain/errors.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import type { Kept } from '../kept.ts'
import { findPool, isOfPool } from './account-pool-store.ts'
import { once } from './idempotency.ts'
import { demandIssuer } from './identity.ts'
import { mappedTo } from './mapped.ts'
import { firstMatch, type Mapping, type Match } from './mapping.ts'
import { deleteMapping, insertMapping, listMappings, MOST_MAPPINGS } from './mapping-store.ts'
import { poolOf, type WorkerPool } from './pools.ts'
import { accountOf, findAccount } from './store.ts'
import type { Vos } from './vos.ts'

type MappingHandlers = Pick<Handlers, 'addMapping' | 'listMappings' | 'removeMapping' | 'tryMappings'>

interface Settings {
  readonly vos: Vos
  /** Whose tokens the API takes. */
  readonly apiIssuers: readonly string[]
  readonly pools: readonly WorkerPool[]
  readonly mappings: Kept<Mapping[]>
}

export function mappingHandlers(context: Context, { vos, apiIssuers, pools, mappings }: Settings): MappingHandlers {
  const { db, log } = context

  return {
    async addMapping(request) {
      const { body, caller } = request
      const { issuer, claim, pattern, account, pool, position } = body
      demandIssuer(issuer, apiIssuers)
      const vo = vos.named(body.vo)
      const target = account === undefined ? ('pool' as const) : ('account' as const)
      const mapping = { issuer, claim, pattern, voId: vo.id, target, name: account ?? pool ?? '' }
      const answer = await once(context, 'addMapping', request, async (executor, now) => {
        if (!mapping.name.includes('{')) await demandTarget(executor, mapping, vo.name)
        const id = await insertMapping(executor, mapping, position, now)
        if (id === undefined) {
          const message = `there are ${MOST_MAPPINGS} mappings already: remove some, or map by groups what is mapped one by one`
          throw new WaybillError('MAPPINGS_TOO_MANY', message, { status: 409 })
        }
        const items = (await listMappings(executor)).map(view)
        const made = items.find(item => item.id === id)
        if (made === undefined) throw new Error(`mapping ${id} was not inserted`)
        return made
      })
      mappings.forget()
      log.info({ mapping: answer, subject: caller.subject }, 'a mapping was added')
      return answer
    },
    async listMappings() {
      return { items: (await listMappings(db.read)).map(view) }
    },
    async removeMapping({ params: { id }, caller }) {
      if (!(await db.write(executor => deleteMapping(executor, id)))) {
        throw new WaybillError('MAPPING_UNKNOWN', `there is no mapping ${id}`, { status: 404, field: 'id' })
      }
      mappings.forget()
      log.info({ mapping: id, subject: caller.subject }, 'a mapping was removed')
      return {}
    },
    async tryMappings({ body }) {
      const { issuer, subject = '', clientId, groups, entitlements, scopes } = body
      demandIssuer(issuer, apiIssuers)
      const identity = { issuer, subject }
      const own = await accountOf(db.read, identity)
      if (own !== undefined) {
        const sentence = `${subject} is mapped to ${own.name} of ${own.vo} itself: mappings are not asked`
        return { account: own.name, vo: own.vo, sentence }
      }
      if (poolOf(pools, { ...identity, clientId }) !== undefined)
        return { sentence: `${subject} is a configured worker: mappings are not asked, there is no account` }
      const match = firstMatch(await listMappings(db.read), { ...identity, clientId, groups, entitlements, scopes })
      if (match === undefined) return { sentence: 'no mapping matches: there is no account' }
      const to = mappedTo(match)
      const account = to && (await accountOf(db.read, identity, to))
      const isPool = to?.target === 'pool' && (await findPool(db.read, to.voId, to.name)) !== undefined
      const { id, vo } = match.mapping
      const sentence = `mapping ${id} matches, ${whereTo(match, account !== undefined, isPool)}`
      return { mapping: id, ...(account === undefined ? {} : { account: account.name, vo }), sentence }
    },
  }
}

async function demandTarget(
  executor: Executor,
  { target, voId, name }: Pick<Mapping, 'target' | 'voId' | 'name'>,
  vo: string,
): Promise<void> {
  if (target === 'pool') {
    if ((await findPool(executor, voId, name)) !== undefined) return
    const message = `there is no pool of accounts ${name} in ${vo}: add it first`
    throw new WaybillError('ACCOUNT_POOL_UNKNOWN', message, { status: 404, field: 'pool' })
  }
  const id = await findAccount(executor, voId, name)
  if (id === undefined) {
    const message = `there is no account ${name} in ${vo}: add it first`
    throw new WaybillError('ACCOUNT_UNKNOWN', message, { status: 404, field: 'account' })
  }
  if (await isOfPool(executor, id)) {
    const message = `${name} is an account of a pool, and somebody's own: map the pool, or the identity itself`
    throw new WaybillError('ACCOUNT_OF_POOL', message, { status: 409, field: 'account' })
  }
}

/** What comes of a match, for people. */
function whereTo({ mapping, name }: Match, hasAccount: boolean, isPool: boolean): string {
  const what = mapping.target === 'pool' ? 'account pool' : 'account'
  if (name === undefined) return `but what it captures makes no name of an ${what}: there is no account`
  if (hasAccount) return mapping.target === 'pool' ? `and they have an account of the pool ${name}` : `and says ${name}`
  if (isPool) return `and an account of the pool ${name} is handed out with their first request, if it has room`
  return `but there is no ${what} ${name} in ${mapping.vo} that it may lead to: there is no account`
}

function view({ id, issuer, claim, pattern, vo, target, name }: Mapping, index: number) {
  const to = target === 'account' ? { account: name } : { pool: name }
  return { id, position: index + 1, issuer, claim, pattern, vo, ...to }
}
