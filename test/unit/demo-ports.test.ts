import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { expect } from 'chai'
import { Children } from '../../bin/demo/children.ts'
import { demandPorts } from '../../bin/demo/ports.ts'
import { freeBase, prepareSandbox } from '../../sandbox/main.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { systemRandom } from '../../shared/runtime/random.ts'

describe('demo: its ports', () => {
  let directory: string
  let other: Server
  /** The first of seven in a row: only the third is taken. */
  let base: number
  let taken: number

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waybill-ports-'))
    base = await freeBase(7, systemRandom)
    taken = base + 2
    other = createServer().listen(taken, '127.0.0.1')
    await once(other, 'listening')
  })
  afterEach(async () => {
    if (other.listening) await once(other.close(), 'close')
    await rm(directory, { recursive: true })
  })

  const refusal = async (portBase: number): Promise<{ code?: string; message: string }> =>
    demandPorts(directory, portBase).then(
      () => ({ message: 'not refused' }),
      (error: Error) => error,
    )

  it('one that is taken is named, with its part and what to do; nothing is made', async () => {
    const { code, message } = await refusal(base)
    expect(code).to.equal('DEMO_PORT_TAKEN')
    expect(message).to.equal(
      `port ${taken}, for the storage SITE-B, is taken by another process: take another --port-base, or leave it out for free ports`,
    )
    expect(await readdir(directory)).to.deep.equal([])
  })

  it('so in a directory that was used before, where other ports are no way out', async () => {
    await prepareSandbox({ dir: directory, portBase: taken })
    const said = `port ${taken}, for the issuer, is taken by another process: end what listens there (a demo that runs in ${directory} already?), or take another --dir`
    expect(await refusal(0)).to.include({ code: 'DEMO_PORT_TAKEN', message: said })
    expect(await refusal(taken)).to.include({ code: 'DEMO_PORT_TAKEN', message: said })
    expect(await refusal(taken - 1)).to.include({
      code: 'DEMO_OTHER_PORTS',
      message: `${directory} was used with ports from ${taken} on: leave --port-base out, or take another directory`,
    })
    await once(other.close(), 'close')
    await demandPorts(directory, 0)
  })

  it('one taken while it starts is told by the part, and the demo passes it on', async () => {
    await prepareSandbox({ dir: directory, portBase: taken - 3 })
    const children = new Children({ logs: join(directory, 'logs'), clock: systemClock, tell: () => undefined })
    const args = ['sandbox', '--dir', directory, '--part', 'SITE-C']
    const started = children.start('storage-SITE-C', args, async () => false)
    const error = await started.catch((thrown: Error) => thrown)
    expect(error).to.have.property('code', 'DEMO_CHILD_DIED')
    expect(error)
      .to.have.property('message')
      .that.contains(`storage-SITE-C ended while it started: port ${taken}, for SITE-C, is taken by another process`)
      .and.contains('storage-SITE-C.log')
  }).timeout(10_000)

  it('a part that is killed while it starts is not waited for', async () => {
    const children = new Children({ logs: join(directory, 'logs'), clock: systemClock, tell: () => undefined })
    let killed = false
    const killOnce = async (): Promise<boolean> => {
      const pid = Number(await readFile(join(directory, 'logs', 'server.pid'), 'utf8'))
      if (!killed) process.kill(pid, 'SIGKILL')
      killed = true
      return false
    }
    const error = await children
      .start('server', ['sandbox', '--dir', directory], killOnce)
      .catch((thrown: Error) => thrown)
    expect(error)
      .to.have.property('message')
      .that.matches(/^server ended while it started \(SIGKILL\): .*server\.log/)
  }).timeout(10_000)
})
