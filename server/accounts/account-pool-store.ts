import { type Executor, encodeRows, keyset, lockRows, query, queryOne } from '../database/sql.ts'
import { insertAccount } from './store.ts'

export interface PoolRow {
  readonly id: number
  readonly name: string
  readonly vo: string
  readonly size: number
  readonly held: number
  readonly released: number
}

/** The first number of a pool has so many digits; later ones may have more. */
const DIGITS = 3
/** An account's name has at most 25 characters, a pool's 20. */
const GREATEST_NUMBER = 99_999
/** Names that are looked at at once for one that is free. */
const NAMES_AT_ONCE = 100

export async function putPool(
  executor: Executor,
  pool: { readonly voId: number; readonly name: string; readonly size: number },
  now: number,
): Promise<void> {
  await query(
    executor,
    `INSERT INTO account_pools (vo_id, name, size, created_at) VALUES (:voId, :name, :size, :now)
     ON CONFLICT (vo_id, name) DO UPDATE SET size = excluded.size`,
    { ...pool, now },
  )
}

export async function findPool(executor: Executor, voId: number, name: string): Promise<number | undefined> {
  const sql = 'SELECT id FROM account_pools WHERE vo_id = :voId AND name = :name'
  return (await queryOne<{ id: number }>(executor, sql, { voId, name }))?.id
}

/** Of all VOs, or one pool. */
export async function listPools(executor: Executor, poolId?: number): Promise<PoolRow[]> {
  const count = (held: string): string =>
    `(SELECT count(*) FROM pool_accounts WHERE pool_id = account_pools.id AND ${held})`
  return query(
    executor,
    `SELECT account_pools.id, account_pools.name, vos.name AS vo, size, ${count('held')} AS held, ${count('NOT held')} AS released
       FROM account_pools JOIN vos ON vos.id = account_pools.vo_id
      ${poolId === undefined ? '' : 'WHERE account_pools.id = :poolId'} ORDER BY vos.name, account_pools.name`,
    poolId === undefined ? {} : { poolId },
  )
}

export interface PoolAccountRow {
  readonly account: string
  readonly number: number
  readonly issuer: string
  readonly subject: string
  readonly held: number | boolean
  readonly since: number
}

export async function listPoolAccounts(
  executor: Executor,
  page: { readonly poolId: number; readonly after: number; readonly limit: number },
): Promise<PoolAccountRow[]> {
  return query(
    executor,
    `SELECT accounts.name AS account, number, issuer, subject, held, since
       FROM pool_accounts JOIN accounts ON accounts.id = pool_accounts.account_id
      WHERE pool_id = :poolId AND number > :after ORDER BY number LIMIT :limit`,
    { ...page },
  )
}

/** Why nobody can be given an account of this pool now, for who has none; undefined: perhaps they can. */
export async function refusalOf(
  read: Executor,
  { voId, name }: { readonly voId: number; readonly name: string },
): Promise<'none' | 'exhausted' | undefined> {
  const poolId = await findPool(read, voId, name)
  const [row] = poolId === undefined ? [] : await listPools(read, poolId)
  if (row === undefined) return 'none'
  return row.held >= row.size ? 'exhausted' : undefined
}

/**
 * Gives this person an account of the pool, for good; the one they have had, if there is one. `none`: there is no such
 * pool; `exhausted`: as many are held as may be. Whoever comes at once, at any server, waits at the pool's row.
 */
export async function handOut(
  executor: Executor,
  pool: { readonly voId: number; readonly name: string },
  identity: { readonly issuer: string; readonly subject: string },
  now: number,
): Promise<'handed out' | 'none' | 'exhausted'> {
  const { voId, name } = pool
  const poolId = await findPool(executor, voId, name)
  if (poolId === undefined) return 'none'
  await lockRows(executor, 'account_pools', [poolId])
  const [row] = await listPools(executor, poolId)
  const own = await queryOne<{ account_id: number; held: number | boolean }>(
    executor,
    'SELECT account_id, held FROM pool_accounts WHERE pool_id = :poolId AND issuer = :issuer AND subject = :subject',
    { poolId, issuer: identity.issuer, subject: identity.subject },
  )
  if (own?.held) return 'handed out'
  if (row === undefined || row.held >= row.size) return 'exhausted'
  if (own !== undefined) {
    const sql = 'UPDATE pool_accounts SET held = true, since = :now WHERE account_id = :account'
    await query(executor, sql, { account: own.account_id, now })
    return 'handed out'
  }
  const free = await newAccount(executor, { voId, name, poolId }, now)
  if (free === undefined) return 'exhausted'
  await query(
    executor,
    `INSERT INTO pool_accounts (account_id, pool_id, number, issuer, subject, held, since)
     VALUES (:account, :poolId, :number, :issuer, :subject, true, :now)`,
    { ...free, poolId, issuer: identity.issuer, subject: identity.subject, now },
  )
  return 'handed out'
}

/** An account with the pool's next number; accounts that an admin has called so are passed over. */
async function newAccount(
  executor: Executor,
  { voId, name, poolId }: { readonly voId: number; readonly name: string; readonly poolId: number },
  now: number,
): Promise<{ account: number; number: number } | undefined> {
  const last = await queryOne<{ number: number }>(
    executor,
    'SELECT coalesce(max(number), 0) AS number FROM pool_accounts WHERE pool_id = :poolId',
    { poolId },
  )
  const nameOf = (number: number): string => `${name}${String(number).padStart(DIGITS, '0')}`
  for (let first = (last?.number ?? 0) + 1; first <= GREATEST_NUMBER; first += NAMES_AT_ONCE) {
    const numbers = Array.from({ length: Math.min(NAMES_AT_ONCE, GREATEST_NUMBER - first + 1) }, (_, i) => first + i)
    const taken = await query<{ value: string }>(
      executor,
      `SELECT value FROM ${keyset(executor, 'names', 'text')} AS given JOIN accounts ON accounts.name = value WHERE vo_id = :voId`,
      { names: encodeRows(numbers.map(nameOf)), voId },
    )
    const names = new Set(taken.map(({ value }) => value))
    for (const number of numbers.filter(candidate => !names.has(nameOf(candidate)))) {
      const account = await insertAccount(executor, voId, nameOf(number), now)
      // Undefined: an admin adds one of this name at this very moment.
      if (account !== undefined) return { account, number }
    }
  }
  return undefined
}

export async function isOfPool(executor: Executor, accountId: number): Promise<boolean> {
  const sql = 'SELECT 1 AS n FROM pool_accounts WHERE account_id = :accountId'
  return (await queryOne(executor, sql, { accountId })) !== undefined
}

/** False when it is no account of a pool. One that was released is left as it is. */
export async function release(executor: Executor, voId: number, account: string, now: number): Promise<boolean> {
  const own = 'account_id = (SELECT id FROM accounts WHERE vo_id = :voId AND name = :account)'
  await query(executor, `UPDATE pool_accounts SET held = false, since = :now WHERE held AND ${own}`, {
    voId,
    account,
    now,
  })
  const row = await queryOne(executor, `SELECT 1 AS n FROM pool_accounts WHERE ${own}`, { voId, account })
  return row !== undefined
}
