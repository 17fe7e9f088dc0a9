import { handOut, putPool } from '../../server/accounts/account-pool-store.ts'
import { insertMapping } from '../../server/accounts/mapping-store.ts'
import { deletePermissions, putPermissions } from '../../server/accounts/permission-store.ts'
import { insertAccount } from '../../server/accounts/store.ts'
import { ensureScopes } from '../../server/catalogue/did-store.ts'
import type { Encounter } from './encounters.ts'
import type { World } from './world.ts'

const ISSUER = 'https://issuer.example.org'
const pool = ({ voId }: World, size: number) => ({ voId, name: 'exp', size })
const come = (world: World, subject: string): Promise<unknown> =>
  world.db.write(e => handOut(e, pool(world, 0), { issuer: ISSUER, subject }, 0))
const poolOf =
  (size: number) =>
  (world: World): Promise<unknown> =>
    world.db.write(e => putPool(e, pool(world, size), 0))

/** How many of these rows there must be. */
const exactly =
  (expected: number, rows: string) =>
  async (world: World): Promise<string | undefined> => {
    const found = await world.number(`SELECT count(*) AS n FROM ${rows}`)
    return found === expected ? undefined : `${found} of ${rows}, not ${expected}`
  }

/** Accounts 1 and 2 may write in scope 1, and nobody else. */
async function closedScope(world: World): Promise<void> {
  await world.db.write(async e => {
    await insertAccount(e, world.voId, 'another', 0)
    await ensureScopes(e, world.voId, ['closed'])
    for (const accountId of [1, 2])
      await putPermissions(e, { scopeId: 1, accountId, may_write: true, may_rule: false, may_manage: false })
  })
}

const addFirst = (world: World, pattern: string): Promise<unknown> =>
  world.db.write(e => {
    const to = { voId: world.voId, target: 'account' as const, name: 'someone' }
    return insertMapping(e, { issuer: ISSUER, claim: 'group', pattern, ...to }, 1, 0)
  })

export const ACCOUNT_ENCOUNTERS: Readonly<Record<string, Encounter>> = {
  'a person comes twice to a pool': {
    begin: poolOf(5),
    stopped: world => come(world, 'ann'),
    other: world => come(world, 'ann'),
    broken: exactly(1, 'pool_accounts'),
  },
  'two come to the last place of a pool': {
    begin: poolOf(1),
    stopped: world => come(world, 'ann'),
    other: world => come(world, 'ben'),
    broken: exactly(1, 'pool_accounts'),
  },
  'somebody comes to a pool while an admin adds an account of the next name': {
    begin: poolOf(5),
    stopped: world => come(world, 'ann'),
    other: world => world.db.write(e => insertAccount(e, world.voId, 'exp001', 0)),
    broken: exactly(1, 'pool_accounts'),
  },
  'the permissions of the last two accounts in a scope are taken': {
    begin: closedScope,
    stopped: world => world.db.write(e => deletePermissions(e, 1, 1)),
    other: world => world.db.write(e => deletePermissions(e, 1, 2)),
    broken: exactly(1, 'scope_permissions'),
  },
  'two mappings are added before all others': {
    begin: world => addFirst(world, 'last'),
    stopped: world => addFirst(world, 'a'),
    other: world => addFirst(world, 'b'),
    broken: exactly(3, "mappings WHERE (pattern = 'last') = (position = 3)"),
  },
}
