import { execFileSync } from 'node:child_process'
import { geteuid } from 'node:process'
import { fileURLToPath } from 'node:url'
import type { Context } from 'mocha'
import { environment } from '../../shared/runtime/environment.ts'
import { systemTerminal } from '../../shared/runtime/terminal.ts'

/** The real components that `npm run setup` installs: the first column of setup.sh. */
export type Component =
  | 'xrootd'
  | 'davix'
  | 'gfal2'
  | 'rclone'
  | 'curl'
  | 'openssl'
  | 'postgresql'
  | 'prometheus'
  | 'parallel'

/** Seen from dist/test/interop. */
const SETUP = fileURLToPath(new URL('../../../test/interop/setup.sh', import.meta.url))

/**
 * To be called first in a `before` or a test: `requireComponents(this, ['xrootd', 'curl'])`. Where one is missing the suite or test
 * is skipped with a hint; with CI=true that is an error, never a skip.
 */
export function requireComponents(context: Context, wanted: readonly Component[]): void {
  const missing = missingOf(wanted)
  if (missing.length === 0) return
  const hint = `missing: ${missing.join(', ')}`
  if (environment.CI === 'true') throw new Error(hint)
  systemTerminal.err(`skipped, ${hint}\n`)
  context.skip()
}

/** Whether a suite for it is worth declaring: with CI=true it is, and fails where the component is missing. */
export function isWanted(component: Component): boolean {
  return environment.CI === 'true' || missingOf([component]).length === 0
}

function missingOf(wanted: readonly Component[]): string[] {
  const absent = absentComponents()
  const missing = wanted
    .filter(component => absent.has(component))
    .map(component => `${component} (\`npm run setup\` as root on Debian installs it)`)
  // XRootD runs as a user of its own, in a mount namespace of its own: both take root.
  if (wanted.includes('xrootd') && geteuid?.() !== 0) missing.push('root (XRootD runs as a user of its own)')
  return missing
}

let absent: Set<string> | undefined

function absentComponents(): Set<string> {
  absent ??= new Set(execFileSync('bash', [SETUP, '--missing'], { encoding: 'utf8' }).split('\n').filter(Boolean))
  return absent
}
