import type { Service } from '../../shared/runtime/services.ts'
import { addUsage, limitsFor } from '../accounts/usage-store.ts'
import type { Context } from '../context.ts'
import { type Executor, isSqlite } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { alignSources } from '../transfers/align.ts'
import { cancelTransfers } from '../transfers/cancel.ts'
import { chooseStep } from './choose.ts'
import { rulesToShrink } from './detached-store.ts'
import { insertEvents } from './event-store.ts'
import { expandStep } from './expand.ts'
import { lockedBy, removeLocks } from './lock-store.ts'
import { Rooms } from './room.ts'
import { shrinkStep } from './shrink.ts'
import { postpone, repairQuota, rulesInWork, takeStep } from './step-store.ts'
import { addToRules, deleteRule, emptyRule, type RuleRow } from './store.ts'

/**
 * Files per step adapt so that its transaction takes about this long, milliseconds. On SQLite all who write wait for it; on
 * PostgreSQL only who wants the same rows, and a step's thirty statements have to pay.
 */
const STEP_MS = { sqlite: 25, postgresql: 100 }
/** Rules that are looked at until one is found that no other server works at. */
const RULES_TRIED = 20
const FILES_PER_STEP = { least: 100, most: 5_000 }

/**
 * Works off rules: choose storages for each dataset, then make replicas, locks and transfers, a step at a time; and let go of what
 * was detached. A step is one transaction guarded by the rule's cursor, and leaves alone what exists: a crash between any two does
 * nothing twice.
 */
export function ruleEvaluator(context: Context): Service {
  const stepMs = isSqlite(context.db.read) ? STEP_MS.sqlite : STEP_MS.postgresql
  const rooms = new Rooms(context.db.read, context.clock)
  const filesPerStep = { evaluate: 500, shrink: 500 }
  let shrinking = false
  let lastShrunk = 0

  /** How many files it took, or datasets when choosing; undefined when another server is at this rule. */
  async function step(found: RuleRow): Promise<number | undefined> {
    const rses = await context.storages.ofVo(found.vo_id)
    if (found.stage === 'CHOOSING') return chooseStep(context, found, rses, rooms)
    const left = found.stage === 'EXPANDING' && found.grouping === 'NONE' ? await rooms.left(rses) : new Map()
    return sized('evaluate', async (executor, limit, now) => {
      const rule = await takeStep(executor, found)
      if (rule === undefined) return undefined
      if (rule.stage === 'REMOVING') return removeStep(executor, rule, limit, now)
      return expandStep(executor, rule, { rses, rooms: left, limit, now })
    })
  }

  /** A transaction of as many files as fit into one. */
  async function sized(
    kind: keyof typeof filesPerStep,
    work: (executor: Executor, limit: number, now: number) => Promise<number | undefined>,
  ): Promise<number | undefined> {
    const limit = filesPerStep[kind]
    let began = 0
    const files = await context.db.write(async executor => {
      // Not before: it may have waited for other writers.
      began = context.clock.monotonic()
      return work(executor, limit, context.clock.now())
    })
    if (files === limit) adapt(kind, context.clock.monotonic() - began)
    return files
  }

  function adapt(kind: keyof typeof filesPerStep, tookMs: number): void {
    const fit = Math.round((filesPerStep[kind] * stepMs) / Math.max(1, tookMs))
    filesPerStep[kind] = Math.min(FILES_PER_STEP.most, Math.max(FILES_PER_STEP.least, fit))
  }

  return periodic({
    ...context,
    name: 'evaluate rules',
    interval: 1_000,
    topic: 'rules',
    async round() {
      // In turn: what is attached holds up nothing that is detached, nor the other way round.
      shrinking = !shrinking
      return shrinking ? (await shrinkOne()) || (await evaluateOne()) : (await evaluateOne()) || (await shrinkOne())
    },
  })

  async function evaluateOne(): Promise<boolean> {
    for (const rule of await rulesInWork(context.db.read, RULES_TRIED)) {
      if (!(await taken(rule.id, () => step(rule)))) continue
      if (rule.stage === 'REMOVING') context.wake.notify('repairs')
      if (rule.stage === 'EXPANDING') {
        context.wake.notify('grants')
        context.wake.notify('queue')
      }
      return true
    }
    return false
  }

  /** Rules that have something to let go of get their steps one after the other, by their keys. */
  async function shrinkOne(): Promise<boolean> {
    const behind = await rulesToShrink(context.db.read, lastShrunk, RULES_TRIED)
    const rules = behind.length > 0 ? behind : await rulesToShrink(context.db.read, 0, RULES_TRIED)
    for (const ruleId of rules) {
      lastShrunk = ruleId
      const shrink = (executor: Executor, limit: number, now: number) => shrinkStep(executor, ruleId, limit, now)
      if (await taken(ruleId, () => sized('shrink', shrink))) return true
    }
    return false
  }

  /** Whether a step was done. Not so: another server is at the rule, or it failed. */
  async function taken(ruleId: number, work: () => Promise<number | undefined>): Promise<boolean> {
    try {
      return (await work()) !== undefined
    } catch (error) {
      context.storages.forget()
      // The rule goes to the end of the queue: one that cannot be evaluated holds up no other.
      context.log.error({ err: error, rule: ruleId }, 'a step of a rule failed; it is tried again')
      await context.db.write(executor => postpone(executor, ruleId, context.clock.now()))
      return false
    }
  }
}

const LOCKED = { empty: false, freed: [] }

/** Takes locks away; what nobody waits for any more is not copied. The rule goes with its last lock. */
async function removeStep(executor: Executor, rule: RuleRow, limit: number, now: number): Promise<number> {
  const replicas = await lockedBy(executor, rule.id, limit)
  const { usage } = await removeLocks(executor, rule, replicas, now)
  const deltas = await cancelTransfers(executor, replicas, now)
  if (rule.source_expression !== null) await alignSources(executor, replicas, now)
  await addToRules(executor, deltas, now)
  const { empty, freed } = replicas.length < limit ? await emptyRule(executor, rule.id, limit) : LOCKED
  if (empty) {
    await insertEvents(executor, [{ rule_id: rule.id, event: 'gone', actor: null, details: {} }], now)
    await deleteRule(executor, rule.id)
    const account = { voId: rule.vo_id, accountId: rule.account_id }
    if ((await limitsFor(executor, rule.account_id)).length > 0) await repairQuota(executor, account, now)
  } else await postpone(executor, rule.id, now)
  const unreserved = freed.map(({ rse_id, reserved }) => ({ rse_id, files: 0, bytes: 0, reserved: -reserved }))
  await addUsage(executor, rule.account_id, [...usage, ...unreserved])
  return replicas.length
}
