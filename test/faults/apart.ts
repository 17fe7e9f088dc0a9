import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { RunningServer } from '../../server/main.ts'
import { environment } from '../../shared/runtime/environment.ts'
import type { RunningWorker } from '../../worker/main.ts'
import type { Launcher } from '../house/house.ts'

const WAYBILL = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))

/** Server and worker as processes of their own, as a site runs them, so that they can be killed. One of each at a time. */
export class Apart implements Launcher {
  readonly #children = new Map<string, ChildProcess>()

  /** Resolves when it takes requests. */
  server(file: object, onLog: (line: string) => void): Promise<RunningServer> {
    return new Promise((resolve, reject) => {
      let words = ''
      const listen = (line: string): void => {
        onLog(line)
        // Why it does not start is for people.
        if (!line.startsWith('{')) {
          words += ` ${line}`
          return
        }
        const { msg, port } = JSON.parse(line) as { msg?: string; port?: number }
        if (msg === 'the rules server takes requests' && port !== undefined) {
          resolve({ port, metricsPort: undefined, stop: () => this.#stop('server') })
        }
      }
      void this.#start('server', file, listen).then(child =>
        child.once('exit', status =>
          reject(new Error(`the server ended with status ${status} before it took requests:${words}`)),
        ),
      )
    })
  }

  async worker(file: object, onLog: (line: string) => void): Promise<RunningWorker> {
    await this.#start('worker', file, onLog)
    return { metricsPort: undefined, stop: () => this.#stop('worker') }
  }

  /** Its process's number. */
  pid(name: 'server' | 'worker'): number | undefined {
    return this.#children.get(name)?.pid
  }

  /** `kill -9`: it can do nothing any more. */
  kill(name: 'server' | 'worker'): Promise<void> {
    return this.#end(name, 'SIGKILL')
  }

  #stop(name: string): Promise<void> {
    return this.#end(name, 'SIGTERM')
  }

  async #start(name: 'server' | 'worker', file: object, onLog: (line: string) => void): Promise<ChildProcess> {
    const directory = await mkdtemp(join(tmpdir(), `waybill-${name}-`))
    const config = join(directory, 'config.yaml')
    // JSON is YAML.
    await writeFile(config, JSON.stringify(file))
    const child = spawn(process.execPath, [WAYBILL, name, '--config', config], {
      env: Object.fromEntries(Object.entries(environment).filter(([key]) => !key.startsWith('WAYBILL_'))),
      stdio: ['ignore', 'inherit', 'pipe'],
    })
    this.#children.set(name, child)
    child.once('exit', () => void rm(directory, { recursive: true }))
    createInterface({ input: child.stderr }).on('line', onLog)
    return child
  }

  async #end(name: string, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#children.get(name)
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }
}
