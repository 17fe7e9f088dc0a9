import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { prepareSandbox, sandboxCommand, startStorage } from '../../../sandbox/main.ts'
import { WaybillError } from '../../../shared/domain/errors.ts'
import { systemClock } from '../../../shared/runtime/clock.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { manualClock } from '../oidc-manual-clock.ts'

const DAY_MS = 24 * 3_600_000

describe('preparing a sandbox', () => {
  const runtime = { clock: systemClock, random: systemRandom, log: silentLogger }
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'waybill-prepare-'))
  })
  afterEach(() => rm(dir, { recursive: true }))

  const description = async () => JSON.parse(await readFile(join(dir, 'sandbox.json'), 'utf8'))

  it('writes all that a tool needs, for its owner only', async () => {
    await prepareSandbox({ dir, portBase: 21_500 })
    const { issuer, ca, clients, storages } = await description()
    expect(issuer).to.equal('https://localhost:21500')
    expect(new X509Certificate(await readFile(ca)).ca).to.equal(true)
    expect(Object.keys(clients)).to.deep.equal(['server', 'worker', 'manager'])
    for (const client of Object.values(clients)) expect(client).to.have.all.keys('id', 'secret')
    expect(storages).to.have.length(3)
    expect(storages[1]).to.deep.equal({
      name: 'SITE-B',
      url: 'https://localhost:21502',
      audience: 'https://localhost:21502',
      basePath: '/data',
      directory: join(dir, 'storages', 'SITE-B'),
    })
    for (const name of ['sandbox.json', 'clients.json', 'authority/ca.key', 'authority/host.key']) {
      expect((await stat(join(dir, name))).mode & 0o777, name).to.equal(0o600)
    }
  })

  it('gives a host certificate of its CA for the names of loopback', async () => {
    const { authority } = await prepareSandbox({ dir, portBase: 0 })
    const ca = new X509Certificate(await readFile(authority.caFile))
    const host = new X509Certificate(await readFile(authority.certificateFile))
    expect(host.verify(ca.publicKey)).to.equal(true)
    expect(host.checkHost('localhost')).to.equal('localhost')
    expect(host.checkIP('127.0.0.1')).to.equal('127.0.0.1')
    expect(host.checkIP('::1')).to.be.a('string')
    expect(host.ca).to.equal(false)
  })

  it('again takes what is there: CA, secrets, ports', async () => {
    await prepareSandbox({ dir, portBase: 0 })
    const before = [await description(), await readFile(join(dir, 'authority', 'host.pem'), 'utf8')]
    await prepareSandbox({ dir, portBase: 0 })
    expect([await description(), await readFile(join(dir, 'authority', 'host.pem'), 'utf8')]).to.deep.equal(before)
    await prepareSandbox({ dir, portBase: 21_500 })
    expect(await description()).to.deep.include({ issuer: 'https://localhost:21500', clients: before[0].clients })
  })

  it('by many at once gives all of them the same, and leaves nothing else', async () => {
    const sandboxes = await Promise.all(Array.from({ length: 8 }, () => prepareSandbox({ dir, portBase: 21_500 })))
    const secrets = sandboxes.map(({ clients }) => clients.server.secret.reveal())
    expect(new Set(secrets)).to.have.property('size', 1)
    expect((await description()).clients.server.secret).to.equal(secrets[0])
    expect((await readdir(dir)).sort()).to.deep.equal(['authority', 'clients.json', 'sandbox.json', 'storages'])
  })

  it('renews the host certificate before it ends, and the CA before it ends', async () => {
    const clock = manualClock(systemClock.now())
    const tools = { ...runtime, clock }
    const { authority } = await prepareSandbox({ dir, portBase: 0 }, tools)
    const both = async () => [
      await readFile(authority.caFile, 'utf8'),
      await readFile(authority.certificateFile, 'utf8'),
    ]
    const [ca, host] = await both()
    clock.advance(25 * DAY_MS)
    await prepareSandbox({ dir, portBase: 0 }, tools)
    const [sameCa, newHost] = await both()
    expect(sameCa).to.equal(ca)
    expect(newHost).to.not.equal(host)
    expect(new X509Certificate(newHost ?? '').verify(new X509Certificate(ca ?? '').publicKey)).to.equal(true)
    clock.advance(340 * DAY_MS)
    await prepareSandbox({ dir, portBase: 0 }, tools)
    expect((await both())[0]).to.not.equal(ca)
  })

  it('says so when sandbox.json is something else', async () => {
    await writeFile(join(dir, 'sandbox.json'), '{"issuer":5}')
    const error = await prepareSandbox({ dir, portBase: 0 }).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(WaybillError).and.include({ code: 'SANDBOX_UNREADABLE' })
  })

  it('starts all parts, or one, or tells which there are', async () => {
    const { sandbox, stop } = await sandboxCommand({ dir, portBase: 0, part: 'SITE-B' }, runtime)
    const a = await startStorage(sandbox, 'SITE-A')
    await a.stop()
    const taken = await startStorage(sandbox, 'SITE-B').catch((thrown: unknown) => thrown)
    expect(taken).to.include({ code: 'SANDBOX_PORT_TAKEN' })
    await stop()
    const all = await sandboxCommand({ dir, portBase: 0 }, runtime)
    await all.stop()
    const unknown = await sandboxCommand({ dir, portBase: 0, part: 'SITE-D' }, runtime).catch(
      (thrown: unknown) => thrown,
    )
    expect(unknown).to.include({ code: 'SANDBOX_NO_SUCH_PART' })
  })

  it('a storage that starts removes uploads cut off by a kill, but not those of one that is running', async () => {
    const sandbox = await prepareSandbox({ dir, portBase: 0 })
    const incoming = join(dir, 'incoming', 'SITE-A')
    await mkdir(join(incoming, 'earlier'), { recursive: true })
    await writeFile(join(incoming, 'earlier', 'draft'), 'half')
    const storage = await startStorage(sandbox, 'SITE-A')
    const [life, ...others] = await readdir(incoming)
    expect(others).to.deep.equal([])
    expect(life).to.be.a('string').and.not.equal('earlier')
    await startStorage(sandbox, 'SITE-A').catch((thrown: unknown) =>
      expect(thrown).to.include({ code: 'SANDBOX_PORT_TAKEN' }),
    )
    expect(await readdir(incoming)).to.include(life)
    await storage.stop()
  })
})
