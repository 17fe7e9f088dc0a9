import type { Command } from 'commander'
import { addAccountCommands, addTokenCommands } from './account.ts'
import { addActivityCommands } from './activity.ts'
import type { Tools } from './command.ts'
import { addDidCommands } from './did.ts'
import { addDownloadCommand } from './download.ts'
import { addImportCommand } from './import.ts'
import { addReplicaCommands } from './replica.ts'
import { addRseCommands } from './rse.ts'
import { addRuleCommands } from './rule.ts'
import { addScopeCommands } from './scope.ts'
import { addStatusCommand } from './status.ts'
import { addTransferCommands } from './transfer.ts'
import { addUploadCommand } from './upload.ts'
import { addWorkerCommands } from './worker.ts'

/** All commands of people: they need nothing but a server's URL and a token. */
export function addPeopleCommands(program: Command, tools: Tools): void {
  addStatusCommand(program, tools)
  addRuleCommands(program, tools)
  addTransferCommands(program, tools)
  addScopeCommands(program, tools)
  addDidCommands(program, tools)
  addReplicaCommands(program, tools)
  addUploadCommand(program, tools)
  addDownloadCommand(program, tools)
  addImportCommand(program, tools)
  addRseCommands(program, tools)
  addAccountCommands(program, tools)
  addTokenCommands(program, tools)
  addActivityCommands(program, tools)
  addWorkerCommands(program, tools)
}
