import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { Authority } from '../../sandbox/authority.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { systemTerminal } from '../../shared/runtime/terminal.ts'

/** A real XRootD with HTTP, third-party copies and SciTokens authorization, for tests: facts/http-tpc.md section 9. */
export interface XrootdOptions {
  /** Where it keeps everything. Its parents must be open to the user xrootd (mode 0711 or wider): it doesn't run as root. */
  readonly directory: string
  /** Default: one that is free. */
  readonly port?: number
  /** The CA that all test servers' certificates come from, and the certificate for `localhost`. */
  readonly authority: Authority
  /** The issuer whose tokens it takes, exactly as in their `iss`. https only. */
  readonly issuer: string
  /** Besides `https://localhost:PORT` and the `any` audience of the WLCG profile. */
  readonly audiences?: readonly string[]
  /** What it can compute, its default first. Default: adler32, md5. */
  readonly checksums?: readonly string[]
  /**
   * It issues macaroons, to the holder of the host certificate of the test's CA: its handler looks at client certificates
   * only (docs/operations.md, Storages that issue macaroons).
   */
  readonly macaroons?: boolean
  /** More lines for its configuration. */
  readonly configuration?: readonly string[]
  /** Its data lie in memory, in a file system of this size that only it has mounted. */
  readonly spaceBytes?: number
}

export interface Xrootd {
  /** `https://localhost:PORT/exp`: where the tokens' paths begin. */
  readonly url: string
  /** `https://localhost:PORT` */
  readonly audience: string
  /** The directory behind `url`. */
  readonly dataDirectory: string
  /** All that it has written to its log since it was started. */
  log(): Promise<string>
  /** Ends it and all its children. It can be started again in the same directory, with its data. */
  stop(): Promise<void>
}

const USER = 'xrootd'
const BASE_PATH = '/exp'
const SYSTEM_BUNDLE = '/etc/ssl/certs/ca-certificates.crt'
const START_DEADLINE_MS = 20_000
const STOP_DEADLINE_MS = 5_000

/**
 * Resolves when it takes requests; throws with the end of its log when it doesn't within 20 s.
 *
 * What it takes to run (seen on 5.5.3):
 * - It refuses to run as root, and a key that others may read: it gets copies that belong to its user.
 * - Its token library asks the issuer by curl, with the system's CA bundle and no way to name another: it sees a bundle with
 *   the test CA, bound over the system's in a mount namespace of its own. The host's stays as it is.
 * - `xrd.tlsca` is not optional: without it TLS does not start, and without TLS there is no COPY.
 * - Only the last of its lines `initialization completed` means that it listens.
 * - The token library keeps the issuer's keys in XDG_CACHE_HOME: a fresh one, since a test's next issuer has other keys.
 * - Its threads run under SCHED_BATCH, so that none that is woken interrupts the one that woke it: until 6.0.0 (XRootD issue
 *   2602) a checksum that is computed for a HEAD can be answered before the thread that asked for it has let go of the
 *   connection, and then two threads have it: docs/operations.md, XRootD 5.
 */
export async function startXrootd(options: XrootdOptions): Promise<Xrootd> {
  const port = options.port ?? (await freePort())
  const audience = `https://localhost:${port}`
  const paths = pathsIn(options.directory)
  await prepare(options, paths, port, audience)
  const launchIt = () => launch(paths, options.spaceBytes)
  let server = launchIt()
  let stopping = false
  /** As its systemd unit does: 5.5.3 crashes now and then under many COPYs over https (facts/http-tpc.md section 8). */
  const supervise = (): void => {
    server.process.once('exit', (_status, signal) => {
      if (stopping || signal === null) return
      systemTerminal.err(`XRootD in ${options.directory} ended by ${signal}: it is started again\n`)
      server = launchIt()
      supervise()
    })
  }
  const log = (): Promise<string> => readFile(paths.log, 'utf8')
  try {
    await initialized(server.process)
  } catch (error) {
    await stop(server)
    throw new Error(`XRootD did not start in ${options.directory}; its log ends:\n${(await log()).slice(-4000)}`, {
      cause: error,
    })
  }
  supervise()
  return {
    url: audience + BASE_PATH,
    audience,
    // Through its own mount namespace.
    dataDirectory:
      options.spaceBytes === undefined ? paths.exported : `/proc/${server.process.pid}/root${paths.exported}`,
    log,
    stop() {
      stopping = true
      return stop(server)
    },
  }
}

