import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { freeBase } from '../sandbox/ports.ts'
import type { RunningServer } from '../server/main.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { environment } from '../shared/runtime/environment.ts'
import { systemRandom } from '../shared/runtime/random.ts'
import type { Launcher } from '../test/house/house.ts'
import { until } from '../test/house/until.ts'
import type { RunningWorker } from '../worker/main.ts'

const WAYBILL = fileURLToPath(new URL('../bin/waybill.js', import.meta.url))
const START_DEADLINE_MS = 30_000

interface Started {
  readonly pid: number
  readonly log: string
  /** Ends it as a site does, and hands over what it logged. */
  stop(): Promise<void>
}

/**
 * One server and any number of workers, each a process of its own, as a site runs them. Their logs go to files, and are looked at
 * when they end: whoever reads them meanwhile costs what is to be measured. `BENCH_PROFILE=DIRECTORY` writes CPU profiles there.
 */
export class Processes implements Launcher {
  /** Process numbers of those that run. */
  readonly servers = new Set<number>()
  readonly workers = new Set<number>()

  async server(file: object, onLog: (line: string) => void): Promise<RunningServer> {
    const started = await start('server', file, onLog)
    this.servers.add(started.pid)
    const port = await portIn(started)
    return {
      port,
      metricsPort: undefined,
      stop: async () => {
        this.servers.delete(started.pid)
        await started.stop()
      },
    }
  }

  async worker(file: object, onLog: (line: string) => void): Promise<RunningWorker> {
    const metricsPort = await freeBase(1, systemRandom)
    const started = await start('worker', { ...file, metrics: { host: '127.0.0.1', port: metricsPort } }, onLog)
    this.workers.add(started.pid)
    await until(
      () => isListening(metricsPort),
      listens => listens,
      START_DEADLINE_MS,
    )
    return {
      metricsPort,
      stop: async () => {
        this.workers.delete(started.pid)
        await started.stop()
      },
    }
  }
}

async function start(name: 'server' | 'worker', file: object, onLog: (line: string) => void): Promise<Started> {
  const directory = await mkdtemp(join(tmpdir(), `waybill-${name}-`))
  const [config, log] = [join(directory, 'config.yaml'), join(directory, 'log')]
  // JSON is YAML.
  await writeFile(config, JSON.stringify(file))
  const output = await open(log, 'w')
  const { BENCH_PROFILE } = environment
  const profile = BENCH_PROFILE === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${BENCH_PROFILE}/${name}`]
  const child = spawn(process.execPath, [...profile, WAYBILL, name, '--config', config], {
    env: Object.fromEntries(Object.entries(environment).filter(([key]) => !key.startsWith('WAYBILL_'))),
    stdio: ['ignore', 'inherit', output.fd],
  })
  await output.close()
  endWithThisProcess(child)
  if (child.pid === undefined) throw new Error(`the ${name} could not be started`)
  return {
    pid: child.pid,
    log,
    async stop() {
      await end(child, 'SIGTERM')
      for (const line of (await readFile(log, 'utf8')).split('\n')) onLog(line)
      await rm(directory, { recursive: true })
    },
  }
}

/** The port that the server says it takes requests at. */
async function portIn({ pid, log }: Started): Promise<number> {
  const deadline = systemClock.monotonic() + START_DEADLINE_MS
  while (systemClock.monotonic() < deadline && isRunning(pid)) {
    const line = (await readFile(log, 'utf8'))
      .split('\n')
      .find(text => text.includes('the rules server takes requests'))
    if (line !== undefined) return (JSON.parse(line) as { port: number }).port
    await systemClock.sleep(50)
  }
  throw new Error(`the server did not start: ${await readFile(log, 'utf8')}`)
}

/** A part of a bench that runs for itself: messages in order, each answered by one. */
export interface Part<Message, Answer> {
  readonly pid: number
  ask(message: Message): Promise<Answer>
  stop(): Promise<void>
}

/** Starts a module of this directory, which answers each message of its parent by one of its own. */
export function startPart<Message extends object | string, Answer>(module: string): Part<Message, Answer> {
  const child = fork(fileURLToPath(new URL(`${module}.js`, import.meta.url)), {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  })
  const said: string[] = []
  if (child.stderr !== null) createInterface({ input: child.stderr }).on('line', line => void said.push(line))
  endWithThisProcess(child)
  const ended = once(child, 'exit').then(([status]) => {
    throw new Error(`${module} ended with status ${status}: ${said.slice(-20).join('\n')}`)
  })
  // Whoever asks nothing any more is not told that it has ended.
  ended.catch(() => undefined)
  return {
    pid: child.pid ?? 0,
    async ask(message) {
      const answered = once(child, 'message')
      child.send(message)
      const [answer] = await Promise.race([answered, ended])
      return answer as Answer
    },
    stop: () => end(child, 'SIGKILL'),
  }
}

/** For the module of a part: each message that its parent asks is answered with what `work` makes of it. */
export function answerParent<Message, Answer extends object>(work: (message: Message) => Promise<Answer>): void {
  process.on('message', (message: Message) => {
    work(message).then(
      answer => process.send?.(answer),
      error => {
        throw error
      },
    )
  })
}

function endWithThisProcess(child: ChildProcess): void {
  const kill = (): void => void child.kill('SIGKILL')
  process.once('exit', kill)
  child.once('exit', () => process.off('exit', kill))
}

async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Linux counts them in hundredths of a second, whatever its own clock does. */
const TICK_MS = 10

/** CPU time that these processes have used so far, in their own code and in the system for them, milliseconds. */
export function cpuMsOf(pids: Iterable<number>): number {
  let ticks = 0
  for (const pid of pids) {
    // Behind the program's name, which may hold anything: from the third field on.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
    ticks += Number(fields[11]) + Number(fields[12])
  }
  return ticks * TICK_MS
}

/** Memory that is in use now (RSS), bytes. */
export function memoryOf(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

function isListening(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => socket.end(() => resolve(true)))
  })
}
