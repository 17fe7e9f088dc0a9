import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, query } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { openTransfers } from '../transfers/open.ts'
import { insertEvents } from './event-store.ts'
import { repairLocks } from './lock-store.ts'
import {
  chooseAgain,
  dueRules,
  endRepair,
  repairOn,
  scheduleRepairs,
  startRemoval,
  takeDue,
  takeRepair,
  unscheduledRepairs,
} from './step-store.ts'
import { addToRules, type RuleRow } from './store.ts'

const LOCKS_PER_REPAIR = 1_000
const RULES_PER_ROUND = 100
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
      const due = await dueRules(context.db.read, now, RULES_PER_ROUND)
      for (const id of due) {
        await context.db.write(async executor => {
          if (!(await takeDue(executor, id, now))) return
          await insertEvents(executor, [{ rule_id: id, event: 'expired', actor: null, details: {} }], now)
          await startRemoval(executor, id, now)
        })
      }
      if (due.length > 0) context.wake.notify('rules')
      return due.length === RULES_PER_ROUND
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
    topic: 'repairs',
    async round() {
      const now = context.clock.now()
      const unscheduled = await unscheduledRepairs(context.db.read, RULES_PER_ROUND)
      if (unscheduled.length > 0) {
        await context.db.write(executor => scheduleRepairs(executor, unscheduled, now + REPAIR.base))
      }
      const due = await query<RuleToRepair>(
        context.db.read,
        'SELECT * FROM rules WHERE repair_at <= :now ORDER BY repair_at LIMIT :limit',
        { now, limit: RULES_PER_ROUND },
      )
      let repaired = 0
      for (const rule of due) {
        if (await context.db.write(executor => repairRule(executor, rule, now))) repaired += 1
      }
      if (repaired === 0) return false
      context.wake.notify('rules')
      context.wake.notify('grants')
      context.wake.notify('queue')
      return true
    },
  })
}

interface RuleToRepair extends RuleRow {
  readonly repairs: number
  readonly repair_cursor: number
}

/** False when another server is at it. */
async function repairRule(executor: Executor, rule: RuleToRepair, now: number): Promise<boolean> {
  const stuck = await takeRepair(executor, rule)
  if (stuck === undefined) return false
  if (!stuck) {
    await endRepair(executor, rule.id, null)
    return true
  }
  const { replicas, deltas, next } = await repairLocks(executor, rule.id, rule.repair_cursor, LOCKS_PER_REPAIR, now)
  await openTransfers(executor, replicas, rule, now)
  await addToRules(executor, deltas, now)
  if (next !== undefined) await repairOn(executor, rule.id, next, now)
  else await endRepair(executor, rule.id, now + repairDelay(rule.repairs + 1))
  await chooseAgain(executor, rule)
  return true
}
