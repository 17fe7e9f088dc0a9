import type { WorkerPool } from '../accounts/pools.ts'
import { sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { requireRule, shownProblems } from '../rules/routes.ts'
import { grouped, ruleSentence } from '../rules/why.ts'
import { transferUnknown } from './routes.ts'
import { type Fleet, type WhyOfTransfer, whyOf } from './why-gather.ts'
import { openOfRule, voOfTransfer } from './why-store.ts'

type WhyHandlers = Pick<Handlers, 'getTransferWhy' | 'getRuleWhy'>

/** How far the queue before one transfer is counted; before each of many, less far. */
const COUNTED = { one: 10_000, each: 100 }
/** Of a rule's transfers so many are looked at. */
const LOOKED_AT = 1_000

/** Why transfers and rules wait. */
export function whyHandlers({ db, clock, storages }: Context, pools: readonly WorkerPool[]): WhyHandlers {
  const fleet = async (): Promise<Fleet> => ({ pools, rses: await storages.all() })

  return {
    async getTransferWhy({ params: { id }, caller }) {
      const voId = await voOfTransfer(db.read, id)
      if (voId === undefined || !sees(sightOf(caller), voId)) throw transferUnknown(id)
      const [found] = await whyOf(db.read, await fleet(), [id], COUNTED.one, clock.now())
      if (found === undefined) throw transferUnknown(id)
      return { did: found.did, state: found.state as 'DONE', ...viewWhy(found) }
    },
    async getRuleWhy({ params: { id }, caller }) {
      const rule = await requireRule(db.read, sightOf(caller), id)
      const open = rule.locks_replicating === 0 ? [] : await openOfRule(db.read, id, LOOKED_AT + 1)
      const looked = open.slice(0, LOOKED_AT)
      const waiting = await whyOf(db.read, await fleet(), looked, COUNTED.each, clock.now())
      return {
        id,
        did: rule.did,
        state: rule.state,
        // A lock that is REPLICATING has a transfer, or waits for a deletion.
        sentence: ruleSentence(rule, open.length > LOOKED_AT ? 0 : Math.max(0, rule.locks_replicating - open.length)),
        locks: { ok: rule.locks_ok, replicating: rule.locks_replicating, stuck: rule.locks_stuck },
        looked: waiting.length,
        more: open.length > looked.length,
        groups: grouped(waiting).map(({ example, count }) => {
          const { id: transfer, ...first } = viewWhy(example)
          return { count, ...first, transfer, example: example.did }
        }),
        problems: rule.state === 'STUCK' ? await shownProblems(db.read, storages, rule) : [],
        ...(rule.repair_at === null ? {} : { again: rule.repair_at }),
      }
    },
  }
}

function viewWhy({ id, code, sentence, figures, source, destination, again }: WhyOfTransfer) {
  return {
    id,
    code,
    sentence,
    figures: { ...figures },
    destination,
    ...(source === undefined ? {} : { source }),
    ...(again === undefined ? {} : { again }),
  }
}
