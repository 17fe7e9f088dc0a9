import { nextLimit } from '../../server/transfers/optimizer.ts'
import {
  keptLimit,
  type OptimizerCode,
  type OptimizerDecision,
  type OptimizerState,
} from '../../server/transfers/optimizer-decision.ts'
import type { LinkWindow } from '../../server/transfers/throughput.ts'

/** A link as it is at some time. */
export interface LinkShape {
  /** Seconds of a file that do not depend on its size. */
  readonly overhead: number
  /** Bytes a second of one stream. */
  readonly stream: number
  /** Bytes a second, and files a second, that it carries at most. */
  readonly bytesPerSecond: number
  readonly filesPerSecond: number
  /** What is lost beyond the best: 0.5 means that twice as many carry a third less. */
  readonly penalty: number
  /** Mean size of its files, and how they scatter (the deviation of the logarithm). */
  readonly size: number
  readonly scatter: number
  /** Failures of all attempts once it is overloaded by a half. */
  readonly failing?: number
}

/** What happens to it in one window. */
export interface Conditions {
  readonly shape: LinkShape
  /** Work there is: so many transfers can run at most. */
  readonly demand: number
  readonly outage: false | 'failing' | 'hanging'
}

/** Seconds that a file takes where nothing else runs. */
function alone({ overhead, stream, size }: LinkShape): number {
  return overhead + size / stream
}

export function bestOf(shape: LinkShape): number {
  return Math.max(1, alone(shape) * ceiling(shape))
}

function ceiling({ bytesPerSecond, filesPerSecond, size }: LinkShape): number {
  return Math.min(filesPerSecond, bytesPerSecond / size)
}

/** Files a second with so many at a time, without noise. */
export function rateAt(shape: LinkShape, active: number): number {
  const over = Math.max(0, active / bestOf(shape) - 1)
  const rate = Math.min(active / alone(shape), ceiling(shape)) / (1 + shape.penalty * over)
  return rate * (1 - failuresAt(shape, active))
}

function failuresAt(shape: LinkShape, active: number): number {
  const over = Math.max(0, active / bestOf(shape) - 1)
  return (shape.failing ?? 0) * Math.min(1, 2 * over)
}

/** Numbers from a seed (mulberry32): the same for the same seed. */
export function seeded(seed: number): { uniform(): number; normal(): number } {
  let state = seed
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())
  return { uniform, normal }
}

type Chance = ReturnType<typeof seeded>

interface Copy {
  size: number
  /** What is left of it: 1 at its start. */
  left: number
  took: number
  willFail: boolean
}

export interface SimulatedLink {
  /** Lets one window pass with this limit. */
  pass(limit: number, conditions: Conditions): LinkWindow
}

export const WINDOW_SECONDS = 60

/**
 * `noise`: the deviation of what the link carries from one window to the next; `kept`: how much of it goes on in the
 * next.
 */
export function simulatedLink(seed: number, noise: number, kept = 0): SimulatedLink {
  const chance = seeded(seed)
  let deviation = 0
  const copies: Copy[] = []
  return {
    pass(limit, conditions) {
      deviation = kept * deviation + Math.sqrt(1 - kept * kept) * noise * chance.normal()
      const carried = Math.max(0.2, 1 + deviation)
      const most = Math.min(limit, conditions.demand)
      const queued = Math.max(0, conditions.demand - limit)
      const isShort = alone(conditions.shape) < WINDOW_SECONDS / 20
      const sums = isShort ? many(chance, conditions, most, carried) : few(chance, copies, conditions, most, carried)
      return { length: WINDOW_SECONDS * 1_000, queued, ...sums }
    },
  }
}

type Sums = Omit<LinkWindow, 'length' | 'queued'>

const IDLE: Sums = { files: 0, bytes: 0, milliseconds: 0, squaredSeconds: 0, failures: 0, active: 0, full: 0 }

