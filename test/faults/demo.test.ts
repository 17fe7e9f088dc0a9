import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { environment } from '../../shared/runtime/environment.ts'
import { until } from '../house/until.ts'

const WAYBILL = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))

/** The demo as people start it, with what it says so far. */
function startDemo(directory: string, ...args: string[]) {
  const demo = spawn(process.execPath, [WAYBILL, 'demo', '--dir', directory, ...args], { env: { ...environment } })
  const said = { text: '' }
  for (const stream of [demo.stdout, demo.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said.text += text
    })
  }
  const ended = once(demo, 'exit').then(([status]) => status as number | null)
  const hears = (words: RegExp) =>
    until(
      async () => said.text,
      text => words.test(text),
      60_000,
    )
  return { demo, said, ended, hears }
}

const pidOf = async (directory: string, name: string): Promise<number> =>
  Number(await readFile(join(directory, 'logs', `${name}.pid`), 'utf8'))

interface LogLine {
  readonly msg?: string
  readonly did?: string
  readonly destination?: string
  readonly kind?: string
  readonly result?: string
}

describe('the demo, as separate processes', function () {
  this.timeout(180_000)
  let directory: string

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-demo-test-'))
  })
  afterEach(() => rm(directory, { recursive: true, force: true }))

  it('survives kill -9 of server and worker, copies nothing twice, and shows no secret', async () => {
    const { said, ended, hears } = startDemo(directory, '--exit', '--files', '400')
    await hears(/replicas\n/)
    await until(
      async () => (await readFile(join(directory, 'logs', 'worker.log'), 'utf8')).split('"done"').length,
      attempts => attempts > 100,
    )
    process.kill(await pidOf(directory, 'server'), 'SIGKILL')
    await hears(/server ended \(SIGKILL\): it is started again/)
    process.kill(await pidOf(directory, 'worker'), 'SIGKILL')
    expect(await ended, said.text).to.equal(0)
    expect(said.text).to.contain('worker ended (SIGKILL): it is started again')
    expect(said.text).to.contain('Done: 800 replicas').and.to.contain('every adler32 was compared on disk')
    expect(said.text).to.match(/Tokens: \d+ minted, [1-9]\d* exchanged/)

    const attempts = (await readFile(join(directory, 'logs', 'worker.log'), 'utf8'))
      .split('\n')
      // What was being written when the worker was killed is no line.
      .filter(line => line.endsWith('}'))
      .map(line => JSON.parse(line) as LogLine)
      .filter(({ msg, kind, result }) => msg === 'attempt ended' && kind === 'copy' && result === 'done')
    const copied = attempts.map(({ did, destination }) => `${did} ${destination}`)
    expect(new Set(copied).size).to.equal(copied.length)

    const secrets = await secretsOf(directory)
    expect(secrets).to.have.length(4)
    for (const text of [said.text, ...(await logsOf(directory))]) {
      for (const secret of secrets) expect(text.includes(secret)).to.equal(false)
      expect(text).not.to.match(/eyJ[\w-]{10,}\.eyJ/)
    }
  })

  it('serves on until it is asked to end; nothing of it is left', async () => {
    const { demo, said, ended, hears } = startDemo(directory, '--files', '8')
    await hears(/waybill rule list/)
    const names = ['issuer', 'storage-SITE-A', 'storage-SITE-B', 'storage-SITE-C', 'server', 'worker']
    const pids = await Promise.all(names.map(name => pidOf(directory, name)))
    expect(pids.every(isAlive)).to.equal(true)
    const hint = said.text.slice(said.text.indexOf('  export WAYBILL_URL'))
    const { stdout } = await promisify(execFile)('sh', ['-c', hint], { cwd: '/' })
    expect(stdout)
      .to.match(/^version /m)
      .and.to.match(/demo:all-runs .* OK /)
    demo.kill('SIGINT')
    expect(await ended, said.text).to.equal(0)
    expect(pids.some(isAlive)).to.equal(false)
  })

  it('its storages are what they are told to be, and known as that', async () => {
    const plays = '--play SITE-B=storm --macaroons SITE-B --tape SITE-A=eos --refuse SITE-C=COPY:429:2:1'
    const { said, ended } = startDemo(directory, '--exit', '--files', '8', ...plays.split(' '))
    expect(await ended, said.text).to.equal(0)
    expect(said.text).to.match(/SITE-A stage /)
    const refused = (await readFile(join(directory, 'logs', 'worker.log'), 'utf8')).match(/COPY answered 429/g)
    expect(refused).to.have.length.within(1, 2)
  })

  it('serves on where what is played keeps its story from a good end', async () => {
    const { demo, said, ended, hears } = startDemo(directory, '--files', '8', '--refuse', 'SITE-A=PUT:507:1000')
    await hears(/It serves on/)
    demo.kill('SIGINT')
    expect(await ended, said.text).to.equal(0)
    expect(said.text).to.match(/507/)
  })

  it('takes its children along when it is killed', async () => {
    const { demo, ended, hears } = startDemo(directory, '--files', '8')
    await hears(/waybill rule list/)
    const pids = await Promise.all(['issuer', 'storage-SITE-A', 'server', 'worker'].map(name => pidOf(directory, name)))
    demo.kill('SIGKILL')
    await ended
    const left = await until(
      async () => pids.filter(isAlive),
      alive => alive.length === 0,
    )
    expect(left).to.deep.equal([])
  })
})

describe('the demo, where a port of it is taken', () => {
  it('says which, for what and what to do, and ends with status 1', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'waybill-demo-test-'))
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    try {
      const { said, ended } = startDemo(directory, '--port-base', String(port))
      expect(await ended).to.equal(1)
      expect(said.text).to.contain(`port ${port}, for the issuer, is taken`).and.to.contain('--port-base')
    } finally {
      other.close()
      await rm(directory, { recursive: true })
    }
  }).timeout(20_000)
})

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`)
}

async function secretsOf(directory: string): Promise<string[]> {
  const clients = JSON.parse(await readFile(join(directory, 'clients.json'), 'utf8')) as Record<
    string,
    { secret: string }
  >
  const token = (await readFile(join(directory, 'manager.token'), 'utf8')).trim()
  return [...Object.values(clients).map(({ secret }) => secret), token]
}

async function logsOf(directory: string): Promise<string[]> {
  const logs = join(directory, 'logs')
  const names = (await readdir(logs)).filter(name => name.endsWith('.log'))
  return Promise.all(names.map(name => readFile(join(logs, name), 'utf8')))
}
