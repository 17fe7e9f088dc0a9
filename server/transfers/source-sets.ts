import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { periodic } from '../periodic.ts'
import { repairForSources } from '../rules/step-store.ts'
import type { Rse } from '../storages/directory.ts'
import { evaluateExpression, parseExpression } from '../storages/expression.ts'
import { changedSets, lookAtTransfers, putMembers, type SourceSet, sourceSets } from './source-set-store.ts'

const SETS_PER_ROUND = 500
const TRANSFERS_PER_STEP = 1_000

/**
 * Keeps what storages an expression of sources names as their attributes are now, and lets the transfers that go by it follow. What
 * was looked at last is in memory only: several servers look at the same, and write what differs.
 */
export function sourceSetKeeper(context: Context): Service {
  const { db, storages, clock, wake } = context
  let after = 0
  return periodic({
    ...context,
    name: 'keep source sets',
    interval: 5_000,
    async round() {
      const sets = await sourceSets(db.read, after, SETS_PER_ROUND)
      after = sets.length < SETS_PER_ROUND ? 0 : (sets.at(-1)?.id ?? 0)
      const rses = await storages.all()
      for (const set of sets) {
        const named = namedBy(set, rses)
        if (isSame(set.members, named)) continue
        const now = clock.now()
        await db.write(async executor => {
          await putMembers(executor, set.id, named)
          await repairForSources(executor, set, now)
        })
        wake.notify('repairs')
      }
      let looked = false
      for (const set of await changedSets(db.read, SETS_PER_ROUND)) {
        if (await db.write(executor => lookAtTransfers(executor, set, TRANSFERS_PER_STEP, clock.now()))) looked = true
      }
      return looked || after > 0
    },
  })
}

/** A word that is no storage's name or attribute any more names nothing: a storage that is gone must not close the others. */
function namedBy({ vo_id: voId, expression }: SourceSet, rses: readonly Rse[]): number[] {
  const own = rses.filter(rse => rse.voId === voId)
  const names = evaluateExpression(parseExpression(expression).tree, own)
  return own.filter(rse => names.has(rse.name)).map(rse => rse.id)
}

function isSame(members: ReadonlySet<number>, named: readonly number[]): boolean {
  return members.size === named.length && named.every(id => members.has(id))
}
