import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { type Command, Option } from 'commander'
import { firstPort, wholeNumber } from '../cli/values.ts'
import { readServerConfig, serverConfigSchema } from '../server/config.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { type ConfigSources, flagsOf } from '../shared/runtime/config.ts'
import { environment } from '../shared/runtime/environment.ts'
import { createLogger, LOG_LEVELS, type LogLevel } from '../shared/runtime/logger.ts'
import { systemRandom } from '../shared/runtime/random.ts'
import { systemTerminal } from '../shared/runtime/terminal.ts'
import { readWorkerConfig, workerConfigSchema } from '../worker/config.ts'
import { addDemoCommand } from './demo/command.ts'
import { runUntilSignal } from './run.ts'

/** The commands that stay: each room is loaded only when it is meant. */
export function addServiceCommands(program: Command): void {
  addDemoCommand(program)
  addServerCommand(program)
  addWorkerCommand(program)
  addSandboxCommand(program)
  addMigrateCommand(program)
}

const CONFIG_HELP = `
Each setting is a flag, else an environment variable (--listen-port is WAYBILL_LISTEN_PORT), else a key of the YAML file
(listen: { port: ... }), else its default. Lists and secrets are for the file and the environment only.`

function addServerCommand(program: Command): void {
  const command = program.command('server').description('run the rules server')
  addSettings(command, flagsOf(serverConfigSchema(readSecretFile)))
    .addHelpText('after', `${CONFIG_HELP}\n\nExamples:\n  $ waybill server --config /etc/waybill/server.yaml`)
    .action(async () => {
      const config = readServerConfig(sourcesOf(command), readSecretFile)
      const runtime = runtimeOf('server', config.logLevel)
      const { runServer } = await import('../server/main.ts')
      await runUntilSignal(() => runServer(config, runtime), { ...runtime, ...config })
    })
}

function addWorkerCommand(program: Command): void {
  const command = program
    .command('worker')
    .description('run a transfer worker: it needs outbound HTTPS and nothing else')
  addSettings(command, flagsOf(workerConfigSchema(readSecretFile, hostname())))
    .addHelpText(
      'after',
      `${CONFIG_HELP}\n\nExamples:\n  $ waybill worker --config /etc/waybill/worker.yaml --concurrency 128`,
    )
    .action(async () => {
      const config = readWorkerConfig(sourcesOf(command), readSecretFile, hostname())
      const runtime = runtimeOf('worker', config.logLevel)
      const { runWorker } = await import('../worker/main.ts')
      // The worker keeps the deadline itself, to hand back what it holds; this one is for when it cannot.
      const shutdownSeconds = config.shutdownSeconds + 10
      await runUntilSignal(() => runWorker(config, runtime), { ...runtime, shutdownSeconds })
    })
}

interface SandboxFlags {
  readonly dir: string
  readonly portBase: number
  readonly part?: string
  readonly tokenLifetime?: number
  readonly logLevel: LogLevel
}

function addSandboxCommand(program: Command): void {
  const command = program
    .command('sandbox')
    .description(
      'run an embedded issuer and embedded storages, for trying and testing; D/sandbox.json says how to use them',
    )
    .requiredOption('--dir <directory>', 'where everything of it lives')
    .option('--port-base <n>', 'port of the issuer; the storages follow; 0 takes free ones', firstPort, 0)
    .option('--part <name>', 'only this part: issuer, or a storage’s name')
    .option('--token-lifetime <seconds>', 'life of access tokens', wholeNumber)
    .addOption(new Option('--log-level <level>').choices(LOG_LEVELS).default('info'))
    .addHelpText('after', '\nExamples:\n  $ waybill sandbox --dir /tmp/sandbox --port-base 8600')
    .action(async () => {
      const { logLevel, ...options } = command.opts<SandboxFlags>()
      const runtime = runtimeOf('sandbox', logLevel)
      const { sandboxCommand } = await import('../sandbox/main.ts')
      const start = async () => {
        const running = await sandboxCommand(options, runtime)
        runtime.log.info({ directory: running.sandbox.directory, issuer: running.sandbox.issuer }, 'the sandbox runs')
        return running
      }
      await runUntilSignal(start, { ...runtime, shutdownSeconds: 10 })
    })
}

function addMigrateCommand(program: Command): void {
  const command = program.command('migrate').description('bring the database of the rules server to this version')
  addSettings(command, flagsOf(serverConfigSchema(readSecretFile)))
    .addHelpText('after', `${CONFIG_HELP}\n\nExamples:\n  $ waybill migrate --config /etc/waybill/server.yaml`)
    .action(async () => {
      const config = readServerConfig(sourcesOf(command), readSecretFile)
      const { openDatabase } = await import('../server/database/open.ts')
      const db = openDatabase(config.database)
      try {
        await db.migrate()
      } finally {
        await db.close()
      }
      systemTerminal.out('the database is of this version\n')
    })
}

function addSettings(command: Command, flags: ReturnType<typeof flagsOf>): Command {
  command.option('--config <file>', 'YAML file (or WAYBILL_CONFIG)')
  for (const { flag, description } of flags) command.option(`--${flag} <value>`, description)
  return command
}

/** What was said where. Throws `CONFIG_INVALID` when the file cannot be read. */
function sourcesOf(command: Command): ConfigSources {
  const { config, ...given } = command.opts<Record<string, string>>()
  const flags = Object.fromEntries(Object.entries(given).map(([name, value]) => [kebab(name), value]))
  const name = config ?? environment.WAYBILL_CONFIG
  if (name === undefined) return { flags, environment }
  try {
    return { flags, environment, file: { name, text: readFileSync(name, 'utf8') } }
  } catch {
    throw new WaybillError('CONFIG_INVALID', `${name} cannot be read; check path and rights`)
  }
}

/** commander makes `listenPort` of `--listen-port`. */
function kebab(name: string): string {
  return name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
}

function readSecretFile(path: string): string {
  return readFileSync(path, 'utf8')
}

function runtimeOf(name: string, level: LogLevel) {
  return { clock: systemClock, random: systemRandom, log: createLogger(name, level), environment }
}
