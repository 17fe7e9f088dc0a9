import type { ScopePermission } from '../../shared/contract/route.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Executor } from '../database/sql.ts'
import { actorOf, type Caller } from './caller.ts'
import { scopesRefused } from './permission-store.ts'

/** A scope, and the field of the request that names it. */
export interface NamedScope {
  readonly scope: string
  readonly field: string
}

const LACKS: Readonly<Record<ScopePermission, string>> = {
  write: 'write',
  rule: 'make rules',
  manage: 'manage',
}

/** The first of these scopes of the caller's VO in which it may not do so: an admin may all. */
export async function refusedScope(
  executor: Executor,
  { admin, account }: Caller,
  permission: ScopePermission,
  scopes: readonly NamedScope[],
): Promise<NamedScope | undefined> {
  if (admin || scopes.length === 0) return undefined
  if (account === undefined) return scopes[0]
  const names = scopes.map(({ scope }) => scope)
  const refused = await scopesRefused(executor, account, permission, names)
  return scopes.find(({ scope }) => refused.has(scope))
}

/** Asked in the transaction that brings something in; for what takes away, or changes a rule or an import, just before it. Throws 403 SCOPE_FORBIDDEN, which names the scope and what is lacking. */
export async function demandPermission(
  executor: Executor,
  caller: Caller,
  permission: ScopePermission,
  scopes: readonly NamedScope[],
): Promise<void> {
  const refused = await refusedScope(executor, caller, permission, scopes)
  if (refused === undefined) return
  const { scope, field } = refused
  const message = `${actorOf(caller)} may not ${LACKS[permission]} in the scope ${scope}: ask an admin, or who manages it (\`waybill scope list ${scope}\`), for the permission \`${permission}\``
  throw new WaybillError('SCOPE_FORBIDDEN', message, { status: 403, field })
}
