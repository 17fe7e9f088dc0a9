import type { ScopePermission } from '../../shared/contract/route.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, queryOne } from '../database/sql.ts'
import { reachBindings, withinReach } from './reach.ts'
import type { Sight } from './sight.ts'

export interface ScopeRow {
  readonly id: number
  readonly vo_id: number
  readonly vo: string
}

export async function findScope(executor: Executor, sight: Sight, name: string): Promise<ScopeRow | undefined> {
  return queryOne(
    executor,
    `SELECT scopes.id, scopes.vo_id, vos.name AS vo FROM scopes JOIN vos ON vos.id = scopes.vo_id
      WHERE scopes.name = :name${withinReach(executor, sight, { vo: 'scopes.vo_id' })}`,
    { name, ...reachBindings(sight) },
  )
}

const COLUMN: Readonly<Record<ScopePermission, string>> = {
  write: 'may_write',
  rule: 'may_rule',
  manage: 'may_manage',
}

/** On `scopes` and `:account`: the account may not do so there. */
export function lacking(permission: ScopePermission): string {
  const isClosed = 'EXISTS (SELECT 1 FROM scope_permissions WHERE scope_id = scopes.id)'
  return `${permission === 'manage' ? 'true' : isClosed}
        AND NOT EXISTS (SELECT 1 FROM scope_permissions
              WHERE scope_id = scopes.id AND account_id = :account AND (may_manage OR ${COLUMN[permission]}))`
}

/**
 * Those of these scopes in which the account may not do so. A scope without permissions is open, but for `manage`. What is another
 * VO's, or not there, is not among them: what becomes of that is decided elsewhere.
 */
export async function scopesRefused(
  executor: Executor,
  account: { readonly id: number; readonly voId: number },
  permission: ScopePermission,
  names: readonly string[],
): Promise<Set<string>> {
  const rows = await query<{ name: string }>(
    executor,
    `SELECT name FROM scopes WHERE vo_id = :voId AND name ${oneOf(executor, 'names', 'text')} AND ${lacking(permission)}`,
    { voId: account.voId, account: account.id, names: encodeRows([...new Set(names)]) },
  )
  return new Set(rows.map(({ name }) => name))
}

export interface PermissionRow {
  readonly account: string
  readonly may_write: number | boolean
  readonly may_rule: number | boolean
  readonly may_manage: number | boolean
}

export async function listPermissionsOf(
  executor: Executor,
  page: { readonly scopeId: number; readonly after: string; readonly limit: number },
): Promise<PermissionRow[]> {
  return query(
    executor,
    `SELECT accounts.name AS account, may_write, may_rule, may_manage
       FROM scope_permissions JOIN accounts ON accounts.id = scope_permissions.account_id
      WHERE scope_id = :scopeId AND accounts.name > :after ORDER BY accounts.name LIMIT :limit`,
    { ...page },
  )
}

export async function putPermissions(
  executor: Executor,
  permissions: Omit<PermissionRow, 'account'> & { readonly scopeId: number; readonly accountId: number },
): Promise<void> {
  await query(
    executor,
    `INSERT INTO scope_permissions (scope_id, account_id, may_write, may_rule, may_manage)
     VALUES (:scopeId, :accountId, :may_write, :may_rule, :may_manage) ON CONFLICT (scope_id, account_id) DO UPDATE
       SET may_write = excluded.may_write, may_rule = excluded.may_rule, may_manage = excluded.may_manage`,
    { ...permissions },
  )
}

/** `last`: nothing is taken, since the scope would be open to all. Two who take the last two wait for each other. */
export async function deletePermissions(
  executor: Executor,
  scopeId: number,
  accountId: number,
): Promise<'taken' | 'none' | 'last'> {
  await lockRows(executor, 'scopes', [scopeId])
  const own = 'scope_id = :scopeId AND account_id = :accountId'
  const taken = await query(
    executor,
    `DELETE FROM scope_permissions WHERE ${own}
        AND EXISTS (SELECT 1 FROM scope_permissions AS others WHERE others.scope_id = :scopeId AND others.account_id <> :accountId)
     RETURNING account_id`,
    { scopeId, accountId },
  )
  if (taken.length > 0) return 'taken'
  const left = await queryOne(executor, `SELECT 1 AS n FROM scope_permissions WHERE ${own}`, { scopeId, accountId })
  return left === undefined ? 'none' : 'last'
}

export async function deleteAllPermissions(executor: Executor, scopeId: number): Promise<void> {
  await lockRows(executor, 'scopes', [scopeId])
  await query(executor, 'DELETE FROM scope_permissions WHERE scope_id = :scopeId', { scopeId })
}
