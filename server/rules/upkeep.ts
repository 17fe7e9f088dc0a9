import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { query } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { openTransfers } from '../transfers/plan.ts'
import { repairLocks } from './lock-store.ts'
import { addToRules, chooseAgain, expireRules, type RuleRow, repairOn, scheduleRepairs, takeRepair } from './store.ts'

const LOCKS_PER_REPAIR = 1_000
/** Before a STUCK rule is tried again: longer each time (rucio #8743). Milliseconds. */
const REPAIR = { base: 60_000, most: 6 * 3_600_000 }

export function repairDelay(repairs: number): number {
  return Math.min(REPAIR.most, REPAIR.base * 2 ** Math.min(repairs, 20))
}

/** Ends rules whose lifetime is over. */
export function ruleExpirer(context: Context): Service {
  return periodic({
    ...context,
    name: 'expire rules',
    interval: 1_000,
    async round() {
      const now = context.clock.now()
      const due = await query(context.db.read, 'SELECT id FROM rules WHERE expires_at <= :now LIMIT 1', { now })
      if (due.length === 0) return false
      await context.db.write(executor => expireRules(executor, now))
      context.wake.notify('rules')
      return false
    },
  })
}

/**
 * Tries the stuck locks of a rule again, and looks again for storages where it found too few, with growing spacing; one rule
 * never delays another's repair.
 */
export function ruleRepairer(context: Context): Service {
  return periodic({
    ...context,
    name: 'repair rules',
    interval: 5_000,
    async round() {
      const now = context.clock.now()
      const stuck = await query(
        context.db.read,
        `SELECT id FROM rules WHERE state = 'STUCK' AND repair_at IS NULL AND (locks_stuck > 0 OR error IS NOT NULL) LIMIT 1`,
      )
      if (stuck.length > 0) await context.db.write(executor => scheduleRepairs(executor, now + REPAIR.base))
      const [rule] = await query<RuleRow & { repairs: number }>(
        context.db.read,
        'SELECT * FROM rules WHERE repair_at <= :now ORDER BY repair_at LIMIT 1',
        { now },
      )
      if (rule === undefined) return false
      await context.db.write(async executor => {
        if (!(await takeRepair(executor, rule.id, rule.repairs, now + repairDelay(rule.repairs + 1)))) return
        const { replicas, deltas } = await repairLocks(executor, rule.id, LOCKS_PER_REPAIR)
        await addToRules(executor, deltas, now)
        await openTransfers(executor, replicas, rule, now)
        if (replicas.length === LOCKS_PER_REPAIR) await repairOn(executor, rule.id, now)
        await chooseAgain(executor, rule.id)
      })
      context.wake.notify('rules')
      context.wake.notify('grants')
      context.wake.notify('queue')
      return true
    },
  })
}
