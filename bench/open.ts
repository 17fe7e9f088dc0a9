import { systemClock } from '../shared/runtime/clock.ts'
import { type House, startHouse } from '../test/house/house.ts'
import { until } from '../test/house/until.ts'
import { type Bench, number, runBench } from './harness.ts'
import type { InstantStorage, StorageState } from './instant-storage.ts'
import { cpuMsOf, memoryOf, Processes, startPart } from './processes.ts'
import { addStorage, registerFiles } from './rule-rounds.ts'

const COPIES = 10_000
const FILE = { bytes: 10_000_000_000, adler32: '10000001' }
const BOUND =
  'memory that is not Waybill’s: 43 kB of each are a plain https.request of Node 20 with this answer open (8 of heap, the rest OpenSSL and the buffers of its TLS socket; 57 where the TLS session is not resumed). The HTTP client adds 7 kB of heap and the running attempt 14 (heap snapshot: promises, contexts and listeners, none above a kilobyte), and the rest is what V8 keeps free beside its heap'
const GOALS = { kilobytesEach: 64, delayP99Ms: 50 }
/** How many begin at once: 10,000 handshakes take longer together than each may. */
const STEP = 250
/** After the last COPY was begun, until the burst of beginnings is over. */
const SETTLED_MS = 10_000
const PATIENCE_MS = 60_000

await runBench(
  {
    name: 'open',
    measures: 'What a worker takes for 10,000 COPYs that are open at once and send a marker every 5 s.',
    notCovered:
      'copies that begin and end meanwhile; more storages than one; the storages; connections over a network.',
  },
  async bench => {
    const seconds = bench.long ? 300 : 45
    bench.condition(
      `${number(COPIES)} COPYs over TLS, a connection each, to one storage, begun ${STEP} at a time; figures of ${seconds} s after all were open; SQLite; the worker is a process of its own`,
    )
    await measure(bench, seconds)
  },
)

async function measure(bench: Bench, seconds: number): Promise<void> {
  const processes = new Processes()
  const house = await startHouse({ launch: processes, worker: { concurrency: COPIES, shutdownSeconds: 1 } })
  const storage = startPart<InstantStorage | 'open-copies', StorageState>('instant-storage')
  try {
    const { port } = await storage.ask({ ...house.sandbox.authority, ...FILE, copies: 'never' })
    for (const name of ['FROM', 'TO'])
      await addStorage(house, name, { url: `https://localhost:${port}`, prefix: `/${name.toLowerCase()}` })
    await limitLink(house, 0)
    await registerFiles(house, 'FROM', 'open', COPIES, COPIES, () => FILE)
    const { metricsPort = 0 } = await house.startWorker()
    const [worker = 0] = processes.workers
    await systemClock.sleep(5_000)
    await delayP99Ms(house, metricsPort)
    const idle = memoryOf(worker)

    const began = systemClock.monotonic()
    await house.client.addRules({ body: { dids: ['exp:open'], copies: 1, expression: 'TO' } })
    for (let wanted = STEP; wanted <= COPIES; wanted += STEP) {
      await limitLink(house, wanted)
      await until(
        () => storage.ask('open-copies'),
        ({ open }) => open === wanted,
        PATIENCE_MS,
      )
    }
    const ramp = (systemClock.monotonic() - began) / 1000
    await systemClock.sleep(SETTLED_MS)
    const whileOpening = await delayP99Ms(house, metricsPort)

    const cpu = cpuMsOf([worker])
    await systemClock.sleep(seconds * 1000)
    const delay = await delayP99Ms(house, metricsPort)
    const share = (cpuMsOf([worker]) - cpu) / seconds / 10
    const memory = memoryOf(worker)
    const { open } = await storage.ask('open-copies')
    if (open !== COPIES) throw new Error(`only ${open} copies are open after ${seconds} s`)

    const kilobytesEach = (memory - idle) / COPIES / 1000
    const table = bench.table('One worker', 'figure', 'measured')
    table.row('memory (RSS) with no COPY', `${number(idle / 1e6)} MB`)
    table.row(`memory with ${number(COPIES)} open`, `${number(memory / 1e6)} MB`)
    table.row('memory of each', `${number(kilobytesEach, 1)} kB`)
    table.row('event-loop delay, p99, all open', `${number(delay, 1)} ms`)
    table.row('event-loop delay, p99, while they begin', `${number(whileOpening, 1)} ms`)
    table.row('CPU, all open', `${number(share, 1)} % of a core`)
    table.row(`from the rule until all ${number(COPIES)} were open`, `${number(ramp, 1)} s`)
    bench.goal({
      what: 'memory of each COPY',
      reached: kilobytesEach,
      atMost: GOALS.kilobytesEach,
      unit: 'kB',
      digits: 1,
      bound: BOUND,
    })
    bench.goal({ what: 'event-loop delay, p99', reached: delay, atMost: GOALS.delayP99Ms, unit: 'ms', digits: 1 })
  } finally {
    await house.stop()
    await storage.stop()
  }
}

async function limitLink({ client }: House, maxActive: number): Promise<void> {
  await client.setDistance({ params: { source: 'FROM', destination: 'TO' }, body: { maxActive, optimize: false } })
}

/** Of the time since it was asked last; of a timer that is due every 10 ms, those included. */
async function delayP99Ms({ http }: House, metricsPort: number): Promise<number> {
  const answer = await http.request({ method: 'GET', url: `http://127.0.0.1:${metricsPort}/metrics` })
  const line = /^waybill_nodejs_eventloop_lag_p99_seconds (\S+)$/m.exec(await answer.text(1_000_000))
  return Number(line?.[1]) * 1000
}