function pathsIn(directory: string) {
  return {
    directory,
    data: join(directory, 'data'),
    exported: join(directory, 'data', BASE_PATH),
    admin: join(directory, 'admin'),
    cache: join(directory, 'cache'),
    bundle: join(directory, 'bundle.pem'),
    ca: join(directory, 'ca.pem'),
    certificate: join(directory, 'host.pem'),
    key: join(directory, 'host.key'),
    scitokens: join(directory, 'scitokens.cfg'),
    macaroonKey: join(directory, 'macaroon.key'),
    gridmap: join(directory, 'gridmap'),
    authdb: join(directory, 'authdb'),
    configuration: join(directory, 'xrootd.cfg'),
    log: join(directory, 'xrootd.log'),
  }
}

type Paths = ReturnType<typeof pathsIn>

async function prepare(options: XrootdOptions, paths: Paths, port: number, audience: string): Promise<void> {
  for (const transient of [paths.admin, paths.cache, paths.log]) await rm(transient, { recursive: true, force: true })
  for (const directory of [paths.exported, paths.admin, paths.cache]) await mkdir(directory, { recursive: true })
  const ca = await readFile(options.authority.caFile, 'utf8')
  await writeFile(paths.ca, ca)
  await writeFile(paths.bundle, `${await readFile(SYSTEM_BUNDLE, 'utf8')}\n${ca}`)
  await writeFile(paths.certificate, await readFile(options.authority.certificateFile))
  await writeFile(paths.key, await readFile(options.authority.keyFile), { mode: 0o600 })
  const audiences = [audience, 'https://wlcg.cern.ch/jwt/v1/any', ...(options.audiences ?? [])]
  await writeFile(paths.scitokens, scitokensConfiguration(options.issuer, audiences))
  if (options.macaroons) {
    await writeFile(paths.macaroonKey, `${systemRandom.bytes(48).toString('base64')}\n`, { mode: 0o600 })
    await writeFile(paths.gridmap, '"/CN=localhost" host\n')
    await writeFile(paths.authdb, `u host ${BASE_PATH} a\n`)
  }
  await writeFile(paths.configuration, configuration(options, paths, port))
  await chmod(options.directory, 0o755)
  execFileSync('chown', ['-R', `${USER}:`, options.directory])
}

function configuration(options: XrootdOptions, paths: Paths, port: number): string {
  const checksums = options.checksums ?? ['adler32', 'md5']
  return [
    `all.export ${BASE_PATH}`,
    `oss.localroot ${paths.data}`,
    `all.adminpath ${paths.admin}`,
    `all.pidpath ${paths.admin}`,
    `xrd.port ${port}`,
    `xrd.protocol XrdHttp:${port} libXrdHttp.so`,
    `xrd.tls ${paths.certificate} ${paths.key}`,
    `xrd.tlsca certfile ${paths.ca}`,
    'http.exthandler xrdtpc libXrdHttpTPC.so',
    'http.header2cgi Authorization authz',
    'http.tlsreuse on',
    'tpc.timeout 20 20',
    `xrootd.chksum max 32 ${checksums.join(' ')}`,
    'ofs.authorize 1',
    ...(options.macaroons ? macaroonLines(paths) : [`ofs.authlib libXrdAccSciTokens.so config=${paths.scitokens}`]),
    ...(options.configuration ?? []),
    '',
  ].join('\n')
}

