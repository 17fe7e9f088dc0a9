import { type ClientOptions, listAll } from '../shared/contract/client.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { AUDIENCE } from '../test/house/house.ts'
import { benchDatabases, describeDatabases } from './databases.ts'
import { fillQueue } from './filled.ts'
import { around, type Bench, number, runBench, type Spread, spreadOf, timeOf } from './harness.ts'
import { type Site, startSite } from './site.ts'

const REGISTRATION = { filesPerCall: 10_000, calls: 12, warm: 2 }
/** The server of a SQLite file waits 5 s for another writer. */
const FILLED_AT_ONCE = 50_000
const LISTED = { short: 100_000, long: 1_000_000 }
/** Rules on single files, by callers that each wait for their answer. */
const SUBMISSIONS = { callers: [1, 10], rules: 400, warm: 20 }
const GOALS = { registered: 10_000, memoryGrowth: 1.25 }
const [SOURCE, DESTINATION] = ['SITE-A', 'SITE-B'] as const

await runBench(
  {
    name: 'api',
    measures:
      'Registering replicas in bulk, listing transfers as NDJSON, submitting rules: a server process, asked over https.',
    notCovered:
      'Several servers; networks slower than loopback; registrations at several storages at once; the client takes its share of the same cores.',
  },
  async bench => {
    describeDatabases(bench)
    const tables = {
      registered: bench.table('Replicas registered', 'database', 'files a call', 'a second'),
      listed: bench.table(
        'Transfers listed as NDJSON',
        'database',
        'transfers',
        'a second',
        'first after ms',
        'peak memory MiB',
        'over that of a tenth',
      ),
      submitted: bench.table('Rules submitted, ms each', 'database', 'callers', 'median', 'p99', 'rules a second'),
    }
    for (const database of benchDatabases) {
      const site = await startSite(database)
      bench.progress(`${database.name}: registering`)
      const registered = await register(site)
      const { filesPerCall } = REGISTRATION
      tables.registered.row(database.name, number(filesPerCall), around(registered))
      const what = `${database.name}: replicas registered`
      bench.goal({ what, reached: registered.median, atLeast: GOALS.registered, unit: 'a second' })
      for (const callers of SUBMISSIONS.callers) {
        bench.progress(`${database.name}: submitting rules, ${callers} at once`)
        const { times, seconds } = await submit(site, callers)
        const spread = spreadOf(times)
        const rate = number(times.length / seconds)
        tables.submitted.row(database.name, `${callers}`, around(spread, 1), number(spread.p99, 1), rate)
      }
      await list(bench, tables.listed, database.name, site)
      await site.stop()
    }
  },
)

async function register({ house: { client } }: Site): Promise<Spread> {
  const { calls, warm, filesPerCall } = REGISTRATION
  const rates: number[] = []
  for (let call = 0; call < calls + warm; call += 1) {
    const dataset = `exp:bulk${call}`
    const files = Array.from({ length: filesPerCall }, (_, i) => ({
      did: `${dataset}/f${i}`,
      bytes: 1_000_000 + i,
      adler32: '03da0195',
    }))
    const ms = await timeOf(async () => {
      const { created } = await client.registerReplicas({ body: { rse: SOURCE, dataset, files } })
      if (created !== filesPerCall) throw new Error(`only ${created} files were made`)
    })
    rates.push((filesPerCall * 1000) / ms)
  }
  return spreadOf(rates, warm)
}

/** A rule for each of some files that were registered before; every caller takes the next one that nobody took. */
async function submit({ house: { client } }: Site, callers: number): Promise<{ times: number[]; seconds: number }> {
  const { rules, warm } = SUBMISSIONS
  const times: number[] = []
  let taken = 0
  let began = 0
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (taken < rules + warm) {
        const number = taken
        taken += 1
        if (number === warm) began = systemClock.monotonic()
        const body = { dids: [`exp:bulk${callers}/f${number}`], copies: 1, expression: DESTINATION }
        const ms = await timeOf(() => client.addRules({ body }))
        if (number >= warm) times.push(ms)
      }
    }),
  )
  return { times, seconds: (systemClock.monotonic() - began) / 1000 }
}

/** A tenth of them first: what that took of memory is what the whole may take. */
async function list(bench: Bench, table: { row(...cells: string[]): void }, name: string, site: Site): Promise<void> {
  const many = bench.long ? LISTED.long : LISTED.short
  const options = connection(site)
  const peaks: number[] = []
  // Not those of the rules.
  const ends = { source: DESTINATION, destination: SOURCE }
  for (const count of [many / 10, many]) {
    bench.progress(`${name}: listing ${number(count)} transfers`)
    for (let left = count - peaks.length * (many / 10); left > 0; left -= FILLED_AT_ONCE)
      await fillQueue(site.world, ends, `listed${count}-${left}`, Math.min(left, FILLED_AT_ONCE))
    await site.forgetPeak()
    let listed = 0
    let firstMs = 0
    const began = systemClock.monotonic()
    for await (const { did } of listAll(options, 'listTransfers', { query: ends })) {
      listed += 1
      if (listed === 1) firstMs = systemClock.monotonic() - began
      if (did === '') throw new Error('a transfer of nothing')
    }
    const seconds = (systemClock.monotonic() - began) / 1000
    if (listed !== count) throw new Error(`${listed} of ${count} transfers were listed`)
    peaks.push(await site.peakMemory())
    const [small = 0, large] = peaks
    const growth = large === undefined ? '' : number(large / small, 2)
    table.row(name, number(count), number(count / seconds), number(firstMs), number(peaks.at(-1) ?? 0), growth)
    if (large === undefined) continue
    const what = `${name}: memory for a list ten times as long`
    bench.goal({ what, reached: large / small, atMost: GOALS.memoryGrowth, digits: 2 })
  }
}

function connection({ house }: Site): ClientOptions {
  return { baseUrl: house.baseUrl, http: house.http, token: () => house.token('manager', AUDIENCE, ['wlcg']) }
}
