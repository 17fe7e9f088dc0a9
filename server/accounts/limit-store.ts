import { type Executor, encodeRows, oneOf, query } from '../database/sql.ts'

export interface LimitRow {
  readonly id: number
  readonly vo_id: number
  /** Null: every account of the VO. */
  readonly account: string | null
  readonly expression: string
  readonly bytes: number | null
}

/** Of one account, or (`undefined`) of every account of the VO. `bytes` null: without limit. */
export async function putLimit(
  executor: Executor,
  limit: {
    readonly voId: number
    readonly accountId: number | undefined
    readonly expression: string
    readonly bytes: number | null
  },
  now: number,
): Promise<void> {
  await query(
    executor,
    `INSERT INTO account_limits (vo_id, account_id, expression, bytes, updated_at)
     VALUES (:voId, CAST(:accountId AS bigint), :expression, CAST(:bytes AS bigint), :now)
     ON CONFLICT (vo_id, coalesce(account_id, 0), expression) DO UPDATE SET bytes = excluded.bytes, updated_at = excluded.updated_at`,
    { ...limit, accountId: limit.accountId ?? null, now },
  )
}

/** False when there is no such limit. */
export async function deleteLimit(
  executor: Executor,
  limit: { readonly voId: number; readonly accountId: number | undefined; readonly expression: string },
): Promise<boolean> {
  const rows = await query(
    executor,
    `DELETE FROM account_limits WHERE vo_id = :voId AND coalesce(account_id, 0) = :accountId AND expression = :expression
     RETURNING id`,
    { ...limit, accountId: limit.accountId ?? 0 },
  )
  return rows.length > 0
}

/** Of these VOs, by their keys; with an account, those that hold for it. */
export async function listLimits(
  read: Executor,
  page: {
    readonly voIds: readonly number[]
    readonly accountId: number | undefined
    readonly after: number
    readonly limit: number
  },
): Promise<LimitRow[]> {
  const { voIds, accountId = 0, after, limit } = page
  return query(
    read,
    `SELECT limits.id, limits.vo_id, accounts.name AS account, limits.expression, limits.bytes FROM account_limits AS limits
       LEFT JOIN accounts ON accounts.id = limits.account_id
      WHERE limits.id > :after AND limits.vo_id ${oneOf(read, 'vos')}
        AND (:accountId = 0 OR limits.account_id IS NULL OR limits.account_id = :accountId)
      ORDER BY limits.id LIMIT :limit`,
    { vos: encodeRows(voIds), accountId, after, limit },
  )
}
