import { claimWork } from '../server/transfers/claim-work.ts'
import { applyOutcomes } from '../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../shared/domain/retry-policy.ts'
import { FENCE_BASE, World } from '../test/store/world.ts'
import { benchDatabases, describeDatabases } from './databases.ts'
import { fillQueue } from './filled.ts'
import { around, type Bench, number, runBench, spreadOf, timeOf } from './harness.ts'

const DEPTHS = { SQLite: [1e4, 1e5, 1e6], PostgreSQL: [1e4, 1e5] }
/** With `--long`. PostgreSQL takes minutes to get so many rows. */
const LONG = { SQLite: [], PostgreSQL: [1e6, 1e7] }
const CLAIM = 100
/** Claimers at once, and how often all of them claim. */
const CLAIMERS = [
  { claimers: 1, rounds: 150 },
  { claimers: 10, rounds: 20 },
  { claimers: 50, rounds: 5 },
]
const WARM_ROUNDS = 2
const GOAL_RATIO = 1.5

await runBench(
  {
    name: 'claims',
    measures: `Whether a claim of ${CLAIM} costs more the deeper the queue is: the look for links and the claim, as a worker's request makes them.`,
    notCovered: 'HTTP and JSON; several links and VOs; outcomes that come in meanwhile; a cache that is cold.',
  },
  async bench => {
    describeDatabases(bench)
    bench.condition(`one link, bundles of 1,000; what was claimed is handed back between two rounds, untimed`)
    const table = bench.table(
      `A claim of ${CLAIM}, in ms, all claimers at once`,
      'database',
      'claimers',
      'queued',
      'median',
      'p95',
      'claims a second',
    )
    for (const { name, open } of benchDatabases) {
      const depths = [...DEPTHS[name], ...(bench.long ? LONG[name] : [])]
      const opened = []
      for (const depth of depths) {
        bench.progress(`${name}: queueing ${number(depth)}`)
        const database = await open()
        const world = await World.make(database.db, { rses: ['A', 'B'], storageLimit: 10_000, linkLimit: 10_000 })
        await fillQueue(world, { source: 'A', destination: 'B' }, 'bench', depth)
        opened.push({ depth, world, drop: () => database.drop() })
      }
      for (const { claimers, rounds } of CLAIMERS) {
        bench.progress(`${name}: ${claimers} at once`)
        const measured = opened.map(at => ({ ...at, times: [] as number[], seconds: 0 }))
        // Depth by depth in every round: what disturbs the machine disturbs all of them.
        for (let round = -WARM_ROUNDS; round < rounds; round += 1) {
          for (const at of measured) {
            const { times, seconds } = await claimAtOnce(at.world, claimers)
            if (round < 0) continue
            at.times.push(...times)
            at.seconds += seconds
          }
        }
        const spreads = measured.map(({ times }) => spreadOf(times))
        measured.forEach(({ depth, times, seconds }, i) => {
          const spread = spreads[i] ?? spreadOf(times)
          const rate = number(times.length / seconds)
          table.row(name, `${claimers}`, number(depth), around(spread, 1), number(spread.p95, 1), rate)
        })
        judge(bench, `${name}, ${claimers} at once`, depths, spreads)
      }
      for (const { drop } of opened) await drop()
    }
  },
)

/** Milliseconds of each; then all of it is handed back. */
async function claimAtOnce(world: World, claimers: number): Promise<{ times: number[]; seconds: number }> {
  // Bundles are served in turn: the longest unserved first.
  await world.clock.advance(1)
  const sessions: number[] = []
  for (let i = 0; i < claimers; i += 1) sessions.push(await world.openSession())
  let claims: { sessionId: number; ms: number; claimed: Awaited<ReturnType<typeof claimWork>> }[] = []
  const ms = await timeOf(async () => {
    claims = await Promise.all(
      sessions.map(async sessionId => {
        let claimed: Awaited<ReturnType<typeof claimWork>> = []
        const took = await timeOf(async () => {
          claimed = await claimWork(world.context, { sessionId, fenceBase: FENCE_BASE }, CLAIM)
        })
        return { sessionId, ms: took, claimed }
      }),
    )
  })
  for (const { sessionId, claimed } of claims) {
    if (claimed.length !== CLAIM) throw new Error(`only ${claimed.length} of ${CLAIM} transfers were claimed`)
    const back = claimed.map(({ id, fence }) => ({
      transfer: id,
      fence,
      result: 'handed-back' as const,
      durationMs: 0,
      endedMsAgo: 0,
      bytes: 0,
      cleaned: false,
      left: 'nothing' as const,
    }))
    await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, sessionId, back)
  }
  return { times: claims.map(claim => claim.ms), seconds: ms / 1000 }
}

function judge(
  bench: Bench,
  where: string,
  depths: readonly number[],
  spreads: readonly { readonly p95: number }[],
): void {
  const [shallow, deep] = [spreads[0]?.p95 ?? 0, spreads.at(-1)?.p95 ?? 0]
  const what = `${where}: p95 at ${number(depths.at(-1) ?? 0)} queued, over that at ${number(depths[0] ?? 0)}`
  bench.goal({ what, reached: deep / shallow, atMost: GOAL_RATIO, digits: 2 })
}
