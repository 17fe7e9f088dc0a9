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

/** False when the name is taken in this VO. */
export async function insertAccount(executor: Executor, voId: number, name: string, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    `INSERT INTO accounts (vo_id, name, created_at) VALUES (:voId, :name, :now) ON CONFLICT (vo_id, name) DO NOTHING RETURNING id`,
    { voId, name, now },
  )
  return rows.length > 0
}

export async function findAccount(executor: Executor, voId: number, name: string): Promise<number | undefined> {
  const row = await queryOne<{ id: number }>(executor, 'SELECT id FROM accounts WHERE vo_id = :voId AND name = :name', {
    voId,
    name,
  })
  return row?.id
}

export async function listAccounts(executor: Executor, sight: Sight): Promise<{ name: string; vo: string }[]> {
  return query(
    executor,
    `SELECT accounts.name, vos.name AS vo FROM accounts JOIN vos ON vos.id = accounts.vo_id
      WHERE true${withinReach(executor, sight, { vo: 'accounts.vo_id' })} ORDER BY vos.name, accounts.name`,
    reachBindings(sight),
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

export async function accountOf(
  executor: Executor,
  identity: { issuer: string; subject: string },
): Promise<CallerAccount | undefined> {
  return queryOne<CallerAccount>(
    executor,
    `SELECT accounts.id, accounts.name, accounts.vo_id AS "voId", vos.name AS vo
       FROM identities JOIN accounts ON accounts.id = identities.account_id JOIN vos ON vos.id = accounts.vo_id
      WHERE identities.issuer = :issuer AND identities.subject = :subject`,
    { issuer: identity.issuer, subject: identity.subject },
  )
}
