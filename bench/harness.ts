import process from 'node:process'
import { parseArgs } from 'node:util'
import { systemClock } from '../shared/runtime/clock.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'

/** What a bench found. It is printed, and handed to `npm run bench` (bench/run.ts), which makes docs/benchmarks.md of all. */
export interface Report {
  /** As in `npm run bench:NAME`. */
  readonly name: string
  readonly measures: string
  readonly long: boolean
  readonly tookMs: number
  readonly conditions: readonly string[]
  readonly tables: readonly Table[]
  readonly goals: readonly JudgedGoal[]
  readonly notCovered: string
}

interface Table {
  readonly title: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

interface Goal {
  readonly what: string
  readonly reached: number
  /** One of the two. */
  readonly atLeast?: number
  readonly atMost?: number
  readonly unit?: string
  /** Of both figures; default 0. */
  readonly digits?: number
  /** What bounds it, as a profile showed: told when the goal is missed. */
  readonly bound?: string
}

interface JudgedGoal {
  readonly text: string
  readonly met: boolean
}

/** What a bench is called with. Only ratios taken in one run can be compared between machines. */
export interface Bench {
  /** `--long` was given: the sizes that take more than a few minutes. */
  readonly long: boolean
  /** Begins a table; rows are added as they are measured, cells as they are to be read. */
  table(title: string, ...columns: string[]): { row(...cells: string[]): void }
  /** Under what it was measured: databases and their settings, sizes, policies. */
  condition(text: string): void
  /** One that is missed ends the process with 1. */
  goal(goal: Goal): void
  /** A line for who waits, on standard error. */
  progress(text: string): void
}

export interface AboutBench {
  readonly name: string
  /** One sentence. */
  readonly measures: string
  readonly notCovered: string
}

/**
 * The whole of a bench's process: runs it, prints its tables, and sets the exit status: 0 when all goals were met, 1 when one
 * was missed or the bench failed, 2 when it was called with other flags than `--long`.
 */
export async function runBench(about: AboutBench, work: (bench: Bench) => Promise<void>): Promise<void> {
  const long = longForm(about.name)
  if (long === undefined) return
  const tables: { title: string; columns: string[]; rows: string[][] }[] = []
  const goals: JudgedGoal[] = []
  const conditions: string[] = []
  const began = systemClock.monotonic()
  await work({
    long,
    table(title, ...columns) {
      const rows: string[][] = []
      tables.push({ title, columns, rows })
      return { row: (...cells) => void rows.push(cells) }
    },
    condition: text => void conditions.push(text),
    goal: goal => void goals.push(judge(goal)),
    progress: text => systemTerminal.err(`${about.name}: ${text}\n`),
  })
  const tookMs = systemClock.monotonic() - began
  const report: Report = { ...about, long, tookMs, conditions, tables, goals }
  systemTerminal.out(markdown(report))
  process.exitCode = goals.every(({ met }) => met) ? 0 : 1
  process.send?.(report)
}

function longForm(name: string): boolean | undefined {
  try {
    return parseArgs({ options: { long: { type: 'boolean', default: false } } }).values.long
  } catch (error) {
    systemTerminal.err(`${error instanceof Error ? error.message : error}\nusage: npm run bench:${name} [-- --long]\n`)
    process.exitCode = 2
    return undefined
  }
}

function judge({ what, reached, atLeast, atMost, unit = '', digits = 0, bound }: Goal): JudgedGoal {
  const met = reached >= (atLeast ?? Number.NEGATIVE_INFINITY) && reached <= (atMost ?? Number.POSITIVE_INFINITY)
  const figure = (value: number): string => `${number(value, digits)}${unit === '' ? '' : ` ${unit}`}`
  const wanted = atLeast === undefined ? `at most ${figure(atMost ?? 0)}` : `at least ${figure(atLeast)}`
  const why = met || bound === undefined ? '' : `. What bounds it: ${bound}`
  return { met, text: `${met ? 'met' : 'MISSED'}: ${what}: ${figure(reached)} (goal: ${wanted})${why}` }
}

/** The report as a section of docs/benchmarks.md. */
export function markdown({ name, measures, long, tookMs, conditions, tables, goals, notCovered }: Report): string {
  const form = long ? 'long form' : 'short form'
  return [
    `## bench:${name}`,
    `${measures} (${form}, ${number(tookMs / 1000)} s)`,
    ...(conditions.length === 0 ? [] : [conditions.map(text => `- ${text}`).join('\n')]),
    ...tables.map(({ title, columns, rows }) => `${title}:\n\n${grid([columns, ...rows])}`),
    ...(goals.length === 0 ? [] : [goals.map(({ text }) => `- ${text}`).join('\n')]),
    `Not covered: ${notCovered}\n\n`,
  ].join('\n\n')
}

/** Columns of equal width, so that it can be read in a terminal too. */
function grid(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, i) => Math.max(3, ...lines.map(cells => (cells[i] ?? '').length)))
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((w, i) => (cells[i] ?? '').padEnd(w)).join(' | ')} |`
  const [head = [], ...rows] = lines
  return [line(head), line(widths.map(width => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

export interface Spread {
  readonly median: number
  /** Half of all lie between. */
  readonly low: number
  readonly high: number
  readonly p95: number
  readonly p99: number
  readonly most: number
}

/** `warm`: so many of the first aren't counted. Throws when none is left. */
export function spreadOf(values: readonly number[], warm = 0): Spread {
  const sorted = values.slice(warm).sort((a, b) => a - b)
  if (sorted.length === 0)
    throw new Error(`nothing was measured: ${values.length} values, the first ${warm} to warm up`)
  const at = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? sorted[0] ?? 0
  return { median: at(0.5), low: at(0.25), high: at(0.75), p95: at(0.95), p99: at(0.99), most: at(1) }
}

/** A median with the half that lies around it: `1,204 (1,100 to 1,300)`. */
export function around({ median, low, high }: Spread, digits = 0): string {
  return `${number(median, digits)} (${number(low, digits)} to ${number(high, digits)})`
}

export function number(value: number, digits = 0): string {
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/** Milliseconds that `work` took. */
export async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const began = systemClock.monotonic()
  await work()
  return systemClock.monotonic() - began
}

/** How time grows with size: 1 when it is proportional. The slope through the outermost points, in logarithms. */
export function growth(points: readonly { readonly size: number; readonly ms: number }[]): number {
  const [first, last] = [points[0], points.at(-1)]
  if (first === undefined || last === undefined || first.size === last.size) throw new Error('growth needs two sizes')
  return Math.log(last.ms / first.ms) / Math.log(last.size / first.size)
}
