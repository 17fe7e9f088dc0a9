import { Command } from 'commander'
import { tellFailure } from '../../cli/failure.ts'
import { addPeopleCommands } from '../../cli/program.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { AUDIENCE, type House } from './house.ts'

export interface CommandResult {
  readonly status: number
  readonly out: string
  readonly err: string
}

/** A command of people against the house's server: `line` is what follows `waybill`. As the first admin, or as another client. */
export async function runCommand(
  house: House,
  line: string,
  as: 'manager' | 'server' = 'manager',
): Promise<CommandResult> {
  const said = { out: '', err: '' }
  const terminal = {
    out: (text: string) => {
      said.out += text
    },
    err: (text: string) => {
      said.err += text
    },
    interactive: false,
  }
  const token = await house.token(as, AUDIENCE, ['wlcg'])
  const environment = {
    WAYBILL_URL: house.baseUrl,
    WAYBILL_CA: house.sandbox.authority.caFile,
    BEARER_TOKEN: token.reveal(),
  }
  const program = new Command('waybill').exitOverride()
  addPeopleCommands(program, { terminal, environment, clock: systemClock, log: silentLogger, userId: 0 })
  try {
    await program.parseAsync(line.split(' '), { from: 'user' })
    return { status: 0, ...said }
  } catch (error) {
    return { status: tellFailure(error, terminal), ...said }
  }
}
