import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { periodic } from '../periodic.ts'
import type { Rse } from '../storages/directory.ts'
import { decisionsBeyond, KEPT_DECISIONS, pruneDecisions } from './decision-store.ts'
import {
  averageActive,
  beginMeasuring,
  isIdle,
  type LinkToTune,
  type Look,
  looksIn,
  minuteToRead,
  partFull,
  stateFrom,
  TUNING,
  type Tuned,
  tuned,
} from './link-tuning.ts'
import { activeByLink, linksToTune, minutesSince, storeTuned, type TunedRow } from './optimize-store.ts'
import { countQueued } from './pace-store.ts'

/** Between two looks at how many are active. Milliseconds. */
const LOOK_MS = 5_000
const LINKS_PER_ROUND = 200
const PRUNE_EVERY_MS = 600_000

/**
 * Decides the limits and modes of links about once a minute, by what they did. Each server looks by itself at how many are
 * active; who is the first to decide about a link wins, so that any number may do it.
 */
export function linkOptimizer(context: Context): Service {
  const looks: Look[] = []
  let pruneAt = 0
  return periodic({
    ...context,
    name: 'optimize links',
    interval: LOOK_MS,
    async round() {
      const now = context.clock.now()
      if (now >= pruneAt) {
        pruneAt = now + PRUNE_EVERY_MS
        await prune(context, now)
      }
      return optimizeLinks(context, looks, now)
    },
  })
}

/**
 * One round: another look, added to `looks`, and decisions about those links whose window is over. True when there are more of
 * them.
 */
export async function optimizeLinks({ db, storages, wake }: Context, looks: Look[], now: number): Promise<boolean> {
  const last = looks.at(-1)
  if (last === undefined || now - last.at >= LOOK_MS / 2) looks.push({ at: now, active: await activeByLink(db.read) })
  while (looks[0] !== undefined && now - looks[0].at > TUNING.gap) looks.shift()
  const inUse = [...new Set(looksIn(looks, now - TUNING.window).flatMap(({ active }) => [...active.keys()]))]
  if (inUse.length === 0) return false
  const rows = await linksToTune(db.read, inUse, now - TUNING.window, LINKS_PER_ROUND)
  const rses = await storages.all()
  const due = rows
    .map(row => linkOf(row, rses))
    .filter(link => link.maximum > 0 && (isIdle(link, now) || isSeen(link, looks)))
  if (due.length === 0) return false
  const raised = await decide(db, due, looks, now)
  if (raised.length > 0) wake.notify('queue')
  return rows.length === LINKS_PER_ROUND
}

/** This server has looked often enough since the window began; else another may have. */
function isSeen({ measuredAt }: LinkToTune, looks: readonly Look[]): boolean {
  return looksIn(looks, measuredAt ?? 0).length >= TUNING.looks
}

async function decide(
  db: Context['db'],
  due: readonly LinkToTune[],
  looks: readonly Look[],
  now: number,
): Promise<number[]> {
  const minutes = await minutesSince(
    db.read,
    due.map(link => ({ linkId: link.id, minute: minuteToRead(link, now) })),
  )
  const most = 2 * Math.max(...due.map(({ maximum }) => maximum))
  const queued = await countQueued(
    db.read,
    due.map(({ id }) => id),
    most,
  )
  const all = due.map((link): Tuned => {
    const own = minutes.get(link.id) ?? []
    const { measuredAt, state } = link
    if (isIdle(link, now) || measuredAt === undefined || state === undefined) return beginMeasuring(link, own, now)
    const since = looksIn(looks, measuredAt)
    const seen = {
      active: averageActive(since, link.id),
      full: partFull(since, link.id, Math.min(link.learnt, link.maximum)),
      queued: queued.get(link.id) ?? 0,
      minutes: own,
    }
    return tuned({ ...link, measuredAt, state }, seen, now)
  })
  return db.write(executor => storeTuned(executor, all, now))
}

function linkOf(row: TunedRow, rses: readonly Rse[]): LinkToTune {
  const { max_active, max_outbound, max_inbound, preferred_mode, mode_tries } = row
  const source = rses.find(({ id }) => id === row.source_rse_id)
  const destination = rses.find(({ id }) => id === row.destination_rse_id)
  return {
    id: row.id,
    learnt: row.learnt_active,
    maximum: Math.min(max_active, max_outbound, max_inbound),
    measuredAt: row.measured_at ?? undefined,
    state: stateFrom(row.state),
    mode: preferred_mode === null ? undefined : { preferred: preferred_mode, tries: mode_tries ?? 0 },
    bothModes: source?.protocols[0]?.canPush === true && destination?.protocols[0]?.canPull === true,
  }
}

async function prune({ db }: Context, now: number): Promise<void> {
  const beyond = await decisionsBeyond(db.read)
  await db.write(executor => pruneDecisions(executor, now - KEPT_DECISIONS.ms, beyond))
}
