import { applyOutcomes } from '../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../shared/domain/retry-policy.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { databases } from '../test/store/databases.ts'
import { World } from '../test/store/world.ts'

/**
 * The store alone, on a real database file: how fast outcomes are applied, and whether a claim costs more at a deep queue.
 * `npm run bench:store`; ends with 1 when a goal is missed. Only ratios taken in one run can be compared between machines.
 */
const GOALS = { outcomesPerSecond: 5_000, claimRatio: 1.5 }
/**
 * What a worker hands in at once: as soon as it has 100, up to 1,000 when they come faster (worker/report.ts). The goal is
 * for the latter; in the former the commit counts for most.
 */
const REPORTS = [100, 1_000]
const BUSY = 1_000
const REPORT_ROUNDS = 30
const QUEUES = { shallow: 1_000, deep: 100_000 }
const CLAIM = 100
const CLAIM_ROUNDS = 60
/** Rounds that are not counted. */
const WARM = 5
const FILES_PER_DATASET = 1_000

interface Figures {
  readonly median: number
  /** Half of all lie between. */
  readonly low: number
  readonly high: number
}

const missed: string[] = []
for (const database of databases) {
  say(`${database.name}, a file on this machine's temporary directory, every commit synced`)
  for (const size of REPORTS) await benchOutcomes(database, size)
  await benchClaims(database)
}
say(`
Not covered: HTTP, JSON and the check of requests; tokens; the workers; several servers; claims and reports at the same
time; a cache that is cold; queues beyond ${QUEUES.deep.toLocaleString('en')}; storage that is slower than this machine's.`)
for (const goal of missed) say(`MISSED: ${goal}`)
process.exitCode = missed.length === 0 ? 0 : 1

async function benchOutcomes(database: (typeof databases)[number], size: number): Promise<void> {
  const { db, drop } = await database.open()
  const world = await queueOf(db, (REPORT_ROUNDS + WARM) * size)
  const session = await world.openSession()
  const rates: number[] = []
  for (let round = 0; round < REPORT_ROUNDS + WARM; round += 1) {
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
    const began = systemClock.monotonic()
    const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    rates.push((size * 1000) / (systemClock.monotonic() - began))
    if (answers.some(({ answer }) => answer !== 'applied')) throw new Error('an outcome was not applied')
  }
  await drop()
  const figures = figuresOf(rates)
  say(
    `outcomes, ${size} a report: ${show(figures, 0)} a second${size === BUSY ? ` (goal: at least ${GOALS.outcomesPerSecond})` : ''}`,
  )
  if (size === BUSY && figures.median < GOALS.outcomesPerSecond)
    missed.push(`outcomes in reports of ${size}: ${figures.median.toFixed(0)} a second`)
}

/** Both queues in one run, in turn: what disturbs the machine disturbs both. */
async function benchClaims(database: (typeof databases)[number]): Promise<void> {
  const opened = await Promise.all([database.open(), database.open()])
  const [shallow, deep] = [await queueOf(opened[0].db, QUEUES.shallow), await queueOf(opened[1].db, QUEUES.deep)]
  const times = { shallow: [] as number[], deep: [] as number[] }
  for (let round = 0; round < CLAIM_ROUNDS + WARM; round += 1) {
    times.shallow.push(await timeOfClaim(shallow))
    times.deep.push(await timeOfClaim(deep))
  }
  await Promise.all(opened.map(({ drop }) => drop()))
  const figures = { shallow: figuresOf(times.shallow), deep: figuresOf(times.deep) }
  const ratio = figures.deep.median / figures.shallow.median
  say(`a claim of ${CLAIM} at ${QUEUES.shallow.toLocaleString('en')} queued: ${show(figures.shallow, 2)} ms`)
  say(`a claim of ${CLAIM} at ${QUEUES.deep.toLocaleString('en')} queued: ${show(figures.deep, 2)} ms`)
  say(`ratio ${ratio.toFixed(2)} (goal: at most ${GOALS.claimRatio})`)
  if (ratio > GOALS.claimRatio) missed.push(`a claim at the deep queue takes ${ratio.toFixed(2)} times as long`)
}

/** The look for links and the claim, as a worker's request makes them; then all of it is handed back. */
async function timeOfClaim(world: World): Promise<number> {
  const session = await world.openSession()
  const began = systemClock.monotonic()
  const claimed = await world.claim(session, CLAIM)
  const took = systemClock.monotonic() - began
  if (claimed.length !== CLAIM) throw new Error(`only ${claimed.length} of ${CLAIM} transfers were claimed`)
  const back = claimed.map(({ id, fence }) => ({
    transfer: id,
    fence,
    result: 'handed-back' as const,
    durationMs: 0,
    endedMsAgo: 0,
    bytes: 0,
    cleaned: false,
    left: 'unknown' as const,
  }))
  await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, back)
  return took
}

/** So many transfers from A to B, queued, in datasets that have their tokens. */
async function queueOf(db: World['db'], transfers: number): Promise<World> {
  const world = await World.make(db, { rses: ['A', 'B'], storageLimit: 1_000_000, linkLimit: 1_000_000 })
  for (let made = 0; made < transfers; made += FILES_PER_DATASET) {
    const name = `d${made}`
    await world.dataset(name, Math.min(FILES_PER_DATASET, transfers - made), 'A')
    await world.addRule(name, 'B', 1)
  }
  await world.evaluate()
  await world.grantAll()
  return world
}

function figuresOf(values: readonly number[]): Figures {
  const sorted = values.slice(WARM).sort((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
  return { median: at(0.5), low: at(0.25), high: at(0.75) }
}

function show({ median, low, high }: Figures, digits: number): string {
  return `median ${median.toFixed(digits)}, half of them between ${low.toFixed(digits)} and ${high.toFixed(digits)}`
}

function say(line: string): void {
  systemTerminal.out(`${line}\n`)
}
