import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** The root of the project, seen from dist/test/unit. */
export const PROJECT = fileURLToPath(new URL('../../../', import.meta.url))

/** Who may import whom: a room, and the rooms or floors it may reach besides itself. docs/architecture.md says why. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  'shared/domain': [],
  'shared/runtime': ['shared/domain'],
  'shared/http': ['shared/runtime', 'shared/domain'],
  'shared/contract': ['shared/http', 'shared/runtime', 'shared/domain'],
  'shared/oidc': ['shared/http', 'shared/runtime', 'shared/domain'],
  'shared/storage': ['shared/http', 'shared/runtime', 'shared/domain'],
  migrations: [],
  server: ['shared', 'migrations'],
  worker: ['shared'],
  cli: ['shared'],
  sandbox: ['shared'],
  bin: ['shared', 'migrations', 'server', 'worker', 'cli', 'sandbox'],
  bench: ['shared', 'migrations', 'server', 'worker', 'cli', 'sandbox', 'bin', 'test'],
  test: ['shared', 'migrations', 'server', 'worker', 'cli', 'sandbox', 'bin', 'bench'],
}
const ROOMS = Object.keys(ALLOWED)
/** Packages that are not for everybody. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  knex: ['server', 'migrations', 'test', 'bench'],
  sqlite3: ['server', 'migrations', 'test', 'bench'],
  pg: ['server', 'test', 'bench'],
  'pg-connection-string': ['server'],
}

export interface Import {
  readonly from: string
  readonly to: string
}

/** Every module of the project and every import among them, types too, as the compiler itself resolved them. */
export function importsOf(directory: string): { modules: string[]; imports: Import[] } {
  const compiler = fileURLToPath(new URL('node_modules/typescript/bin/tsc', `file://${PROJECT}`))
  const options = ['--noEmit', '--incremental', 'false', '--noCheck', '--explainFiles']
  const run = spawnSync(process.execPath, [compiler, ...options], {
    cwd: directory,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  if (run.status !== 0) throw new Error(`the compiler could not list the imports: ${run.stdout}${run.stderr}`)
  return readExplanation(run.stdout)
}

/** The compiler names each file in a line of its own, then the reasons why it is there, indented. */
function readExplanation(text: string): { modules: string[]; imports: Import[] } {
  const modules: string[] = []
  const imports: Import[] = []
  let to = ''
  for (const line of text.split('\n')) {
    const from = /^\s+Imported via .* from file '([^']+)'/.exec(line)?.[1]
    if (from !== undefined) imports.push({ from, to })
    else if (/^\S/.test(line)) {
      to = line
      modules.push(line)
    }
  }
  return { modules: modules.filter(isOurs), imports: imports.filter(({ from }) => isOurs(from)) }
}

function isOurs(path: string): boolean {
  return !path.includes('node_modules/')
}

/** A sentence for each import that crosses where it may not, and for each module that stands in no room. */
export function brokenRules({
  modules,
  imports,
}: {
  modules: readonly string[]
  imports: readonly Import[]
}): string[] {
  if (modules.length === 0) return ['no module was looked at']
  const homeless = modules.filter(path => roomOf(path) === undefined).map(path => `${path} stands in no room`)
  const crossing = imports.filter(edge => !isAllowed(edge)).map(({ from, to }) => `${from} may not import ${to}`)
  return [...homeless, ...crossing].sort()
}

function isAllowed({ from, to }: Import): boolean {
  const room = roomOf(from)
  if (room === undefined) return true
  if (isOurs(to)) return [room, ...(ALLOWED[room] ?? [])].some(reach => isIn(to, reach))
  const name = /.*node_modules\/([^/]+)/.exec(to)?.[1] ?? ''
  return KEPT[name]?.includes(room) ?? true
}

function roomOf(path: string): string | undefined {
  return ROOMS.find(room => isIn(path, room))
}

function isIn(path: string, room: string): boolean {
  return path.startsWith(`${room}/`)
}
