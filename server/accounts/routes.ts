import { WaybillError } from '../../shared/domain/errors.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeTextCursor, pageOf } from '../database/cursor.ts'
import { once } from './idempotency.ts'
import { demandIssuer } from './identity.ts'
import { sees, sightOf } from './sight.ts'
import { accountOf, findAccount, insertAccount, listAccounts, mapIdentity, unmapIdentity } from './store.ts'
import type { Vos } from './vos.ts'

type AccountHandlers = Pick<
  Handlers,
  'whoami' | 'listVos' | 'addAccount' | 'listAccounts' | 'addIdentity' | 'removeIdentity'
>

/** `apiIssuers`: whose tokens the API takes. */
export function accountHandlers(context: Context, vos: Vos, apiIssuers: readonly string[]): AccountHandlers {
  return {
    async whoami({ caller }) {
      const { issuer, subject, admin, account } = caller
      const known = account === undefined ? {} : { account: account.name, vo: account.vo }
      return { issuer, subject, admin, worker: caller.worker !== undefined, ...known }
    },
    async listVos({ caller }) {
      const sight = sightOf(caller)
      const seen = vos.all().filter(vo => sees(sight, vo.id))
      return { items: seen.map(({ name, issuers }) => ({ name, issuers: [...issuers] })) }
    },
    async addAccount(request) {
      const vo = vos.named(request.body.vo)
      const { name } = request.body
      const added = await once(context, 'addAccount', request, async (executor, now) => {
        if ((await insertAccount(executor, vo.id, name, now)) === undefined) {
          throw new WaybillError('ACCOUNT_EXISTS', `${vo.name} has an account ${name} already`, {
            status: 409,
            field: 'name',
          })
        }
        return { name, vo: vo.name }
      })
      context.log.info({ account: name, vo: vo.name, subject: request.caller.subject }, 'an account was added')
      return added
    },
    async listAccounts({ query: { cursor, limit }, caller }) {
      const [vo = '', name = ''] = decodeTextCursor(cursor).split(' ')
      const rows = await listAccounts(context.db.read, sightOf(caller), { after: { vo, name }, limit: limit + 1 })
      return pageOf(
        rows,
        limit,
        row => `${row.vo} ${row.name}`,
        row => row,
      )
    },
    async addIdentity({ body: { issuer, subject, account, vo, move }, caller }) {
      demandIssuer(issuer, apiIssuers)
      const voId = vos.named(vo).id
      await context.db.write(async executor => {
        const id = await findAccount(executor, voId, account)
        if (id === undefined) {
          throw new WaybillError('ACCOUNT_UNKNOWN', `there is no account ${account}: add it first`, {
            status: 404,
            field: 'account',
          })
        }
        if (await mapIdentity(executor, { issuer, subject }, id, move)) return
        const owner = await accountOf(executor, { issuer, subject })
        const message = `${subject} of ${issuer} is ${owner?.name} of ${owner?.vo}: say that it is to be moved`
        throw new WaybillError('IDENTITY_TAKEN', message, { status: 409, field: 'subject' })
      })
      context.log.info({ issuer, identity: subject, account, move, subject: caller.subject }, 'an identity was mapped')
      return {}
    },
    async removeIdentity({ query: identity, caller }) {
      if (await context.db.write(executor => unmapIdentity(executor, identity))) {
        const { issuer, subject } = identity
        context.log.info({ issuer, identity: subject, subject: caller.subject }, 'an identity is mapped no more')
        return {}
      }
      const message = `no account is mapped to ${identity.subject} of ${identity.issuer}`
      throw new WaybillError('IDENTITY_UNKNOWN', message, { status: 404, field: 'subject' })
    },
  }
}
