import { type House, startHouse } from '../test/house/house.ts'
import type { BareResult, BareRound } from './bare-loop.ts'
import { benchDatabases, describeDatabases } from './databases.ts'
import { around, type Bench, number, runBench, type Spread, spreadOf } from './harness.ts'
import type { InstantStorage } from './instant-storage.ts'
import { cpuMsOf, type Part, Processes, startPart } from './processes.ts'
import { addStorage, moveFiles, registerFiles } from './rule-rounds.ts'

/** Slots of one worker, and requests of the bare loop, at a time. */
const CONCURRENCY = 256
const WORKERS = [1, 2, 4]
const FILES_PER_DATASET = 2_500
const FILE = { bytes: 4096, adler32: '10000001' }
const GOALS = { perSecond: 1_000, ofBareLoop: 0.6 }
const BOUND =
  'CPU, as profiles of server and worker show. All processes share two cores. The bare loop takes 0.2 to 0.25 ms of one core for each transfer, Waybill 0.2 in the server (half of it in SQLite), 0.4 to 0.6 in the worker (half of it node:http and TLS, as in the bare loop; an eighth garbage collection; more with each worker, since each has less to do at a time) and 0.06 in the storage. PostgreSQL spends 0.15 to 0.25 ms more (and the server less), most of it in foreign keys and indexes of new transfers and of claims, 0.03 in planning. For half a second from the rule on nothing moves: tokens are minted and exchanged'

interface Round {
  readonly perSecond: number
  readonly ofBareLoop: number
  readonly serverMs: number
  readonly workersMs: number
  readonly storageMs: number
}

await runBench(
  {
    name: 'orchestration',
    measures: 'Transfers a second from a rule to its last verified file, against a storage that answers at once.',
    notCovered:
      'storages that take time, bytes, other links than one; registration of the files; several servers; what the database itself costs of CPU (PostgreSQL runs beside).',
  },
  async bench => {
    const sizes = bench.long ? { files: 100_000, rounds: 3 } : { files: 20_000, rounds: 3 }
    describeDatabases(bench)
    bench.condition(
      `${number(sizes.files)} transfers a round on one link, datasets of ${number(FILES_PER_DATASET)}, ${CONCURRENCY} at a time in each worker and in the bare loop; the storage, the server, each worker and the bare loop are processes of their own on this machine`,
    )
    const table = bench.table(
      'Transfers',
      'database',
      'workers',
      'a second',
      'of the bare loop',
      'CPU ms each: server',
      'workers',
      'storage',
    )
    for (const database of benchDatabases) {
      const best = { perSecond: 0, ofBareLoop: 0 }
      for (const workers of WORKERS) {
        const rounds = await measure(bench, database, workers, sizes)
        const spread = (pick: (round: Round) => number): Spread => spreadOf(rounds.map(pick))
        const [rate, ratio] = [spread(round => round.perSecond), spread(round => round.ofBareLoop)]
        table.row(
          database.name,
          String(workers),
          around(rate),
          around(ratio, 2),
          around(
            spread(round => round.serverMs),
            2,
          ),
          around(
            spread(round => round.workersMs),
            2,
          ),
          around(
            spread(round => round.storageMs),
            2,
          ),
        )
        best.perSecond = Math.max(best.perSecond, rate.median)
        best.ofBareLoop = Math.max(best.ofBareLoop, ratio.median)
      }
      const what = `${database.name}, at the best number of workers`
      bench.goal({
        what: `${what}: transfers`,
        reached: best.perSecond,
        atLeast: GOALS.perSecond,
        unit: 'a second',
        bound: BOUND,
      })
      bench.goal({
        what: `${what}: of the bare loop`,
        reached: best.ofBareLoop,
        atLeast: GOALS.ofBareLoop,
        digits: 2,
        bound: BOUND,
      })
    }
  },
)

async function measure(
  bench: Bench,
  database: (typeof benchDatabases)[number],
  workers: number,
  { files, rounds }: { files: number; rounds: number },
): Promise<Round[]> {
  const processes = new Processes()
  const house = await startHouse({
    launch: processes,
    database: directory => database.house(directory),
    worker: { concurrency: CONCURRENCY },
  })
  const { authority } = house.sandbox
  const storage = startPart<InstantStorage, { port: number }>('instant-storage')
  const bare = startPart<BareRound, BareResult>('bare-loop')
  try {
    const { port } = await storage.ask({ ...authority, ...FILE, copies: 'at-once' })
    const url = `https://localhost:${port}`
    for (const name of ['FROM', 'TO']) await addStorage(house, name, { url, prefix: `/${name.toLowerCase()}` })
    await house.client.setDistance({
      params: { source: 'FROM', destination: 'TO' },
      body: { maxActive: 100_000, optimize: false },
    })
    for (let i = 1; i <= workers; i += 1) await house.startWorker(`worker-${i}`)
    const measured = []
    // The first round warms everything up: Node compiles what is hot, in each worker.
    for (let round = 0; round <= rounds; round += 1) {
      const ceiling = await bareRound(house, bare, url, files)
      const found = await waybillRound(house, processes, storage, `round-${round}`, files)
      const ofBareLoop = found.perSecond / ceiling
      bench.progress(
        `${database.name}, ${workers} workers: ${number(found.perSecond)} a second, bare loop ${number(ceiling)}, ${JSON.stringify(found)}`,
      )
      if (round > 0) measured.push({ ...found, ofBareLoop })
    }
    return measured
  } finally {
    await Promise.all([storage.stop(), bare.stop()])
    await house.stop()
  }
}

/** Transfers a second. */
async function bareRound(house: House, bare: Part<BareRound, BareResult>, url: string, count: number): Promise<number> {
  const token = (await house.token('server', url, ['storage.read:/', 'storage.create:/'])).reveal()
  const { seconds } = await bare.ask({
    caFile: house.sandbox.authority.caFile,
    concurrency: CONCURRENCY,
    fresh: false,
    mode: 'pull',
    source: `${url}/from/`,
    destination: `${url}/to/`,
    sourceToken: token,
    destinationToken: token,
    files: Array.from({ length: count }, (_, i) => ({ name: `f${i}`, adler32: FILE.adler32 })),
  })
  return count / seconds
}

async function waybillRound(
  house: House,
  processes: Processes,
  storage: Part<InstantStorage, { port: number }>,
  name: string,
  count: number,
): Promise<Omit<Round, 'ofBareLoop'>> {
  await registerFiles(house, 'FROM', name, count, FILES_PER_DATASET, () => FILE)
  const parts = { serverMs: processes.servers, workersMs: processes.workers, storageMs: [storage.pid] }
  const used = () => Object.entries(parts).map(([part, pids]) => [part, cpuMsOf(pids)] as const)
  const before = new Map(used())
  const seconds = await moveFiles(house, name, 'TO')
  const each = Object.fromEntries(used().map(([part, ms]) => [part, (ms - (before.get(part) ?? 0)) / count]))
  const { serverMs = 0, workersMs = 0, storageMs = 0 } = each
  return { perSecond: count / seconds, serverMs, workersMs, storageMs }
}
