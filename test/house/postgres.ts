import { execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { geteuid } from 'node:process'
import { promisify } from 'node:util'
import knex from 'knex'
import { freeBase } from '../../sandbox/ports.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { until } from './until.ts'

const run = promisify(execFile)

/** A real PostgreSQL of the tests' own: Debian's binaries, a cluster in a temporary directory, on loopback. */
export interface Postgres {
  /** The URL of a new database: an empty one, or a copy of the one at `template`, to which nobody is connected. */
  createDatabase(template?: string): Promise<string>
  dropDatabase(url: string): Promise<void>
  /** The same database for a role that must show a password (SCRAM). */
  guarded(url: string, password: string): Promise<string>
  /** All that stands in it, as SQL. */
  dump(url: string): Promise<string>
  /** As `kill -9` of its first process does it. */
  kill(): Promise<void>
  /** After `kill`: it recovers. */
  start(): Promise<void>
}

const GUARDED = 'guarded'
/** Characters of its log that are kept. */
const SAID_MOST = 2_000

let shared: Promise<Postgres> | undefined

/** One for all tests of this process. Without fsync: no test of its users cuts the power. */
export function sharedPostgres(): Promise<Postgres> {
  shared ??= startPostgres(['fsync=off'])
  return shared
}

/** Runs until `kill`, or until this process ends. */
export async function startPostgres(settings: readonly string[] = []): Promise<Postgres> {
  const bin = postgresBinaries()
  if (bin === undefined) throw new Error('PostgreSQL is missing: npm run setup')
  const directory = await mkdtemp(join(tmpdir(), 'waybill-postgres-'))
  const data = join(directory, 'data')
  const root = geteuid?.() === 0
  if (root) await run('chown', ['postgres:', directory])
  // It refuses to run as root, and must not outlive the tests.
  const asUser = root ? ['--reuid=postgres', '--regid=postgres', '--clear-groups'] : []
  const launch = [...asUser, '--pdeathsig=KILL', '--']
  const authentication = ['--username=waybill', '--auth=trust']
  await run(
    'setpriv',
    [...launch, join(bin, 'initdb'), '-D', data, ...authentication, '--encoding=UTF8', '--locale=C'],
    {
      cwd: directory,
    },
  )
  const rules = join(data, 'pg_hba.conf')
  await writeFile(rules, `host all ${GUARDED} 127.0.0.1/32 scram-sha-256\n${await readFile(rules, 'utf8')}`)
  const port = await freeBase(1, systemRandom)
  const place = [`port=${port}`, 'listen_addresses=127.0.0.1', `unix_socket_directories=${directory}`]
  const flags = [...place, 'max_connections=200', ...settings].flatMap(setting => ['-c', setting])
  const urlOf = (database: string): string => `postgres://waybill@127.0.0.1:${port}/${database}`
  const spawnServer = () => {
    const child = spawn('setpriv', [...launch, join(bin, 'postgres'), '-D', data, ...flags], {
      cwd: directory,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child.unref()
    const log = child.stderr as Socket
    log.unref()
    const started = { child, said: '' }
    log.on('data', chunk => {
      started.said = `${started.said}${chunk}`.slice(-SAID_MOST)
    })
    return started
  }
  let server = spawnServer()
  process.once('exit', () => {
    server.child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })
  /** False when it has ended before. */
  async function ready(): Promise<boolean> {
    const isOver = (): boolean => server.child.exitCode !== null || server.child.signalCode !== null
    const outcome = await until(
      () => execute(urlOf('postgres'), 'SELECT 1').catch(error => error),
      found => found === undefined || isOver(),
    )
    return outcome === undefined
  }
  if (!(await ready())) throw new Error(`PostgreSQL did not start: ${server.said}`)
  return {
    async createDatabase(template) {
      const name = `test_${systemRandom.uuid().replaceAll('-', '')}`
      const copy = template === undefined ? '' : `TEMPLATE ${nameOf(template)}`
      await execute(urlOf('postgres'), `CREATE DATABASE ${name} ${copy}`)
      return urlOf(name)
    },
    async dropDatabase(url) {
      await execute(urlOf('postgres'), `DROP DATABASE ${nameOf(url)} WITH (FORCE)`)
    },
    async guarded(url, password) {
      await execute(url, `CREATE ROLE ${GUARDED} LOGIN SUPERUSER PASSWORD '${password}'`)
      return url.replace('//waybill@', `//${GUARDED}@`)
    },
    async dump(url) {
      const { stdout } = await run(join(bin, 'pg_dump'), ['--data-only', url], { maxBuffer: 2 ** 30 })
      return stdout
    },
    async kill() {
      const ended = new Promise(resolve => server.child.once('exit', resolve))
      server.child.kill('SIGKILL')
      await ended
    },
    async start() {
      for (;;) {
        server = spawnServer()
        if (await ready()) return
        // Some process of its last life has not noticed yet that the first is gone [seen, 15.18].
        if (!server.said.includes('pre-existing shared memory block')) throw new Error(server.said)
      }
    },
  }
}

function nameOf(url: string): string {
  return new URL(url).pathname.slice(1)
}

/** Where Debian puts them, the newest version first. */
function postgresBinaries(): string | undefined {
  const root = '/usr/lib/postgresql'
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : []
  return versions.map(version => join(root, version, 'bin')).find(bin => existsSync(join(bin, 'initdb')))
}

async function execute(url: string, sql: string): Promise<void> {
  // Until it takes connections, each refusal would be printed.
  const silent = { warn: () => undefined, error: () => undefined, debug: () => undefined, deprecate: () => undefined }
  const connection = knex({ client: 'pg', connection: url, pool: { min: 0, max: 1 }, log: silent })
  try {
    await connection.raw(sql)
  } finally {
    await connection.destroy()
  }
}
