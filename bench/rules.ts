import { systemClock } from '../shared/runtime/clock.ts'
import { benchDatabases, describeDatabases } from './databases.ts'
import { type Filled, fillCatalogue } from './filled.ts'
import { around, growth, number, runBench, spreadOf, timeOf } from './harness.ts'
import { type Site, startSite } from './site.ts'

/** Files below the rule's container, and how often. */
const SIZES = [
  { files: 10_000, rounds: 5 },
  { files: 100_000, rounds: 3 },
]
const LONG = [
  { files: 500_000, rounds: 1 },
  { files: 1_000_000, rounds: 1 },
]
const WARM_FILES = 10_000
const BOUND =
  'INSERTs of transfers (31 % of the time), replicas (23 %) and locks (9 %), of which most is the check of their references, row by row (auto_explain)'
/** Memory: 400 MB. */
const GOALS = { growth: 1.05, filesPerSecond: 8_000, othersP99: 100, answeredMs: 200, memoryMiB: 381, doubling: 2 }
/** What somebody else asks for meanwhile, with a pause after each: reads, and one small write of four. */
const PAUSE_MS = 10
const [SOURCE, DESTINATION] = ['SITE-A', 'SITE-B'] as const

await runBench(
  {
    name: 'rules',
    measures:
      'From a rule on a container to the queued transfers of all its files: a server process, asked over https, and what others wait for it meanwhile.',
    notCovered:
      'Several servers; rules for several copies and storages that hold some of the files; many rules at once; workers that claim meanwhile; a catalogue much larger than the rule.',
  },
  async bench => {
    describeDatabases(bench)
    bench.condition('datasets of 1,000 files in one container, one source, one copy; one database holds all rounds')
    const rules = bench.table(
      'Rules',
      'database',
      'files',
      'answered after ms',
      'first transfer queued after ms',
      'all queued after s',
      'files a second',
      'peak memory MiB',
    )
    const others = bench.table('Requests of others meanwhile, ms', 'database', 'rule of', 'requests', 'median', 'p99')
    for (const database of benchDatabases) {
      const site = await startSite(database)
      await expand(site, await fillCatalogue(site.world, SOURCE, 'warm', WARM_FILES))
      const idle = await latencies(site, () => systemClock.sleep(5_000))
      others.row(database.name, 'none', ...shown(idle))
      const grown: { size: number; ms: number }[] = []
      for (const { files, rounds } of [...SIZES, ...(bench.long ? LONG : [])]) {
        const taken: Expanded[] = []
        const waits: number[] = []
        await site.forgetPeak()
        for (let round = 0; round < rounds; round += 1) {
          bench.progress(`${database.name}: ${number(files)} files, round ${round + 1}`)
          const filled = await fillCatalogue(site.world, SOURCE, `files${files}r${round}`, files)
          waits.push(...(await latencies(site, async () => taken.push(await expand(site, filled)))))
          bench.progress(`all queued after ${number(taken.at(-1)?.allMs ?? 0)} ms`)
        }
        const all = spreadOf(taken.map(({ allMs }) => allMs))
        const rate = spreadOf(taken.map(({ allMs }) => (files * 1000) / allMs))
        const memory = await site.peakMemory()
        rules.row(
          database.name,
          number(files),
          around(spreadOf(taken.map(({ answeredMs }) => answeredMs))),
          around(spreadOf(taken.map(({ firstMs }) => firstMs))),
          around(spreadOf(taken.map(({ allMs }) => allMs / 1000)), 2),
          around(rate),
          number(memory),
        )
        others.row(database.name, number(files), ...shown(waits))
        grown.push({ size: files, ms: all.median })
        const where = `${database.name}, ${number(files)} files`
        const bound = database.name === 'PostgreSQL' ? { bound: BOUND } : {}
        bench.goal({ what: where, reached: rate.median, atLeast: GOALS.filesPerSecond, unit: 'a second', ...bound })
        const answered = spreadOf(taken.map(({ answeredMs }) => answeredMs)).median
        bench.goal({ what: `${where}: answered after`, reached: answered, atMost: GOALS.answeredMs, unit: 'ms' })
        bench.goal({ what: `${where}: peak memory`, reached: memory, atMost: GOALS.memoryMiB, unit: 'MiB' })
        const p99 = spreadOf(waits).p99
        bench.goal({ what: `${where}: p99 of others`, reached: p99, atMost: GOALS.othersP99, unit: 'ms' })
      }
      const what = `${database.name}: exponent of growth`
      bench.goal({ what, reached: growth(grown), atMost: GOALS.growth, digits: 2 })
      const [half, whole] = LONG.map(({ files }) => grown.find(({ size }) => size === files)?.ms)
      if (half !== undefined && whole !== undefined) {
        const doubled = `${database.name}: twice the files, ${number(LONG[0]?.files ?? 0)} and ${number(LONG[1]?.files ?? 0)}`
        bench.goal({ what: doubled, reached: whole / half, atMost: GOALS.doubling, unit: 'times as long', digits: 2 })
      }
      await site.stop()
    }
  },
)

interface Expanded {
  readonly answeredMs: number
  readonly firstMs: number
  readonly allMs: number
}

async function expand({ house, world }: Site, { scope, files }: Filled): Promise<Expanded> {
  const mark = await world.number('SELECT coalesce(max(id), 0) AS n FROM transfers')
  const began = systemClock.monotonic()
  const since = (): number => systemClock.monotonic() - began
  const { items } = await house.client.addRules({
    body: { dids: [`${scope}:all`], copies: 1, expression: DESTINATION },
  })
  const answeredMs = since()
  const id = items[0]?.id ?? 0
  const once = async (sql: string, pause: number): Promise<number> => {
    while ((await world.rows(sql, { id, mark })).length === 0) await systemClock.sleep(pause)
    return since()
  }
  const firstMs = await once('SELECT id FROM transfers WHERE id > :mark AND :id > 0 LIMIT 1', 5)
  const allMs = await once("SELECT id FROM rules WHERE id = :id AND stage = 'EXPANDED' AND :mark >= 0", 20)
  const queued = await world.number("SELECT count(*) AS n FROM transfers WHERE id > :mark AND state = 'QUEUED'", {
    mark,
  })
  if (queued < files) throw new Error(`only ${queued} of ${files} transfers are queued`)
  return { answeredMs, firstMs, allMs }
}

/** Of the requests that somebody else makes, one after the other, while `work` goes on. */
async function latencies({ house: { client } }: Site, work: () => Promise<unknown>): Promise<number[]> {
  const did = { scope: 'warm', name: 'd0' }
  const others = [
    () => client.listTransfers({ query: { limit: 100 } }),
    () => client.getDid({ params: did }),
    () => client.listRules(),
    () => client.addDids({ body: { dids: [{ did: 'others:small', type: 'DATASET' }] } }),
  ]
  const times: number[] = []
  let over = false
  const asking = (async () => {
    for (let i = 0; !over; i += 1) {
      const ask = others[i % others.length]
      if (ask !== undefined) times.push(await timeOf(ask))
      await systemClock.sleep(PAUSE_MS)
    }
  })()
  try {
    await work()
  } finally {
    over = true
    await asking
  }
  return times
}

function shown(times: readonly number[]): [string, string, string] {
  const spread = spreadOf(times)
  return [number(times.length), around(spread, 1), number(spread.p99, 1)]
}