/** Each library is asked first and passes on what is none of its tokens: macaroons, JWTs, then certificates by `authdb`. */
function macaroonLines(paths: Paths): string[] {
  return [
    'all.sitename waybill-test',
    `macaroons.secretkey ${paths.macaroonKey}`,
    'http.exthandler xrdmacaroons libXrdMacaroons.so',
    `http.gridmap ${paths.gridmap}`,
    `acc.authdb ${paths.authdb}`,
    `ofs.authlib ++ libXrdAccSciTokens.so config=${paths.scitokens}`,
    'ofs.authlib ++ libXrdMacaroons.so',
  ]
}

function scitokensConfiguration(issuer: string, audiences: readonly string[]): string {
  return [
    '[Global]',
    `audience = ${audiences.join(', ')}`,
    '[Issuer waybill]',
    `issuer = ${issuer}`,
    `base_path = ${BASE_PATH}`,
    '',
  ].join('\n')
}

interface Launched {
  process: ChildProcess
  /** Aborts when the process has ended and its log is written. */
  ended: AbortSignal
}

/** The process is its own group's leader, and dies with this one even if this one is killed. */
function launch(paths: Paths, spaceBytes: number | undefined): Launched {
  const run = [
    ...(spaceBytes === undefined
      ? []
      : [
          `mount -t tmpfs -o size=${spaceBytes} tmpfs ${quoted(paths.data)}`,
          `install --directory --owner=${USER} --group=${USER} ${quoted(paths.data)} ${quoted(paths.exported)}`,
        ]),
    `mount --bind ${quoted(paths.bundle)} ${SYSTEM_BUNDLE}`,
    `exec chrt --batch 0 setpriv --reuid=${USER} --regid=${USER} --clear-groups --pdeathsig=KILL xrootd -c ${quoted(paths.configuration)}`,
  ]
  const child = spawn('unshare', ['--mount', 'sh', '-ec', run.join('\n')], {
    cwd: paths.directory,
    detached: true,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: paths.directory, XDG_CACHE_HOME: paths.cache },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log = createWriteStream(paths.log, { flags: 'a' })
  for (const stream of [child.stdout, child.stderr]) stream?.pipe(log, { end: false })
  const ended = new AbortController()
  child.once('close', () => log.end(() => ended.abort()))
  return { process: child, ended: ended.signal }
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** The last of the many initializations it tells of (storage, TLS, file system, ...): from here on it listens. */
const INITIALIZED = /^------ xrootd \S+:\d+ initialization (completed|failed)\.$/m

async function initialized(child: ChildProcess): Promise<void> {
  const deadline = new AbortController()
  const started = new Promise<void>((resolve, reject) => {
    let seen = ''
    const look = (chunk: Buffer): void => {
      seen = (seen + chunk.toString()).slice(-4000)
      const outcome = INITIALIZED.exec(seen)?.[1]
      if (outcome === 'completed') resolve()
      if (outcome === 'failed') reject(new Error('its initialization failed'))
    }
    child.stdout?.on('data', look)
    child.stderr?.on('data', look)
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`it ended with status ${code}`)))
  })
  const late = systemClock.sleep(START_DEADLINE_MS, deadline.signal).then(() => {
    if (!deadline.signal.aborted) throw new Error(`it was not ready after ${START_DEADLINE_MS} ms`)
  })
  try {
    await Promise.race([started, late])
  } finally {
    deadline.abort()
  }
}

async function stop({ process: { pid }, ended }: Launched): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (ended.aborted || pid === undefined) return
    process.kill(-pid, signal)
    await systemClock.sleep(STOP_DEADLINE_MS, ended)
  }
}

/** Below the ports that Linux gives to outgoing connections, so that none of those takes it before XRootD listens. */
const PORTS = { from: 10_000, to: 20_000 }

async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = PORTS.from + Math.floor(systemRandom.fraction() * (PORTS.to - PORTS.from))
    if (await isFree(port)) return port
  }
  throw new Error(`no free port from ${PORTS.from} to ${PORTS.to}`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, () => probe.close(() => resolve(true)))
  })
}
