import { z } from 'zod'
import { accountName, empty, page, pageQuery, scopeName, voName } from '../fields.ts'
import { route } from '../route.ts'

const tag = 'Scopes'
const scopeParams = z.object({ scope: scopeName })
const accountParams = z.object({ scope: scopeName, account: accountName })

const permission = z
  .enum(['write', 'rule', 'manage'])
  .describe('`write`: its DIDs and replicas; `rule`: rules on them; `manage`: both, and others’ rules and permissions')

const permissionsAnswer = z.object({ account: accountName, permissions: z.array(permission) })

export const scopeRoutes = {
  listPermissions: route({
    method: 'GET',
    path: '/v1/scopes/{scope}/permissions',
    role: 'member',
    tag,
    summary: 'List who may do what in a scope; one without permissions is open to all accounts of its VO',
    params: scopeParams,
    query: z.strictObject(pageQuery),
    answer: page(permissionsAnswer),
    status: 200,
  }),
  setPermissions: route({
    method: 'PUT',
    path: '/v1/scopes/{scope}/permissions/{account}',
    role: 'member',
    permission: 'manage',
    tag,
    summary: 'Say what an account may do in a scope',
    description:
      'With the first such word the scope is closed to all other accounts. An admin may say it before the scope has a DID: it is made then.',
    params: accountParams,
    body: z.strictObject({ permissions: z.array(permission).min(1).max(3), vo: voName.optional() }),
    answer: permissionsAnswer,
    status: 200,
  }),
  removePermissions: route({
    method: 'DELETE',
    path: '/v1/scopes/{scope}/permissions/{account}',
    role: 'member',
    permission: 'manage',
    tag,
    summary: 'Take from an account what it may do in a scope, unless it is the last: that would open the scope',
    params: accountParams,
    answer: empty,
    status: 200,
  }),
  openScope: route({
    method: 'DELETE',
    path: '/v1/scopes/{scope}/permissions',
    role: 'member',
    permission: 'manage',
    tag,
    summary: 'Take all permissions of a scope away: it is open to all accounts of its VO again',
    params: scopeParams,
    answer: empty,
    status: 200,
  }),
}
