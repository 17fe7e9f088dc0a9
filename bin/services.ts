import { hostname } from 'node:os'
import { type Command, Option } from 'commander'
import { firstPort, given, wholeNumber } from '../cli/values.ts'
import { readServerConfig, serverConfigSchema } from '../server/config.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { flagsOf } from '../shared/runtime/config.ts'
import { environment } from '../shared/runtime/environment.ts'
import { createLogger, LOG_LEVELS, type LogLevel } from '../shared/runtime/logger.ts'
import { systemRandom } from '../shared/runtime/random.ts'
import { readWorkerConfig, workerConfigSchema } from '../worker/config.ts'
import { addSettings, CONFIG_HELP, readSecretFile, sourcesOf } from './configured.ts'
import { addDatabaseCommands } from './database.ts'
import { addDemoCommand } from './demo/command.ts'
import { type PlayFlags, playOptions, playsOf } from './playing.ts'
import { runUntilSignal } from './run.ts'

/** The commands that stay: each room is loaded only when it is meant. */
export function addServiceCommands(program: Command): void {
  addDemoCommand(program)
  addServerCommand(program)
  addWorkerCommand(program)
  addSandboxCommand(program)
  addDatabaseCommands(program)
}

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
    // `worker list --server` is the subcommand's.
    .enablePositionalOptions()
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

interface SandboxFlags extends PlayFlags {
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
  playOptions(command)
    .addHelpText(
      'after',
      '\nExamples:\n  $ waybill sandbox --dir /tmp/sandbox --port-base 8600\n  $ waybill sandbox --dir /tmp/sandbox --play SITE-B=dcache --tape SITE-C --quota SITE-B=10M',
    )
    .action(async () => {
      const { logLevel, dir, portBase, part, tokenLifetime, ...plays } = command.opts<SandboxFlags>()
      const options = { dir, portBase, ...given({ part, tokenLifetime }), storages: playsOf(plays) }
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

function runtimeOf(name: string, level: LogLevel) {
  return { clock: systemClock, random: systemRandom, log: createLogger(name, level), environment }
}