/** Files that take no time beside a window: only their number counts. */
function many(chance: Chance, { shape, outage }: Conditions, most: number, carried: number): Sums {
  if (outage === 'failing') return { ...IDLE, failures: most * 20, active: most }
  if (outage === 'hanging' || most === 0) return { ...IDLE, active: most }
  const attempts = Math.round(rateAt({ ...shape, failing: 0 }, most) * carried * WINDOW_SECONDS)
  const failures = Math.round(attempts * failuresAt(shape, most))
  const files = attempts - failures
  const mean = Math.max(0.1, 1 + (chance.normal() * shape.scatter) / Math.sqrt(Math.max(1, files)))
  const milliseconds = attempts === 0 ? 0 : (most * WINDOW_SECONDS * 1_000 * files) / attempts
  const squaredSeconds = files === 0 ? 0 : (milliseconds / 1_000) ** 2 / files
  return {
    files,
    bytes: Math.round(files * shape.size * mean),
    milliseconds,
    squaredSeconds,
    failures,
    active: most,
    full: 0,
  }
}

/** Files that outlast a window: each by itself, in steps of two seconds. */
function few(chance: Chance, copies: Copy[], { shape, outage }: Conditions, most: number, carried: number): Sums {
  const sums = { ...IDLE }
  const step = 2
  if (outage === 'failing') sums.failures += copies.splice(0).length + most * 2
  for (let second = 0; second < WINDOW_SECONDS; second += step) {
    while (outage !== 'failing' && copies.length < most) {
      copies.push({
        size: sizeOf(chance, shape),
        left: 1,
        took: 0,
        willFail: chance.uniform() < failuresAt(shape, most),
      })
    }
    const running = outage === 'failing' ? most : copies.length
    sums.active += (running * step) / WINDOW_SECONDS
    // Of what one does alone, that much remains to it beside the others.
    const slowed = (rateAt({ ...shape, failing: 0 }, running) / (running / alone(shape))) * carried
    for (const copy of copies) {
      copy.took += step * 1_000
      if (outage === false) copy.left -= (step * slowed) / (shape.overhead + copy.size / shape.stream)
    }
    for (const copy of copies.filter(({ left }) => left <= 0)) {
      copies.splice(copies.indexOf(copy), 1)
      if (copy.willFail) sums.failures += 1
      else {
        sums.files += 1
        sums.bytes += copy.size
        sums.milliseconds += copy.took
        sums.squaredSeconds += (copy.took / 1_000) ** 2
      }
    }
  }
  return sums
}

/** Log-normal, with the shape's mean. */
function sizeOf(chance: Chance, { size, scatter }: LinkShape): number {
  return Math.round(size * Math.exp(scatter * chance.normal() - (scatter * scatter) / 2))
}

export interface Step {
  readonly decision: OptimizerDecision
  readonly conditions: Conditions
  /** Decisions so far that came to a verdict: not those that waited for files to end. */
  readonly verdicts: number
}

export interface Play {
  readonly seed: number
  readonly windows: number
  /** By window. */
  readonly maximum?: number | ((window: number) => number)
  readonly start?: number
  readonly noise?: number
  readonly kept?: number
}

const WAITS: ReadonlySet<OptimizerCode> = new Set(['TOO_FEW_FILES', 'TAKING_EFFECT', 'NO_INFORMATION'])

/** The optimizer at a simulated link; its state goes through JSON, as it does through the database. */
export function play(at: (window: number) => Conditions, options: Play): Step[] {
  const { seed, windows, maximum = 100, start = 4, noise = 0.1, kept = 0 } = options
  const link = simulatedLink(seed, noise, kept)
  const steps: Step[] = []
  let limit = start
  let state: OptimizerState | undefined
  let verdicts = 0
  for (let number = 0; number < windows; number += 1) {
    const conditions = at(number)
    const most = typeof maximum === 'number' ? maximum : maximum(number)
    const window = link.pass(Math.min(limit, most), conditions)
    const decision = nextLimit({ limit, maximum: most, window, state })
    if (!WAITS.has(decision.code)) verdicts += 1
    steps.push({ decision, conditions, verdicts })
    state = JSON.parse(JSON.stringify(decision.state)) as OptimizerState
    limit = keptLimit(state)
  }
  return steps
}

/** How much of what the link carries at best it carries at the limit that was learnt: 1 is all. */
export function shareLearnt({ decision, conditions: { shape } }: Step, maximum = 100): number {
  return rateAt(shape, decision.state.learnt) / rateAt(shape, Math.min(maximum, bestOf(shape)))
}

/** The same at the limit in force, trials included. */
export function shareInForce({ decision, conditions: { shape } }: Step, maximum = 100): number {
  return rateAt(shape, decision.limit) / rateAt(shape, Math.min(maximum, bestOf(shape)))
}
