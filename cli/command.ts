import type { Command } from 'commander'
import type { Client } from '../shared/contract/client.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Environment } from '../shared/runtime/environment.ts'
import type { Logger } from '../shared/runtime/logger.ts'
import type { Terminal } from '../shared/runtime/terminal.ts'
import type { StorageClient } from '../shared/storage/types.ts'
import { openConnection, personsToken } from './connection.ts'
import { Output } from './output.ts'

/** What commands are given from outside. */
export interface Tools {
  readonly terminal: Terminal
  readonly environment: Environment
  readonly clock: Clock
  readonly log: Logger
  /** The effective user id. */
  readonly userId: number
}

/** What a command works with. */
export interface Context {
  readonly client: Client
  readonly storage: StorageClient
  readonly output: Output
  readonly terminal: Terminal
  readonly clock: Clock
}

export interface CommandSpec<Options> {
  /** `add <name>`. */
  readonly usage: string
  readonly summary: string
  readonly options?: (command: Command) => Command
  /** What follows `waybill`, one for each line. */
  readonly examples: readonly string[]
  /** `args` are the words in the order of `usage`; commander has seen to their number. */
  readonly run: (context: Context, args: string[], options: Options) => Promise<void>
}

interface ConnectionFlags {
  readonly server?: string
  readonly ca?: string
  readonly json?: true
}

/** Adds a command that talks to the rules server, and answers it: it has the same three options everywhere, and examples in its help. */
export function addCommand<Options = object>(parent: Command, tools: Tools, spec: CommandSpec<Options>): Command {
  const { environment, terminal, clock, log, userId } = tools
  const command = parent.command(spec.usage).description(spec.summary)
  spec.options?.(command)
  command
    .option('--server <url>', 'the rules server (or WAYBILL_URL)')
    .option('--ca <path>', 'CA certificates to believe too: a file or a directory (or WAYBILL_CA)')
    .option('--json', 'print JSON: one object, or one for each line of a list')
    .addHelpText('after', ['\nExamples:', ...spec.examples.map(example => `  $ waybill ${example}`)].join('\n'))
    .action(async () => {
      const flags = command.opts<ConnectionFlags>()
      const connection = openConnection({
        server: serverUrl(flags.server ?? environment.WAYBILL_URL),
        ca: flags.ca ?? (environment.WAYBILL_CA || undefined),
        token: () => personsToken(environment, userId),
        clock,
        log,
      })
      const output = new Output(terminal, flags.json === true)
      try {
        await spec.run({ ...connection, output, terminal, clock }, command.args, command.opts() as Options)
      } finally {
        connection.close()
      }
    })
  return command
}

/** A word on the command line that cannot be meant: exit status 2. */
export class UsageError extends WaybillError {
  constructor(message: string) {
    super('USAGE', message, { status: 400 })
    this.name = 'UsageError'
  }
}

function serverUrl(given: string | undefined): string {
  if (given === undefined || given === '') throw new UsageError('which server? give --server or set WAYBILL_URL')
  // The token goes along: never without TLS.
  if (!URL.canParse(given) || new URL(given).protocol !== 'https:') {
    throw new UsageError(`${given} is not the URL of a server, e.g. https://waybill.example.org`)
  }
  return given
}
