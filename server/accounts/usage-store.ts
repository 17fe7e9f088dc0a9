import { type Executor, encodeRows, lockRows, query, recordset } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { type Limit, Quota, type Usage } from './quota.ts'

export interface UsageDelta {
  readonly rse_id: number
  readonly files: number
  readonly bytes: number
  readonly reserved: number
}

/** One row for each storage: bytes of several statements' locks and reservations. */
export function summedByRse(deltas: readonly UsageDelta[]): UsageDelta[] {
  const sums = new Map<number, UsageDelta>()
  for (const { rse_id, files, bytes, reserved } of deltas) {
    const sum = sums.get(rse_id) ?? { rse_id, files: 0, bytes: 0, reserved: 0 }
    sums.set(rse_id, {
      rse_id,
      files: sum.files + files,
      bytes: sum.bytes + bytes,
      reserved: sum.reserved + reserved,
    })
  }
  return [...sums.values()].sort((a, b) => a.rse_id - b.rse_id)
}

/** Adds to what an account uses: last of all in a transaction, since these rows are all its rules'. */
export async function addUsage(executor: Executor, accountId: number, deltas: readonly UsageDelta[]): Promise<void> {
  const rows = summedByRse(deltas).filter(({ files, bytes, reserved }) => files !== 0 || bytes !== 0 || reserved !== 0)
  if (rows.length === 0) return
  const set = recordset(executor, 'rows', { rse_id: 'bigint', files: 'bigint', bytes: 'bigint', reserved: 'bigint' })
  await query(
    executor,
    `INSERT INTO account_usage (account_id, rse_id, files, bytes, reserved)
     SELECT :accountId, rse_id, files, bytes, reserved FROM ${set} AS given WHERE true ORDER BY rse_id
     ON CONFLICT (account_id, rse_id) DO UPDATE SET files = account_usage.files + excluded.files,
       bytes = account_usage.bytes + excluded.bytes, reserved = account_usage.reserved + excluded.reserved`,
    { accountId, rows: encodeRows(rows) },
  )
}

export async function usageOf(read: Executor, accountId: number): Promise<(Usage & { files: number })[]> {
  return query(read, 'SELECT rse_id, files, bytes, reserved FROM account_usage WHERE account_id = :accountId', {
    accountId,
  })
}

/** The limits that hold for an account: its own, and its VO's for all accounts. */
export async function limitsFor(read: Executor, accountId: number): Promise<Limit[]> {
  const rows = await query<{ account_id: number | null; expression: string; bytes: number | null }>(
    read,
    `SELECT limits.account_id, limits.expression, limits.bytes FROM account_limits AS limits
       JOIN accounts ON accounts.id = :accountId AND accounts.vo_id = limits.vo_id
      WHERE limits.account_id IS NULL OR limits.account_id = :accountId`,
    { accountId },
  )
  return rows.map(({ account_id, expression, bytes }) => ({ own: account_id !== null, expression, bytes }))
}

/**
 * What the rule's account may still lock, true until the transaction is over: at its beginning, before any row of rules, since who else
 * chooses for the account waits here.
 */
export async function holdQuota(
  executor: Executor,
  { account_id: accountId, ignore_quota }: { readonly account_id: number; readonly ignore_quota: number | boolean },
  rses: readonly Rse[],
): Promise<Quota> {
  const limits = ignore_quota ? [] : await limitsFor(executor, accountId)
  if (limits.length === 0) return new Quota([], [], [])
  await lockRows(executor, 'accounts', [accountId])
  return new Quota(limits, await usageOf(executor, accountId), rses)
}
