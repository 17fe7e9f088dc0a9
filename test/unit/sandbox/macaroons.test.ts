import { createHmac } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import {
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
} from '../../../sandbox/main.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { macaroonPackets } from '../../../shared/storage/macaroon-packets.ts'
import { type ManualClock, manualClock } from '../oidc-manual-clock.ts'
import { Fixture, type Reply } from './fixture.ts'

const CONTENT = 'Wikipedia'

describe('macaroons of the embedded storage', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let running: RunningStorage
  let site: StorageDescription
  let clock: ManualClock

  const runtime = () => ({ clock, random: systemRandom, log: silentLogger })
  const open = () => startStorage(fixture.sandbox, 'SITE-A', { behaviour: { macaroons: true } }, runtime())
  beforeEach(async () => {
    fixture = await Fixture.create()
    clock = manualClock()
    issuer = await startIssuer(fixture.sandbox, { tokenLifetime: 3600 }, runtime())
    site = fixture.storage('SITE-A')
    running = await open()
    for (const directory of ['ds', 'ds/sub', 'dsx']) {
      await mkdir(join(site.directory, 'data', directory), { recursive: true })
      await writeFile(join(site.directory, 'data', directory, 'f'), CONTENT)
    }
  })
  afterEach(async () => {
    await running.stop()
    await issuer.stop()
    await fixture.remove()
  })

  const call = (method: string, path: string, token: string, body?: string) =>
    fixture.call(method, `${site.url}/data${path}`, { token, ...(body === undefined ? {} : { body }) })
  const request = (path: string, token: string, body: unknown, type = 'application/macaroon-request'): Promise<Reply> =>
    fixture.call('POST', `${site.url}/data${path}`, {
      token,
      headers: { 'Content-Type': type },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
  /** What the holder of a token with this scope gets. */
  async function macaroon(scope: string, path: string, activities: string, validity = 'PT10M'): Promise<string> {
    const token = await fixture.token(scope, site.audience)
    const reply = await request(path, token, { caveats: [`activity:${activities}`], validity })
    expect(reply.status, reply.text).to.equal(200)
    return String(JSON.parse(reply.text).macaroon)
  }
  /** As any holder can: another caveat, signed with the signature so far. */
  function narrowed(token: string, caveat: string): string {
    const packets = macaroonPackets(token) ?? []
    const signature = createHmac('sha256', Buffer.from(packets.at(-1)?.[1] ?? '', 'latin1'))
      .update(caveat)
      .digest()
    return serialised([...packets.slice(0, -1), ['cid', caveat], ['signature', signature.toString('latin1')]])
  }
  function serialised(packets: readonly (readonly [string, string])[]): string {
    const texts = packets.map(([key, value]) => `${key} ${value}\n`)
    const sized = texts.map(text => `${(text.length + 4).toString(16).padStart(4, '0')}${text}`)
    return Buffer.from(sized.join(''), 'latin1').toString('base64url')
  }

  it('of a file for DOWNLOAD: it is read and looked at, and nothing else is opened', async () => {
    const token = await macaroon('storage.read:/ storage.modify:/', '/ds/f', 'DOWNLOAD')
    expect((await call('GET', '/ds/f', token)).text).to.equal(CONTENT)
    expect((await call('HEAD', '/ds/f', token)).status).to.equal(200)
    for (const [method, path, body] of [
      ['GET', '/ds/sub/f'],
      ['HEAD', '/dsx/f'],
      ['PROPFIND', '/ds'],
      ['PUT', '/ds/f', 'x'],
      ['PUT', '/ds/new', 'x'],
      ['DELETE', '/ds/f'],
      ['MKCOL', '/ds/f2'],
    ] as const) {
      expect((await call(method, path, token, body)).status, `${method} ${path}`).to.equal(403)
    }
  })

  it('of a directory for UPLOAD: new files below it, and nothing that is there', async () => {
    const token = await macaroon('storage.read:/ storage.modify:/', '/ds/', 'UPLOAD')
    expect((await call('PUT', '/ds/new', token, 'x')).status).to.equal(201)
    for (const [method, path, body] of [
      ['PUT', '/ds/f', 'x'],
      ['PUT', '/dsx/new', 'x'],
      ['GET', '/ds/f'],
      ['DELETE', '/ds/new'],
    ] as const) {
      expect((await call(method, path, token, body)).status, `${method} ${path}`).to.equal(403)
    }
    expect((await call('HEAD', '/ds/f', token)).status).to.equal(200)
  })

  it('ends with its validity, and before with the token that asked', async () => {
    const short = await macaroon('storage.read:/', '/ds/f', 'DOWNLOAD', 'PT10M')
    const token = await fixture.token('storage.read:/', site.audience)
    const reply = await request('/ds/f', token, { caveats: ['activity:DOWNLOAD'], validity: 'PT5H' })
    const long = JSON.parse(reply.text)
    expect(long.expires_in).to.equal(3600)
    clock.advance(599_000)
    expect((await call('GET', '/ds/f', short)).status).to.equal(200)
    clock.advance(1_000)
    expect((await call('GET', '/ds/f', short)).status).to.equal(401)
    expect((await call('GET', '/ds/f', long.macaroon)).status).to.equal(200)
    clock.advance(3_000_000)
    expect((await call('GET', '/ds/f', long.macaroon)).status).to.equal(401)
  })

  it('is good at the storage that issued it, as long as that runs', async () => {
    const token = await macaroon('storage.read:/', '/ds/f', 'DOWNLOAD')
    await running.stop()
    running = await open()
    expect((await call('GET', '/ds/f', token)).status).to.equal(401)
  })

  for (const [what, scope, path, activities] of [
    ['an activity', 'storage.read:/', '/ds/f', 'UPLOAD'],
    ['a directory of which the token has one file', 'storage.read:/ds/f', '/ds/', 'DOWNLOAD'],
    ['a directory above', 'storage.read:/ds', '/', 'DOWNLOAD'],
    ['a neighbour', 'storage.read:/ds', '/dsx/', 'DOWNLOAD'],
    ['what is no activity', 'storage.read:/', '/ds/', 'EVERYTHING'],
  ] as const) {
    it(`never has what the token that asks does not: ${what}`, async () => {
      const token = await fixture.token(scope, site.audience)
      const reply = await request(path, token, { caveats: [`activity:${activities}`], validity: 'PT1M' })
      expect(reply.status).to.equal(403)
    })
  }

  it('has of several activities those that the token has', async () => {
    const token = await macaroon('storage.read:/', '/ds/', 'DOWNLOAD,UPLOAD')
    expect((await call('GET', '/ds/f', token)).status).to.equal(200)
    expect((await call('PUT', '/ds/new', token, 'x')).status).to.equal(403)
  })

  it('is narrowed by its holder, and not widened', async () => {
    const token = await macaroon('storage.read:/', '/ds/', 'DOWNLOAD')
    const narrow = narrowed(token, 'path:/data/ds/sub/')
    expect((await call('GET', '/ds/sub/f', narrow)).status).to.equal(200)
    expect((await call('GET', '/ds/f', narrow)).status).to.equal(403)
    for (const caveat of ['path:/data/', 'path:/data/dsx/', 'activity:UPLOAD', 'colour:blue']) {
      expect((await call('GET', '/dsx/f', narrowed(token, caveat))).status, caveat).to.be.oneOf([401, 403])
      expect((await call('PUT', '/ds/new', narrowed(token, caveat), 'x')).status, caveat).to.be.oneOf([401, 403])
    }
    expect((await call('GET', '/ds/f', narrowed(token, 'before:2001-01-01T00:00:00Z'))).status).to.equal(401)
  })

  it('is refused when anything of it was changed or left out', async () => {
    const token = await macaroon('storage.read:/', '/ds/f', 'DOWNLOAD')
    const packets = macaroonPackets(token) ?? []
    const changes = packets.flatMap(([key, value], at) =>
      key === 'location'
        ? []
        : [
            packets.toSpliced(at, 1),
            packets.toSpliced(at, 1, [key, value.replace(/.$/s, last => (last === 'Q' ? 'R' : 'Q'))]),
          ],
    )
    expect(changes).to.have.length(10)
    for (const changed of changes) expect((await call('GET', '/ds/f', serialised(changed))).status).to.equal(401)
    expect((await call('GET', '/ds/f', serialised(packets))).status).to.equal(200)
  })

  it('gets no other', async () => {
    const token = await macaroon('storage.read:/', '/ds/', 'DOWNLOAD')
    const reply = await request('/ds/', token, { caveats: ['activity:DOWNLOAD'], validity: 'PT1H' })
    expect(reply.status).to.equal(403)
  })

  for (const [what, body, status, type] of [
    ['another type', {}, 415, 'application/json'],
    ['no JSON', '{', 400],
    ['no object', 'null', 400],
    ['no caveat', { validity: 'PT1M' }, 400],
    ['a caveat for the path', { caveats: ['activity:DOWNLOAD', 'path:/data/ds/'], validity: 'PT1M' }, 400],
    ['no validity', { caveats: ['activity:DOWNLOAD'] }, 400],
    ['days, which XRootD does not take', { caveats: ['activity:DOWNLOAD'], validity: 'P1D' }, 400],
    ['no time at all', { caveats: ['activity:DOWNLOAD'], validity: 'PT0S' }, 400],
    ['too much', { caveats: ['activity:DOWNLOAD'], validity: 'PT1M', more: 'x'.repeat(5_000) }, 413],
  ] as const) {
    it(`is not given for a request with ${what}: ${status}`, async () => {
      const token = await fixture.token('storage.read:/', site.audience)
      expect((await request('/ds/', token, body, type)).status).to.equal(status)
    })
  }

  it('is not given to who brings no token, nor by a storage that issues none', async () => {
    const body = { caveats: ['activity:DOWNLOAD'], validity: 'PT1M' }
    expect((await request('/ds/', 'none', body)).status).to.equal(401)
    running.behaviour.macaroons = false
    expect((await request('/ds/', await fixture.token('storage.read:/', site.audience), body)).status).to.equal(405)
  })

  it('is told from tokens in what the storage was shown', async () => {
    const token = await macaroon('storage.read:/', '/ds/f', 'DOWNLOAD')
    await call('GET', '/ds/f', token)
    expect([...running.shown]).to.deep.equal([
      ['POST token', 1],
      ['GET macaroon', 1],
    ])
  })
})
