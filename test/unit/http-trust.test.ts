import { mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { ensureAuthority } from '../../sandbox/authority.ts'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import type { HttpClient } from '../../shared/http/client.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { ManualClock } from './http-manual-clock.ts'

/** A CA and a certificate of it for loopback, PEM. */
async function authority(directory: string): Promise<{ ca: string; cert: string; key: string }> {
  const made = await ensureAuthority(directory, { clock: systemClock, random: systemRandom })
  const [ca = '', cert = '', key = ''] = [made.caFile, made.certificateFile, made.keyFile].map(file =>
    readFileSync(file, 'utf8'),
  )
  return { ca, cert, key }
}

describe('TLS trust', () => {
  let authorities: string
  let directory: string
  let server: Server
  let url: string
  let good: Awaited<ReturnType<typeof authority>>
  let other: Awaited<ReturnType<typeof authority>>

  before(async () => {
    authorities = mkdtempSync(join(tmpdir(), 'waybill-authorities-'))
    good = await authority(join(authorities, 'good'))
    other = await authority(join(authorities, 'other'))
    server = createServer({ cert: good.cert, key: good.key }, (_request, response) => response.end('ok'))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    url = `https://localhost:${(server.address() as AddressInfo).port}/`
  })
  after(() => {
    server.close()
    server.closeAllConnections()
    rmSync(authorities, { recursive: true })
  })
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'waybill-trust-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  function write(name: string, content: string): string {
    const path = join(directory, name)
    writeFileSync(path, content)
    return path
  }

  async function ask(client: HttpClient): Promise<string> {
    try {
      return await (await client.request({ method: 'GET', url })).text(10)
    } catch (error) {
      return error instanceof Error && 'kind' in error ? String(error.kind) : String(error)
    }
  }

  async function askOnce(path: string | undefined, defaultRoots = false): Promise<string[]> {
    const clock = systemClock
    const trust = createTrust({ ...(path === undefined ? {} : { path }), defaultRoots, clock, log })
    const clients = [createGotClient({ trust }), createAgentClient({ trust, clock })]
    const answers = []
    for (const client of clients) {
      answers.push(await ask(client))
      client.close()
    }
    return answers
  }

  it('believes a CA file', async () => {
    expect(await askOnce(write('ca.crt', `${other.ca}\n${good.ca}`))).to.deep.equal(['ok', 'ok'])
  })

  it('believes a CA file beside the default roots', async () => {
    expect(await askOnce(write('ca.crt', good.ca), true)).to.deep.equal(['ok', 'ok'])
  })

  it('does not believe another CA, the default roots, or nobody', async () => {
    expect(await askOnce(write('ca.crt', other.ca))).to.deep.equal(['tls', 'tls'])
    expect(await askOnce(undefined, true)).to.deep.equal(['tls', 'tls'])
    expect(await askOnce(undefined, false)).to.deep.equal(['tls', 'tls'])
  })

  it('believes a hashed directory with links, repeats, a broken file and others beside', async () => {
    write('good.pem', good.ca)
    write('broken.pem', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    write('policy.info', 'alias = x')
    symlinkSync(join(directory, 'good.pem'), join(directory, '12345678.0'))
    symlinkSync(join(directory, 'gone.pem'), join(directory, '87654321.0'))
    expect(await askOnce(directory)).to.deep.equal(['ok', 'ok'])
  })

  it('refuses to begin without any certificate', () => {
    const options = { defaultRoots: false, clock: systemClock, log }
    expect(() => createTrust({ path: directory, ...options })).to.throw(/no CA certificate/)
    expect(() => createTrust({ path: join(directory, 'none'), ...options })).to.throw(/cannot be read/)
  })

  it('follows a changed file within a minute, and keeps the last good ones when it becomes unreadable', async () => {
    const clock = new ManualClock()
    const path = write('ca.crt', other.ca)
    const trust = createTrust({ path, defaultRoots: false, clock, log })
    const client = createAgentClient({ trust, clock: systemClock })
    expect(await ask(client)).to.equal('tls')

    writeFileSync(path, good.ca)
    utimesSync(path, 1_900_000_000, 1_900_000_000)
    await clock.advance(59_000)
    expect(await ask(client)).to.equal('tls')
    await clock.advance(1_000)
    expect(await ask(client)).to.equal('ok')

    const before = trust.secureContext()
    writeFileSync(path, readFileSync(path, 'utf8').slice(0, 40))
    await clock.advance(60_000)
    expect(trust.secureContext()).to.equal(before)
    rmSync(path)
    await clock.advance(60_000)
    expect(trust.secureContext()).to.equal(before)
    client.close()
  })
})
