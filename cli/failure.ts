import { CommanderError } from 'commander'
import { ApiError } from '../shared/contract/client.ts'
import { InvalidRequest } from '../shared/contract/invalid-request.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import type { Terminal } from '../shared/runtime/terminal.ts'
import { UsageError } from './command.ts'

/** 0 done, 1 failed, 2 misused. */
export type ExitStatus = 0 | 1 | 2

/** What is refused here with these codes was wrong on the command line or in the configuration. */
const MISUSES: ReadonlySet<string> = new Set([
  'CONFIG_INVALID',
  'DEMO_OTHER_PORTS',
  'INVALID',
  'NAME_INVALID',
  'SANDBOX_NO_SUCH_PART',
  'SANDBOX_NO_SUCH_STORAGE',
])

/** Says what went wrong, on standard error, and with what status the command ends. */
export function tellFailure(error: unknown, terminal: Terminal): ExitStatus {
  // commander has said what it had to say.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof UsageError) {
    terminal.err(`waybill: ${error.message}\n`)
    return 2
  }
  terminal.err(`waybill: ${error instanceof Error ? error.message : String(error)}\n`)
  if (error instanceof ApiError || error instanceof InvalidRequest) {
    for (const { field, message } of error.errors.length > 1 ? error.errors : []) {
      terminal.err(`  ${field}: ${message}\n`)
    }
  }
  if (error instanceof WaybillError) {
    const { code, field } = error
    const details = { code, field, id: error instanceof ApiError ? error.id : undefined }
    const known = Object.entries(details).filter(([, value]) => value !== undefined)
    terminal.err(`  ${known.map(([name, value]) => `${name}: ${value}`).join(', ')}\n`)
  }
  return isMisuse(error) ? 2 : 1
}

/** A server that refuses is a failure: what was written could be meant. */
function isMisuse(error: unknown): boolean {
  return error instanceof WaybillError && !(error instanceof ApiError) && MISUSES.has(error.code)
}
