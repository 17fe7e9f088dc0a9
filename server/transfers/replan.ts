import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { periodic } from '../periodic.ts'
import { isToLeave } from './health.ts'
import { forgetHealth, healthOf } from './health-store.ts'
import { countQueued, linkPaces, pruneMinutes } from './pace-store.ts'
import {
  failingWithWork,
  type Leaving,
  movable,
  moveQueued,
  type Place,
  queuedAfter,
  settleLeft,
} from './replan-store.ts'
import { SLOW, slowLinks, slowPairs } from './slow.ts'

const MOVED_AT_ONCE = 1_000
/** After all that is queued on a link was looked at: what is left has no other source. Milliseconds. */
const REST_MS = 300_000
/** When some could be moved, but only to a source on trial that takes few at a time; and so many times what the pass took. */
const TRIAL_REST = { least: 15_000, times: 5 }
/** How often paces are compared, over which time, how long they are kept, and how often those are sought that are older. */
const SLOW_EVERY_MS = 10_000
const PACE_MINUTES = 15
const KEPT_MINUTES = 60
const PRUNE_EVERY_MS = 600_000

interface Pass {
  readonly run: number | undefined
  readonly after: Place
  readonly beganAt: number
  readonly restsUntil: number
  /** Something went to a source on trial. */
  readonly toTrial: boolean
}

const START: Place = { bundle: 0, transfer: 0 }

/**
 * Moves queued transfers off sources that are held back or much slower than another, a bounded number at a time. How far it
 * got is in memory only: several servers go through the same, and each transfer is moved once.
 */
export function replanner(context: Context): Service {
  const passes = new Map<number, Pass>()
  let slowAt = 0
  let pruneAt = 0
  return periodic({
    ...context,
    name: 'replan',
    interval: 1_000,
    async round() {
      const now = context.clock.now()
      const held = await heldLinks(context)
      const slow = now < slowAt ? [] : await findSlow(context, now)
      if (now >= slowAt) slowAt = now + SLOW_EVERY_MS
      if (now >= pruneAt) {
        pruneAt = now + PRUNE_EVERY_MS
        await prune(context, now)
      }
      let more = false
      for (const leaving of [...held, ...slow]) {
        try {
          more = (await leave(context, leaving, passes, now)) || more
        } catch (error) {
          // Those behind it must not wait for it.
          context.log.error(
            { err: error, link: leaving.linkId },
            'queued transfers could not be moved; it is tried again',
          )
        }
      }
      return more
    },
  })
}

async function heldLinks({ db }: Context): Promise<Leaving[]> {
  const links = (await failingWithWork(db.read)).filter(row => isToLeave(healthOf(row)))
  return links.map(({ link_id, source_rse_id, since, gave_at, failed_at, code, message }) => {
    const run = Math.max(since, gave_at)
    const words = `it has failed for ${Math.round((failed_at - run) / 1000)} s, the last time: ${code}: ${message}`
    return { linkId: link_id, sourceId: source_rse_id, run, code: 'SOURCE_HELD', message: words }
  })
}

async function findSlow({ db }: Context, now: number): Promise<Leaving[]> {
  const links = await linkPaces(db.read, Math.floor(now / 60_000) - PACE_MINUTES, now)
  const sources = new Map(links.map(link => [link.id, link.sourceId]))
  const pairs = slowPairs(links)
  const involved = new Set(pairs.flatMap(({ slow, other }) => [slow.id, other.id]))
  return slowLinks(pairs, await countQueued(db.read, [...involved], SLOW.counted)).map(
    ({ id, to, millisecondsEach }) => ({
      linkId: id,
      sourceId: sources.get(id) ?? 0,
      run: undefined,
      code: 'SOURCE_SLOW',
      message: `a file took ${(millisecondsEach / 1000).toFixed(1)} s from there in the last ${PACE_MINUTES} minutes`,
      to,
    }),
  )
}

async function prune({ db }: Context, now: number): Promise<void> {
  const before = now - KEPT_MINUTES * 60_000
  await db.write(async executor => {
    await forgetHealth(executor, now)
    await pruneMinutes(executor, Math.floor(before / 60_000))
  })
}

/** Moves the next of a link's queue; true when there may be more. */
async function leave(context: Context, leaving: Leaving, passes: Map<number, Pass>, now: number): Promise<boolean> {
  const { db, log, wake } = context
  const { linkId, run, code } = leaving
  const pass = passes.get(linkId)
  const first: Pass = { run, after: START, beganAt: now, restsUntil: 0, toTrial: false }
  const goesOn = pass !== undefined && pass.run === run
  if (goesOn && pass.restsUntil > now) return false
  const { after, beganAt, toTrial } = goesOn && pass.restsUntil === 0 ? pass : first
  const next = await queuedAfter(db.read, linkId, after, MOVED_AT_ONCE)
  const last = next.length < MOVED_AT_ONCE ? undefined : next.at(-1)
  // A look first: what has no other source costs no write.
  const found = await movable(
    db.read,
    next.map(row => row.id),
    leaving,
    now,
  )
  // Once in a pass: it is long, and what a source on trial takes is little.
  const moves = toTrial ? found.filter(({ share }) => share === null) : found
  const ids = moves.map(row => row.transfer_id)
  const left = ids.length === 0 ? [] : await db.write(executor => moveQueued(executor, ids, leaving, now))
  // Not before: what a write that failed should have moved is looked at again.
  const some = toTrial || moves.some(({ share }) => share !== null)
  const rest = some ? Math.max(TRIAL_REST.least, TRIAL_REST.times * (now - beganAt)) : REST_MS
  passes.set(
    linkId,
    last === undefined
      ? { ...first, restsUntil: run === undefined ? 0 : now + rest }
      : { ...first, after: { bundle: last.bundle_id, transfer: last.id }, beganAt, toTrial: some },
  )
  if (left.length > 0) {
    await db.write(executor => settleLeft(executor, linkId, left))
    log.info({ link: linkId, code }, 'queued transfers were moved to another source')
    wake.notify('grants')
    wake.notify('queue')
  }
  return last !== undefined && run !== undefined
}
