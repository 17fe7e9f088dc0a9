import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import { environment } from '../../shared/runtime/environment.ts'

/** The command that this one is. */
export const WAYBILL = fileURLToPath(new URL('../waybill.js', import.meta.url))
const RESTART_MS = 500
const STOP_MS = 15_000

export interface ChildrenOptions {
  /** A log file and a file with the process id for each child. */
  readonly logs: string
  readonly clock: Clock
  readonly tell: (sentence: string) => void
}

interface Child {
  readonly name: string
  readonly args: readonly string[]
  /** Where in its log what it says begins, bytes: the rest is from earlier demos. */
  readonly logFrom: number
  process: ChildProcess
  ready: boolean
}

/**
 * The processes of the demo, each a `waybill` command. One that dies is started again. All end with this process, however
 * it ends: they see their channel to it close.
 */
export class Children {
  readonly #options: ChildrenOptions
  readonly #children: Child[] = []
  #stopping = false

  constructor(options: ChildrenOptions) {
    this.#options = options
    mkdirSync(options.logs, { recursive: true })
  }

  /** Starts `waybill ...args` and waits until `probe` says true. Throws `DEMO_CHILD_DIED` if it ends before. */
  async start(name: string, args: readonly string[], probe: () => Promise<boolean>): Promise<void> {
    const logFrom = statSync(this.#logOf(name), { throwIfNoEntry: false })?.size ?? 0
    const child: Child = { name, args, logFrom, process: this.#spawn(name, args), ready: false }
    this.#children.push(child)
    this.#watch(child)
    while (!(await probe())) {
      const { exitCode, signalCode } = child.process
      if (exitCode !== null || signalCode !== null || this.#stopping) {
        const how = signalCode === null ? '' : ` (${signalCode})`
        throw new WaybillError('DEMO_CHILD_DIED', `${name} ended while it started${how}: ${this.#lastWordsOf(child)}`)
      }
      await this.#options.clock.sleep(50)
    }
    child.ready = true
  }

  /** One after the other, the last first; what does not end in time is killed. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const child of this.#children.toReversed()) {
      const { process: running } = child
      if (running.exitCode !== null || running.signalCode !== null) continue
      const ended = once(running, 'exit')
      running.kill('SIGTERM')
      const patience = new AbortController()
      await Promise.race([ended, this.#options.clock.sleep(STOP_MS, patience.signal)])
      patience.abort()
      running.kill('SIGKILL')
      await ended
    }
  }

  #watch(child: Child): void {
    child.process.once('exit', (code, signal) => {
      if (this.#stopping || !child.ready) return
      this.#options.tell(`${child.name} ended (${signal ?? `status ${code}`}): it is started again`)
      void this.#options.clock.sleep(RESTART_MS).then(() => {
        if (this.#stopping) return
        child.process = this.#spawn(child.name, child.args)
        this.#watch(child)
      })
    })
  }

  #spawn(name: string, args: readonly string[]): ChildProcess {
    const log = openSync(this.#logOf(name), 'a', 0o600)
    const child = spawn(process.execPath, [WAYBILL, ...args], {
      stdio: ['ignore', log, log, 'ipc'],
      // A group of its own: Ctrl-C is for the demo, which ends its children in order.
      detached: true,
      // Settings in the person's environment are not meant for these.
      env: Object.fromEntries(Object.entries(environment).filter(([key]) => !key.startsWith('WAYBILL_'))),
    })
    closeSync(log)
    writeFileSync(join(this.#options.logs, `${name}.pid`), `${child.pid}\n`)
    return child
  }

  /** A command that fails says why in a sentence; all else is in its log. */
  #lastWordsOf({ name, logFrom }: Child): string {
    const log = this.#logOf(name)
    const sentence = readFileSync(log)
      .toString('utf8', logFrom)
      .split('\n')
      .findLast(line => line.startsWith('waybill: '))
    return `${sentence === undefined ? '' : `${sentence.slice('waybill: '.length)}; `}${log} has all that it said`
  }

  #logOf(name: string): string {
    return join(this.#options.logs, `${name}.log`)
  }
}
