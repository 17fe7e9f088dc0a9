import { join } from 'node:path'
import process from 'node:process'
import { openConnection } from '../../cli/connection.ts'
import { prepareSandbox, type Sandbox, storageNamed } from '../../sandbox/main.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { systemTerminal, type Terminal } from '../../shared/runtime/terminal.ts'
import { type PlayFlags, playArguments, playsOf } from '../playing.ts'
import { stopRequest } from '../run.ts'
import { Children, WAYBILL } from './children.ts'
import { type ManagerToken, managerToken } from './manager-token.ts'
import { demandPorts } from './ports.ts'
import { type Settings, writeSettings } from './settings.ts'
import { tellStory } from './story.ts'

export interface DemoOptions {
  readonly directory: string
  /** End after the story, instead of serving on. */
  readonly exit: boolean
  readonly files: number
  readonly portBase: number
  /** The summary as JSON is all that goes out; what is told meanwhile goes beside it. */
  readonly json: boolean
  /** How the storages behave. */
  readonly plays: PlayFlags
}

const clock = systemClock
const log = silentLogger
const BESIDE: Terminal = { out: systemTerminal.err, err: systemTerminal.err, interactive: false }

/** Everything on one machine, as separate processes. Throws when the story does not end well; nothing runs any more then. */
export async function runDemo({ directory, exit, files, portBase, json, plays: flags }: DemoOptions): Promise<void> {
  const terminal = json ? BESIDE : systemTerminal
  const say = (text: string): void => terminal.out(`${text}\n`)
  const interrupted = stopRequest({ shutdownSeconds: 60, clock, log }).then(() => 'interrupted' as const)
  await demandPorts(directory, portBase)
  const sandbox = await prepareSandbox({ dir: directory, portBase })
  const plays = playsOf(flags)
  for (const name of plays.keys()) storageNamed(sandbox, name)
  const settings = await writeSettings(sandbox)
  const ca = sandbox.authority.caFile
  const http = createGotClient({ trust: createTrust({ path: ca, defaultRoots: false, clock, log }) })
  const children = new Children({ logs: join(sandbox.directory, 'logs'), clock, tell: say })
  const over = new AbortController()
  const run = async (): Promise<void> => {
    await startParts({ children, sandbox, settings, http, flags })
    const manager = await managerToken(sandbox, settings.api, http, clock)
    void manager.keepFresh(over.signal)
    say(`Issuer, ${sandbox.storages.length} storages, server and worker run; logs are in ${sandbox.directory}/logs`)
    // What is played may keep the rule from ever being OK: that is to be looked into meanwhile.
    if (plays.size > 0 && !exit) say(`${talkText(sandbox, settings, manager)}\n`)
    const connection = openConnection({ server: settings.api, ca, token: async () => manager.current(), clock, log })
    const story = { ...connection, sandbox, plays, clock, terminal, files }
    try {
      const summary = await tellStory(story)
      if (json) systemTerminal.out(`${JSON.stringify(summary)}\n`)
    } catch (error) {
      // Where faults are played it may end otherwise, and be looked into.
      if (exit || plays.size === 0 || !(error instanceof WaybillError)) throw error
      say(error.message)
    }
    connection.close()
    if (exit) return
    say(whereText(sandbox, settings, manager))
    await interrupted
  }
  try {
    const ended = await Promise.race([run(), interrupted])
    if (ended === 'interrupted' && exit) throw new WaybillError('DEMO_INTERRUPTED', 'interrupted before the end')
  } finally {
    over.abort()
    await children.stop()
    http.close()
  }
}

interface Parts {
  readonly children: Children
  readonly sandbox: Sandbox
  readonly settings: Settings
  readonly http: HttpClient
  readonly flags: PlayFlags
}

async function startParts({ children, sandbox, settings, http, flags }: Parts): Promise<void> {
  const { directory, issuer, storages } = sandbox
  const answers = (url: string, wanted?: number) => async (): Promise<boolean> => {
    try {
      const response = await http.request({ method: 'GET', url })
      await response.text(1_000_000)
      return wanted === undefined || response.status === wanted
    } catch {
      return false
    }
  }
  const sandboxPart = (part: string, url: string, wanted?: number): Promise<void> =>
    children.start(
      part === 'issuer' ? part : `storage-${part}`,
      ['sandbox', '--dir', directory, '--part', part, '--log-level', 'warn', ...playArguments(flags)],
      answers(url, wanted),
    )
  await Promise.all([
    sandboxPart('issuer', `${issuer}/.well-known/openid-configuration`, 200),
    ...storages.map(({ name, url }) => sandboxPart(name, url)),
    children.start('server', ['server', '--config', settings.serverConfig], answers(`${settings.api}/readyz`, 200)),
    children.start('worker', ['worker', '--config', settings.workerConfig], answers(settings.workerMetrics, 200)),
  ])
}

function whereText(sandbox: Sandbox, settings: Settings, manager: ManagerToken): string {
  return `
It serves on, until Ctrl-C:
  API             ${settings.api}
  documentation   ${settings.api}/docs
  metrics         ${settings.serverMetrics}  ${settings.workerMetrics}

${talkText(sandbox, settings, manager)}`
}

/** The command by its path: what is found under its name elsewhere may be another one, or none. */
function talkText(sandbox: Sandbox, settings: Settings, manager: ManagerToken): string {
  const { caFile } = sandbox.authority
  return `To talk to it from another terminal, in whatever directory:
  export WAYBILL_URL=${settings.api} WAYBILL_CA=${quoted(caFile)} BEARER_TOKEN_FILE=${quoted(manager.file)}
  alias waybill=${quoted(`${quoted(process.execPath)} ${quoted(WAYBILL)}`)}
  waybill status
  waybill rule list`
}

/** For a shell. */
function quoted(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}
