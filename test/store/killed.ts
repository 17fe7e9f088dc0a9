import type { Database } from '../../server/database/database.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import type { World } from './world.ts'

/** A new evaluator that dies at its first transaction: before it is committed, or right after. */
export async function killedAt(world: World, when: 'before' | 'after'): Promise<void> {
  const dead = new Error('killed')
  const write: Database['write'] = async work => {
    await world.db.write(async executor => {
      await work(executor)
      if (when === 'before') throw dead
    })
    throw dead
  }
  const evaluator = ruleEvaluator({ ...world.context, db: { ...world.db, write }, log: silentLogger })
  await evaluator.start()
  await world.clock.untilSleeping()
  await evaluator.stop()
}
