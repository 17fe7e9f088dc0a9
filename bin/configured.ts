import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { WaybillError } from '../shared/domain/errors.ts'
import type { ConfigSources, flagsOf } from '../shared/runtime/config.ts'
import { environment } from '../shared/runtime/environment.ts'

/** What the commands that take a configuration share. */

export const CONFIG_HELP = `
Each setting is a flag, else an environment variable (--listen-port is WAYBILL_LISTEN_PORT), else a key of the YAML file
(listen: { port: ... }), else its default. Lists and secrets are for the file and the environment only.`

export function addSettings(command: Command, flags: ReturnType<typeof flagsOf>): Command {
  command.option('--config <file>', 'YAML file (or WAYBILL_CONFIG)')
  for (const { flag, description } of flags) command.option(`--${flag} <value>`, description)
  return command
}

/** What was said where; `own` are flags of the command that are no settings. Throws `CONFIG_INVALID` when the file cannot be read. */
export function sourcesOf(command: Command, own: readonly string[] = []): ConfigSources {
  const { config, ...given } = command.opts<Record<string, string>>()
  const settings = Object.entries(given).filter(([name]) => !own.includes(name))
  const flags = Object.fromEntries(settings.map(([name, value]) => [kebab(name), value]))
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

export function readSecretFile(path: string): string {
  return readFileSync(path, 'utf8')
}
