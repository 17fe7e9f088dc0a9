import type { Service } from '../../shared/runtime/services.ts'
import { addUsage } from '../accounts/usage-store.ts'
import type { Context } from '../context.ts'
import { type Executor, query } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { openTransfers } from '../transfers/open.ts'
import { sourceSetOf } from '../transfers/source-set-store.ts'
import { insertEvents } from './event-store.ts'
import { guarded, Pages } from './guard.ts'
import type { Expansion } from './lock-files.ts'
import { repairLocks, stuckLocks, summedByRule } from './lock-store.ts'
import { type MovedElsewhere, moveElsewhere } from './repair-anywhere.ts'
import { Rooms } from './room.ts'
import {
  chooseAgain,
  type DueRule,
  dueRules,
  endRepair,
  lockAgain,
  putOffRepair,
  type RuleToRepair,
  repairOn,
  scheduleRepairs,
  startRemoval,
  takeDue,
  takeRepair,
  unscheduledRepairs,
} from './step-store.ts'
import { addToRules } from './store.ts'

const LOCKS_PER_REPAIR = 1_000
const RULES_PER_ROUND = 100
/** Before a STUCK rule is tried again: longer each time (rucio #8743). Milliseconds. */
const REPAIR = { base: 60_000, most: 6 * 3_600_000 }

export function repairDelay(repairs: number): number {
  return Math.min(REPAIR.most, REPAIR.base * 2 ** Math.min(repairs, 20))
}

/** Ends rules whose lifetime is over. */
export function ruleExpirer(context: Context): Service {
  const pages = new Pages<DueRule>(RULES_PER_ROUND, (last, limit) =>
    dueRules(context.db.read, context.clock.now(), last, limit),
  )
  return periodic({
    ...context,
    name: 'expire rules',
    interval: 1_000,
    async round() {
      const { page, more } = await pages.next()
      const now = context.clock.now()
      for (const { id } of page) {
        await guarded(context, id, () =>
          context.db.write(async executor => {
            if (!(await takeDue(executor, id, now))) return false
            await insertEvents(executor, [{ rule_id: id, event: 'expired', actor: null, details: {} }], now)
            await startRemoval(executor, id, now)
            return true
          }),
        )
      }
      if (page.length > 0) context.wake.notify('rules')
      return more
    },
  })
}

/**
 * Tries the stuck locks of a rule again, and looks again for storages where it found too few, with growing spacing; one rule
 * never delays another's repair.
 */
export function ruleRepairer(context: Context): Service {
  const rooms = new Rooms(context.db.read, context.clock)
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
        const rses = await context.storages.ofVo(rule.vo_id)
        const left = rule.grouping === 'NONE' ? await rooms.left(rses) : new Map<number, number>()
        const where = { rses, rooms: left, limit: LOCKS_PER_REPAIR, now }
        const done = await guarded(
          context,
          rule.id,
          () => context.db.write(executor => repairRule(executor, rule, where)),
          () => context.db.write(executor => putOffRepair(executor, rule.id, now + REPAIR.base)),
        )
        if (done) repaired += 1
      }
      if (repaired === 0) return false
      context.wake.notify('rules')
      context.wake.notify('grants')
      context.wake.notify('queue')
      return true
    },
  })
}

const NOTHING: MovedElsewhere = { replicas: new Set(), deltas: [], usage: [] }

/** False when another server is at it. */
async function repairRule(executor: Executor, found: RuleToRepair, where: Expansion): Promise<boolean> {
  const { limit, now } = where
  const rule = await takeRepair(executor, found)
  if (rule === undefined) return false
  if (!rule.repairable) {
    await endRepair(executor, rule.id, null)
    return true
  }
  const wanted = { ...rule, source_set_id: await sourceSetOf(executor, rule) }
  const locks = await stuckLocks(executor, rule.id, rule.repair_cursor, limit)
  const moved = rule.grouping === 'NONE' ? await moveElsewhere(executor, rule, locks, where) : NOTHING
  const { replicas, deltas } = await repairLocks(
    executor,
    wanted,
    locks.filter(id => !moved.replicas.has(id)),
    now,
  )
  await openTransfers(executor, replicas, wanted, now)
  await addToRules(executor, summedByRule([...deltas, ...moved.deltas]), now)
  const last = locks.at(-1)
  if (locks.length === limit && last !== undefined) await repairOn(executor, rule.id, last, now)
  else await endRepair(executor, rule.id, now + repairDelay(rule.repairs + 1))
  await lockAgain(executor, rule)
  await chooseAgain(executor, rule)
  await addUsage(executor, rule.account_id, moved.usage)
  return true
}
