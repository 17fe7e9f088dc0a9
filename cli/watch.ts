import type { Answer } from '../shared/contract/route.ts'
import type { Routes } from '../shared/contract/routes.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { HttpFailure } from '../shared/http/failure.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Terminal } from '../shared/runtime/terminal.ts'
import type { Context } from './command.ts'

type Rule = Answer<Routes['getRule']>

const INTERVAL_MS = 500
/** A server that restarts is waited for, so long at most. */
const PATIENCE_MS = 120_000

/** Resolves when the rule is OK; throws `RULE_STUCK` or `RULE_UNFINISHED`. `timeoutSeconds`: for ever when absent. */
export async function watchRule(context: Context, id: number | string, timeoutSeconds?: number): Promise<void> {
  const { client, clock, output, terminal } = context
  const line = new ProgressLine(terminal, clock)
  const began = clock.monotonic()
  const finished = await followRule({
    read: () => client.getRule({ params: { id } }),
    clock,
    onProgress: rule => line.show(progressText(rule)),
    ...(timeoutSeconds === undefined ? {} : { until: began + timeoutSeconds * 1000 }),
  }).finally(() => line.end())
  if (output.json) output.one(finished)
  if (finished.state === 'OK') return
  if (finished.state === 'REPLICATING') {
    throw new WaybillError('RULE_UNFINISHED', `rule ${id} is not finished after ${timeoutSeconds} s; it goes on`)
  }
  const why = finished.error ?? finished.problems?.[0]?.message ?? 'see waybill transfer list --rule'
  throw new WaybillError(`RULE_${finished.state}`, `rule ${id} is ${finished.state}: ${why}`)
}

interface FollowOptions<T> {
  readonly read: () => Promise<T>
  readonly clock: Clock
  readonly onProgress: (found: T) => void
  /** On the monotonic clock. */
  readonly until?: number
}

/** Until the rule stops replicating. */
export async function followRule(options: FollowOptions<Rule>): Promise<Rule> {
  return follow({ ...options, isDone: rule => rule.state !== 'REPLICATING' })
}

/** Looks again and again until it is done, or time is up. A server that is away for a while is waited for. */
export async function follow<T>(options: FollowOptions<T> & { readonly isDone: (found: T) => boolean }): Promise<T> {
  const { read, isDone, clock, onProgress, until = Infinity } = options
  let heardAt = clock.monotonic()
  for (;;) {
    try {
      const found = await read()
      heardAt = clock.monotonic()
      onProgress(found)
      if (isDone(found) || heardAt >= until) return found
    } catch (error) {
      if (!isPassing(error) || clock.monotonic() - heardAt > PATIENCE_MS) throw error
    }
    await clock.sleep(INTERVAL_MS)
  }
}

/** A server that restarts, or a proxy before it. */
function isPassing(error: unknown): boolean {
  return error instanceof HttpFailure || (error instanceof WaybillError && [502, 503, 504].includes(error.status))
}

export function progressText({ id, state, locks, expanded }: Rule): string {
  const total = locks.ok + locks.replicating + locks.stuck
  const done = total === 0 ? 0 : Math.floor((20 * locks.ok) / total)
  const stuck = locks.stuck === 0 ? '' : `, ${locks.stuck} stuck`
  const bar = '#'.repeat(done).padEnd(20, '.')
  return `rule ${id} ${state} [${bar}] ${locks.ok} of ${total}${expanded ? '' : ' or more'} replicas${stuck}`
}

/** Between two lines in a log, and between two drawings for a person. Milliseconds. */
const PLAIN_MS = 2000
const DRAWN_MS = 50

/** A line that redraws itself for a person; in a log, a line now and then. The last state is always shown. */
export class ProgressLine {
  readonly #terminal: Terminal
  readonly #clock: Clock
  #shown = ''
  #shownAt = Number.NEGATIVE_INFINITY
  #latest = ''

  constructor(terminal: Terminal, clock: Clock) {
    this.#terminal = terminal
    this.#clock = clock
  }

  show(text: string): void {
    this.#latest = text
    const interval = this.#terminal.interactive ? DRAWN_MS : PLAIN_MS
    if (this.#clock.monotonic() - this.#shownAt >= interval) this.#print()
  }

  /** What comes next begins on a line of its own. */
  end(): void {
    this.#print()
    if (this.#terminal.interactive && this.#shown !== '') this.#terminal.err('\n')
    this.#shown = ''
    this.#latest = ''
  }

  #print(): void {
    if (this.#latest === this.#shown) return
    this.#shown = this.#latest
    this.#shownAt = this.#clock.monotonic()
    this.#terminal.err(this.#terminal.interactive ? `\r\u001b[2K${this.#shown}` : `${this.#shown}\n`)
  }
}
