#!/usr/bin/env node
import process from 'node:process'
import { Command } from 'commander'
import { type ExitStatus, tellFailure } from '../cli/failure.ts'
import { addPeopleCommands } from '../cli/program.ts'
import { systemClock } from '../shared/runtime/clock.ts'
import { environment } from '../shared/runtime/environment.ts'
import { createLogger } from '../shared/runtime/logger.ts'
import { flushed, systemTerminal } from '../shared/runtime/terminal.ts'
import { version } from '../shared/runtime/version.ts'
import { addServiceCommands } from './services.ts'

/** The `waybill` command: composed from the rooms. */
const program = new Command('waybill')
  .description('Replication rules and HTTP third-party copies with narrow tokens')
  .version(version)
  .configureOutput({ writeOut: text => systemTerminal.out(text), writeErr: text => systemTerminal.err(text) })
  .exitOverride()

addServiceCommands(program)
addPeopleCommands(program, {
  terminal: systemTerminal,
  environment,
  clock: systemClock,
  log: createLogger('waybill', 'warn'),
  userId: process.geteuid?.() ?? 0,
})

let status: ExitStatus = 0
try {
  await program.parseAsync()
} catch (error) {
  status = tellFailure(error, systemTerminal)
}
await flushed()
// A command is over when it is done: connections kept for a next request must not keep its caller waiting.
process.exit(status)
