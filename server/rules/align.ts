import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, lockRows, query } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { alignSources, alignTransfers } from '../transfers/align.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { guarded, Pages } from './guard.ts'
import { tryLockRule } from './step-store.ts'
import { addToRules, type RuleRow } from './store.ts'

const LOCKS_PER_STEP = 1_000
const RULES_PER_ROUND = 100

/**
 * Lets the transfers of rules that were changed follow: those of a suspended rule that no other wants are cancelled, those of the others
 * get the priority and activity of today. Some at a time, behind `align_cursor`, the last replica that was looked at.
 */
export function ruleAligner(context: Context): Service {
  const pages = new Pages<RuleToAlign>(RULES_PER_ROUND, (last, limit) =>
    query(
      context.db.read,
      `SELECT * FROM rules WHERE align_cursor IS NOT NULL AND stage <> 'REMOVING' AND id > :after ORDER BY id LIMIT :limit`,
      { after: last?.id ?? 0, limit },
    ),
  )
  return periodic({
    ...context,
    name: 'align transfers with rules',
    interval: 5_000,
    topic: 'rules',
    async round() {
      const { page, more } = await pages.next()
      let aligned = false
      for (const rule of page) {
        const step = async (): Promise<boolean> => {
          // Among many that are OK they are looked for outside the transaction.
          const replicas = await replicating(context.db.read, rule)
          return context.db.write(executor => alignStep(executor, rule, replicas, context.clock.now()))
        }
        if (await guarded(context, rule.id, step)) aligned = true
      }
      if (aligned) context.wake.notify('queue')
      return aligned || more
    },
  })
}

type RuleToAlign = RuleRow & { readonly align_cursor: number; readonly align_pass: number }

/**
 * The next replicas whose transfers may have to follow. What comes to the rule later has what it says by then, and is looked at when it
 * is changed again: this look is of no use then.
 */
async function replicating(read: Executor, { id, align_cursor: cursor }: RuleToAlign): Promise<number[]> {
  const rows = await query<{ replica_id: number }>(
    read,
    `SELECT replica_id FROM locks WHERE rule_id = :id AND state = 'REPLICATING' AND replica_id > :cursor
      ORDER BY replica_id LIMIT :limit`,
    { id, cursor, limit: LOCKS_PER_STEP },
  )
  return rows.map(row => row.replica_id)
}

/** False when another server is at this rule, or it was changed since its replicas were looked for. */
async function alignStep(
  executor: Executor,
  rule: RuleToAlign,
  replicas: readonly number[],
  now: number,
): Promise<boolean> {
  if (!(await tryLockRule(executor, rule.id))) return false
  const [same] = await query<{ state: RuleRow['state'] }>(
    executor,
    'SELECT state FROM rules WHERE id = :id AND align_cursor = :cursor AND align_pass = :pass',
    { id: rule.id, cursor: rule.align_cursor, pass: rule.align_pass },
  )
  if (same === undefined) return false
  await lockRows(executor, 'replicas', replicas)
  if (same.state === 'SUSPENDED') {
    const deltas = await cancelTransfers(executor, replicas, now)
    if (rule.source_expression !== null) await alignSources(executor, replicas, now)
    await addToRules(executor, deltas, now)
  } else await alignTransfers(executor, replicas, now)
  const next = replicas.length < LOCKS_PER_STEP ? null : (replicas.at(-1) ?? null)
  await query(executor, 'UPDATE rules SET align_cursor = CAST(:next AS bigint) WHERE id = :id', { id: rule.id, next })
  return true
}
