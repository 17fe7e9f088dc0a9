import { type Executor, query, queryOne } from '../database/sql.ts'
import type { CallerAccount } from './caller.ts'
import { reachBindings, withinReach } from './reach.ts'
import type { Sight } from './sight.ts'

export async function ensureVo(executor: Executor, name: string): Promise<number> {
  await query(executor, 'INSERT INTO vos (name) VALUES (:name) ON CONFLICT (name) DO NOTHING', { name })
  const row = await queryOne<{ id: number }>(executor, 'SELECT id FROM vos WHERE name = :name', { name })
  if (row === undefined) throw new Error(`VO ${name} was not inserted`)
  return row.id
}

/** Its key; undefined when the name is taken in this VO. */
export async function insertAccount(
  executor: Executor,
  voId: number,
  name: string,
  now: number,
): Promise<number | undefined> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO accounts (vo_id, name, created_at) VALUES (:voId, :name, :now) ON CONFLICT (vo_id, name) DO NOTHING RETURNING id`,
    { voId, name, now },
  )
  return row?.id
}

export async function findAccount(executor: Executor, voId: number, name: string): Promise<number | undefined> {
  const row = await queryOne<{ id: number }>(executor, 'SELECT id FROM accounts WHERE vo_id = :voId AND name = :name', {
    voId,
    name,
  })
  return row?.id
}

export async function listAccounts(
  executor: Executor,
  sight: Sight,
  page: { readonly after: { readonly vo: string; readonly name: string }; readonly limit: number },
): Promise<{ name: string; vo: string }[]> {
  return query(
    executor,
    `SELECT accounts.name, vos.name AS vo FROM accounts JOIN vos ON vos.id = accounts.vo_id
      WHERE (vos.name, accounts.name) > (:vo, :name)${withinReach(executor, sight, { vo: 'accounts.vo_id' })}
      ORDER BY vos.name, accounts.name LIMIT :limit`,
    { ...page.after, limit: page.limit, ...reachBindings(sight) },
  )
}

/** An identity has one account. False when it is another's, and was not to be moved. */
export async function mapIdentity(
  executor: Executor,
  identity: { issuer: string; subject: string },
  accountId: number,
  move: boolean,
): Promise<boolean> {
  const rows = await query(
    executor,
    `INSERT INTO identities (issuer, subject, account_id) VALUES (:issuer, :subject, :accountId)
     ON CONFLICT (issuer, subject) DO UPDATE SET account_id = excluded.account_id
       WHERE identities.account_id = excluded.account_id ${move ? 'OR true' : ''} RETURNING id`,
    { ...identity, accountId },
  )
  return rows.length > 0
}

/** False when there is no such identity. */
export async function unmapIdentity(
  executor: Executor,
  identity: { issuer: string; subject: string },
): Promise<boolean> {
  const sql = 'DELETE FROM identities WHERE issuer = :issuer AND subject = :subject RETURNING id'
  return (await query(executor, sql, { ...identity })).length > 0
}

/** What a mapping says of an identity that is mapped to no account itself. */
export interface MappedTo {
  readonly voId: number
  readonly target: 'account' | 'pool'
  readonly name: string
}

const MAPPED: Readonly<Record<MappedTo['target'], string>> = {
  // Whose account a pool's is, only the pool says: a name that a token spells never leads to somebody else's.
  account: `SELECT id, 1 FROM accounts WHERE vo_id = :voId AND name = :name
      AND NOT EXISTS (SELECT 1 FROM pool_accounts WHERE account_id = accounts.id)`,
  pool: `SELECT account_id, 1 FROM pool_accounts JOIN account_pools ON account_pools.id = pool_id
      WHERE vo_id = :voId AND name = :name AND issuer = :issuer AND subject = :subject AND held`,
}

/** The account that the identity itself is mapped to, else the one that a mapping leads to: one statement for both. */
export async function accountOf(
  executor: Executor,
  identity: { readonly issuer: string; readonly subject: string },
  mapped?: MappedTo,
): Promise<CallerAccount | undefined> {
  const { issuer, subject } = identity
  return queryOne<CallerAccount>(
    executor,
    `SELECT accounts.id, accounts.name, accounts.vo_id AS "voId", vos.name AS vo
       FROM (SELECT account_id, 0 AS place FROM identities WHERE issuer = :issuer AND subject = :subject
             ${mapped === undefined ? '' : `UNION ALL ${MAPPED[mapped.target]}`}) AS found
       JOIN accounts ON accounts.id = found.account_id JOIN vos ON vos.id = accounts.vo_id ORDER BY found.place LIMIT 1`,
    { issuer, subject, ...(mapped === undefined ? {} : { voId: mapped.voId, name: mapped.name }) },
  )
}
