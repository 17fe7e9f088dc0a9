import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { periodic } from '../periodic.ts'
import { deleteEvents, insertEvents, noteStates, oldEvents, type RuleEventKind, rulesToNote } from './event-store.ts'
import { guarded, Pages } from './guard.ts'
import { endReplacement, type Replacement, replacementsDue } from './life-store.ts'
import { startRemoval } from './step-store.ts'
import type { RuleRow } from './store.ts'

const RULES_PER_ROUND = 100
const EVENTS_PER_ROUND = 1_000
/** What happened to a rule that is gone is kept so long. Milliseconds. */
const KEPT_MS = 365 * 86_400_000

/** What of its states stands in a rule's history; what people did to it stands there by itself. */
const NOTED: Readonly<Partial<Record<RuleRow['state'], RuleEventKind>>> = {
  OK: 'ok',
  STUCK: 'stuck',
  REPLICATING: 'replicating',
}

/**
 * Notes what became of rules, in their history: a moment later, so that a rule that comes and goes between two looks costs nothing, and
 * an outcome of a transfer no more than it did.
 */
export function ruleNoter(context: Context): Service {
  return periodic({
    ...context,
    name: 'note what became of rules',
    interval: 5_000,
    async round() {
      const found = await rulesToNote(context.db.read, RULES_PER_ROUND)
      if (found.length === 0) return false
      await context.db.write(async executor => {
        const noted = new Set(await noteStates(executor, found))
        const events = found.flatMap(({ id, state, error, locks_stuck }) => {
          const event = NOTED[state]
          if (!noted.has(id) || event === undefined) return []
          const why = { ...(error === null ? {} : { error }), ...(locks_stuck === 0 ? {} : { files: locks_stuck }) }
          return [{ rule_id: id, event, actor: null, details: event === 'stuck' ? why : {} }]
        })
        await insertEvents(executor, events, context.clock.now())
      })
      return found.length === RULES_PER_ROUND
    },
  })
}

/** Takes away rules whose replacements are OK. */
export function ruleReplacer(context: Context): Service {
  const pages = new Pages<Replacement>(RULES_PER_ROUND, (last, limit) =>
    replacementsDue(context.db.read, last?.id ?? 0, limit),
  )
  return periodic({
    ...context,
    name: 'end replaced rules',
    interval: 5_000,
    async round() {
      const { page, more } = await pages.next()
      for (const replacement of page) {
        await guarded(context, replacement.id, () =>
          context.db.write(async executor => {
            const { id, replaces } = replacement
            if (!(await endReplacement(executor, replacement))) return false
            const now = context.clock.now()
            const removed = { rule_id: replaces, event: 'removed', actor: null, details: { replacedBy: id } } as const
            await insertEvents(executor, [removed], now)
            await startRemoval(executor, replaces, now)
            return true
          }),
        )
      }
      if (page.length > 0) context.wake.notify('rules')
      return more
    },
  })
}

/** Forgets what happened to rules that are long gone, and which states the others came to long ago. */
export function ruleHistoryPruner(context: Context): Service {
  return periodic({
    ...context,
    name: 'forget old rules',
    interval: 600_000,
    async round() {
      const before = context.clock.now() - KEPT_MS
      const old = await oldEvents(context.db.read, before, EVENTS_PER_ROUND)
      if (old.length > 0) await context.db.write(executor => deleteEvents(executor, old))
      return old.length === EVENTS_PER_ROUND
    },
  })
}
