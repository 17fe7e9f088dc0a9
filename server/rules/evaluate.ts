import type { Service } from '../../shared/runtime/services.ts'
import { addUsage } from '../accounts/usage-store.ts'
import type { Context } from '../context.ts'
import { type Executor, isSqlite } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { alignSources } from '../transfers/align.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { reservedOf } from './choice-store.ts'
import { chooseStep } from './choose.ts'
import { insertEvents } from './event-store.ts'
import { expandStep } from './expand.ts'
import { removeLocks } from './lock-store.ts'
import { Rooms } from './room.ts'
import { postpone, rulesInWork, takeStep } from './step-store.ts'
import { addToRules, deleteRule, type RuleRow } from './store.ts'

/**
 * Files per step adapt so that its transaction takes about this long, milliseconds. On SQLite all who write wait for it; on
 * PostgreSQL only who wants the same rows, and a step's thirty statements have to pay.
 */
const STEP_MS = { sqlite: 25, postgresql: 100 }
/** Rules that are looked at until one is found that no other server works at. */
const RULES_TRIED = 20
const FILES_PER_STEP = { least: 100, most: 5_000 }

/**
 * Works off rules: choose storages for each dataset, then make replicas, locks and transfers, a step at a time. A step is one
 * transaction guarded by the rule's cursor, and leaves alone what exists: a crash between any two does nothing twice.
 */
export function ruleEvaluator(context: Context): Service {
  const stepMs = isSqlite(context.db.read) ? STEP_MS.sqlite : STEP_MS.postgresql
  const rooms = new Rooms(context.db.read, context.clock)
  let filesPerStep = 500

  /** How many files it took, or datasets when choosing; undefined when another server is at this rule. */
  async function step(rule: RuleRow, rses: readonly Rse[]): Promise<number | undefined> {
    const now = context.clock.now()
    if (rule.stage === 'CHOOSING') return chooseStep(context, rule, rses, rooms)
    const limit = filesPerStep
    const left =
      rule.stage === 'EXPANDING' && rule.grouping === 'NONE' ? await rooms.left(rses) : new Map<number, number>()
    let began = 0
    const files = await context.db.write(async executor => {
      // Not before: it may have waited for other writers.
      began = context.clock.monotonic()
      if (!(await takeStep(executor, rule))) return undefined
      if (rule.stage === 'REMOVING') return removeStep(executor, rule, limit, now)
      return expandStep(executor, rule, { rses, rooms: left, limit, now })
    })
    if (files === limit) adapt(context.clock.monotonic() - began)
    return files
  }

  function adapt(tookMs: number): void {
    const fit = Math.round((filesPerStep * stepMs) / Math.max(1, tookMs))
    filesPerStep = Math.min(FILES_PER_STEP.most, Math.max(FILES_PER_STEP.least, fit))
  }

  return periodic({
    ...context,
    name: 'evaluate rules',
    interval: 1_000,
    topic: 'rules',
    async round() {
      for (const rule of await rulesInWork(context.db.read, RULES_TRIED)) {
        if (await evaluated(rule)) return true
      }
      return false
    },
  })

  /** False: another server is at it, or it failed. */
  async function evaluated(rule: RuleRow): Promise<boolean> {
    try {
      const rses = await context.storages.ofVo(rule.vo_id)
      if ((await step(rule, rses)) === undefined) return false
    } catch (error) {
      context.storages.forget()
      // The rule goes to the end of the queue: one that cannot be evaluated holds up no other.
      context.log.error({ err: error, rule: rule.id }, 'a step of a rule failed; it is tried again')
      await context.db.write(executor => postpone(executor, rule.id, context.clock.now()))
      return false
    }
    if (rule.stage === 'EXPANDING') {
      context.wake.notify('grants')
      context.wake.notify('queue')
    }
    return true
  }
}

/** Takes locks away; what nobody waits for any more is not copied. The rule goes with its last lock. */
async function removeStep(executor: Executor, rule: RuleRow, limit: number, now: number): Promise<number> {
  const { replicas, usage } = await removeLocks(executor, rule.id, limit, now)
  const deltas = await cancelTransfers(executor, replicas, now)
  if (rule.source_expression !== null) await alignSources(executor, replicas, now)
  await addToRules(executor, deltas, now)
  const last = replicas.length < limit
  const reserved = last ? await reservedOf(executor, rule.id) : []
  if (last) {
    await insertEvents(executor, [{ rule_id: rule.id, event: 'gone', actor: null, details: {} }], now)
    await deleteRule(executor, rule.id)
  } else {
    await postpone(executor, rule.id, now)
  }
  const freed = reserved.map(row => ({ rse_id: row.rse_id, files: 0, bytes: 0, reserved: -row.reserved }))
  await addUsage(executor, rule.account_id, [...usage, ...freed])
  return replicas.length
}
