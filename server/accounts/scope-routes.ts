import { WaybillError } from '../../shared/domain/errors.ts'
import type { Handlers } from '../app.ts'
import { ensureScopes } from '../catalogue/did-store.ts'
import type { Context } from '../context.ts'
import { decodeTextCursor, pageOf } from '../database/cursor.ts'
import type { Executor } from '../database/sql.ts'
import type { Caller } from './caller.ts'
import {
  deleteAllPermissions,
  deletePermissions,
  findScope,
  listPermissionsOf,
  type PermissionRow,
  putPermissions,
  type ScopeRow,
} from './permission-store.ts'
import { demandPermission } from './permissions.ts'
import { type Sight, sightOf } from './sight.ts'
import { findAccount } from './store.ts'
import type { Vos } from './vos.ts'

type ScopeHandlers = Pick<Handlers, 'listPermissions' | 'setPermissions' | 'removePermissions' | 'openScope'>

/** Who may do what in a scope. Whatever is changed is told to the log. */
export function scopeHandlers({ db, log }: Context, vos: Vos): ScopeHandlers {
  async function requireManaged(executor: Executor, caller: Caller, scope: string): Promise<ScopeRow> {
    const row = await requireScope(executor, sightOf(caller), scope)
    await demandPermission(executor, caller, 'manage', [{ scope, field: 'scope' }])
    return row
  }

  /** An admin may close a scope before anybody has made it. */
  async function ensureManaged(
    executor: Executor,
    caller: Caller,
    scope: string,
    vo: string | undefined,
  ): Promise<ScopeRow> {
    const known = await findScope(executor, sightOf(caller), scope)
    if (caller.admin && known === undefined) await ensureScopes(executor, vos.named(vo).id, [scope])
    return requireManaged(executor, caller, scope)
  }

  return {
    async listPermissions({ params, query: { cursor, limit }, caller }) {
      const scope = await requireScope(db.read, sightOf(caller), params.scope)
      const page = { scopeId: scope.id, after: decodeTextCursor(cursor), limit: limit + 1 }
      return pageOf(await listPermissionsOf(db.read, page), limit, row => row.account, view)
    },
    async setPermissions({ params, body, caller }) {
      const [write, rule, manage] = (['write', 'rule', 'manage'] as const).map(one => body.permissions.includes(one))
      const granted = { may_write: write === true, may_rule: rule === true, may_manage: manage === true }
      await db.write(async executor => {
        const scope = await ensureManaged(executor, caller, params.scope, body.vo)
        const accountId = await requireAccount(executor, scope, params.account)
        await putPermissions(executor, { scopeId: scope.id, accountId, ...granted })
      })
      const answer = view({ account: params.account, ...granted })
      log.info({ scope: params.scope, ...answer, subject: caller.subject }, 'permissions in a scope were set')
      return answer
    },
    async removePermissions({ params, caller }) {
      const outcome = await db.write(async executor => {
        const scope = await requireManaged(executor, caller, params.scope)
        return deletePermissions(executor, scope.id, await requireAccount(executor, scope, params.account))
      })
      if (outcome === 'last') {
        const message = `${params.account} is the only account with permissions in ${params.scope}: without them it would be open to all. Allow another first, or \`waybill scope open ${params.scope}\``
        throw new WaybillError('SCOPE_WOULD_OPEN', message, { status: 409, field: 'account' })
      }
      if (outcome === 'taken') {
        const { scope, account } = params
        log.info({ scope, account, subject: caller.subject }, 'permissions in a scope were taken away')
      }
      return {}
    },
    async openScope({ params, caller }) {
      await db.write(async executor => {
        const scope = await requireManaged(executor, caller, params.scope)
        await deleteAllPermissions(executor, scope.id)
      })
      log.info({ scope: params.scope, subject: caller.subject }, 'a scope was opened to all accounts of its VO')
      return {}
    },
  }
}

async function requireScope(executor: Executor, sight: Sight, name: string): Promise<ScopeRow> {
  const scope = await findScope(executor, sight, name)
  if (scope !== undefined) return scope
  throw new WaybillError('SCOPE_UNKNOWN', `there is no scope ${name}`, { status: 404, field: 'scope' })
}

async function requireAccount(executor: Executor, scope: ScopeRow, name: string): Promise<number> {
  const id = await findAccount(executor, scope.vo_id, name)
  if (id !== undefined) return id
  const message = `there is no account ${name} in ${scope.vo}: add it first`
  throw new WaybillError('ACCOUNT_UNKNOWN', message, { status: 404, field: 'account' })
}

function view({ account, may_write, may_rule, may_manage }: PermissionRow) {
  const permissions = [
    ...(may_write ? ['write' as const] : []),
    ...(may_rule ? ['rule' as const] : []),
    ...(may_manage ? ['manage' as const] : []),
  ]
  return { account, permissions }
}
