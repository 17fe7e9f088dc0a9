import { type Executor, query, queryOne } from '../database/sql.ts'
import { lockRule, REPAIRABLE } from './step-store.ts'
import { deriveState, type RuleRow } from './store.ts'

/** What of a rule people may change. What is absent stays. */
export interface RuleChange {
  /** Epoch milliseconds; null: for ever. */
  readonly expiresAt?: number | null | undefined
  readonly locked?: boolean | undefined
  readonly priority?: number | undefined
  readonly activity?: string | undefined
  readonly comment?: string | null | undefined
}

const COLUMNS = {
  expiresAt: 'expires_at',
  locked: 'locked',
  priority: 'priority',
  activity: 'activity',
  comment: 'comment',
} as const satisfies Record<keyof RuleChange, string>

/** Its transfers are looked at from the first: a pass that has begun is over. */
const ALIGN = 'align_cursor = 0, align_pass = align_pass + 1'

/** The rule as it is now, while the caller holds its lock; undefined: it is gone, or going. */
export async function findRule(executor: Executor, id: number): Promise<RuleRow | undefined> {
  return queryOne<RuleRow>(executor, `SELECT * FROM rules WHERE id = :id AND stage <> 'REMOVING'`, { id })
}

/** Its transfers follow where that says something to them. */
export async function changeRule(executor: Executor, id: number, change: RuleChange, now: number): Promise<void> {
  const given = Object.entries(change).filter(([, value]) => value !== undefined)
  if (given.length === 0) return
  const sets = given.map(([name]) => `${COLUMNS[name as keyof RuleChange]} = :${name}`)
  const aligns = change.priority !== undefined || change.activity !== undefined ? `, ${ALIGN}` : ''
  await query(executor, `UPDATE rules SET ${sets.join(', ')}, updated_at = :now${aligns} WHERE id = :id`, {
    ...Object.fromEntries(given),
    id,
    now,
  })
}

/** Nothing is done for it any more, and its transfers are cancelled where no other rule wants them. */
export async function suspendRule(executor: Executor, id: number, now: number): Promise<void> {
  await query(
    executor,
    `UPDATE rules SET state = 'SUSPENDED', repair_at = NULL, ${ALIGN}, updated_at = :now WHERE id = :id`,
    { id, now },
  )
}

/** From SUSPENDED or WAITING_APPROVAL: its state follows from its counters again, and what is stuck is repaired at once. */
export async function resumeRule(executor: Executor, id: number, now: number): Promise<void> {
  await query(
    executor,
    `UPDATE rules SET state = 'REPLICATING', ${ALIGN}, repair_cursor = 0,
            repair_at = CASE WHEN ${REPAIRABLE} THEN CAST(:now AS bigint) END WHERE id = :id`,
    { id, now },
  )
  await deriveState(executor, id, now)
}

/** Somebody has allowed it: whatever the account may lock else. */
export async function approveRule(executor: Executor, id: number, now: number): Promise<void> {
  await query(executor, 'UPDATE rules SET ignore_quota = true WHERE id = :id', { id })
  await resumeRule(executor, id, now)
}

/** Of `rules`: the one that it replaces may go, or is gone. */
const UNLOCKED = 'NOT EXISTS (SELECT 1 FROM rules AS old WHERE old.id = rules.replaces AND old.locked)'

/** A rule that is OK takes the place of another. */
export interface Replacement {
  readonly id: number
  readonly replaces: number
}

/** The next behind a key. */
export async function replacementsDue(read: Executor, after: number, limit: number): Promise<Replacement[]> {
  return query(
    read,
    `SELECT id, replaces FROM rules WHERE replaces IS NOT NULL AND id > :after AND state = 'OK' AND stage = 'EXPANDED' AND ${UNLOCKED}
      ORDER BY id LIMIT :limit`,
    { after, limit },
  )
}

/**
 * False when it has done so already, is not OK any more, or the other has been locked meanwhile: its lock is held. What the other was
 * allowed it is allowed too, and no more. What the other was to replace is its to replace now: else that would stay for ever.
 */
export async function endReplacement(executor: Executor, { id, replaces }: Replacement): Promise<boolean> {
  await lockRule(executor, replaces)
  const rows = await query(
    executor,
    `UPDATE rules SET replaces = (SELECT replaces FROM rules AS old WHERE old.id = :replaces),
            ignore_quota = (ignore_quota AND coalesce((SELECT ignore_quota FROM rules AS old WHERE old.id = :replaces), false))
      WHERE id = :id AND replaces = :replaces AND state = 'OK' AND stage = 'EXPANDED' AND ${UNLOCKED} RETURNING id`,
    { id, replaces },
  )
  return rows.length > 0
}
