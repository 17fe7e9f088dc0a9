import { applyOutcomes } from '../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../shared/domain/retry-policy.ts'
import { World } from '../test/store/world.ts'
import { benchDatabases, describeDatabases } from './databases.ts'
import { fillQueue } from './filled.ts'
import { around, number, runBench, spreadOf, timeOf } from './harness.ts'

const GOAL_PER_SECOND = 5_000
/**
 * What a worker hands in at once: as soon as it has 100, up to 1,000 when they come faster (worker/report.ts). The goal is
 * for the latter; in the former the commit counts for most.
 */
const REPORTS = [100, 1_000]
const BUSY = 1_000
const ROUNDS = 30
const WARM = 5

await runBench(
  {
    name: 'store',
    measures: 'How fast outcomes are applied: the store alone, on a real database.',
    notCovered:
      'HTTP, JSON and the check of requests; tokens; the workers; several servers; claims and reports at the same time; a cache that is cold.',
  },
  async bench => {
    describeDatabases(bench)
    const table = bench.table('Outcomes applied', 'database', 'in a report', 'a second')
    for (const database of benchDatabases) {
      for (const size of REPORTS) {
        bench.progress(`${database.name}, ${size} a report`)
        const { db, drop } = await database.open()
        const world = await World.make(db, { rses: ['A', 'B'], storageLimit: size, linkLimit: size })
        await fillQueue(world, { source: 'A', destination: 'B' }, 'bench', (ROUNDS + WARM) * size)
        const session = await world.openSession()
        const rates: number[] = []
        for (let round = 0; round < ROUNDS + WARM; round += 1) {
          const claimed = await world.claim(session, size)
          if (claimed.length < size) throw new Error(`only ${claimed.length} of ${size} transfers were claimed`)
          const outcomes = claimed.map(({ id, fence }) => ({
            transfer: id,
            fence,
            result: 'done' as const,
            mode: 'pull' as const,
            durationMs: 100,
            endedMsAgo: 5,
            bytes: 4096,
            cleaned: false,
            left: 'nothing' as const,
          }))
          const ms = await timeOf(async () => {
            const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
            if (answers.some(({ answer }) => answer !== 'applied')) throw new Error('an outcome was not applied')
          })
          rates.push((size * 1000) / ms)
        }
        await drop()
        const rate = spreadOf(rates, WARM)
        table.row(database.name, number(size), around(rate))
        if (size === BUSY) {
          const what = `outcomes on ${database.name}, ${number(size)} a report`
          bench.goal({ what, reached: rate.median, atLeast: GOAL_PER_SECOND, unit: 'a second' })
        }
      }
    }
  },
)
