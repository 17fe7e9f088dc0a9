import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import {
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
} from '../../../sandbox/main.ts'
import { wantedAlgorithm } from '../../../sandbox/storage/checksums.ts'
import { byteRange } from '../../../sandbox/storage/read.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { type ManualClock, manualClock } from '../oidc-manual-clock.ts'
import { type CallOptions, Fixture, type Reply } from './fixture.ts'

/** "Wikipedia", whose adler32 every text on it gives. */
const CONTENT = 'Wikipedia'
const ADLER32 = '11e60398'
const MD5 = 'nGdyhoZqrTj46bZg9UEYFA=='

describe('the embedded storage', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let running: RunningStorage
  let site: StorageDescription
  let clock: ManualClock

  beforeEach(async () => {
    fixture = await Fixture.create()
    clock = manualClock()
    const runtime = { clock, random: systemRandom, log: silentLogger }
    issuer = await startIssuer(fixture.sandbox, {}, runtime)
    site = fixture.storage('SITE-A')
    running = await startStorage(fixture.sandbox, 'SITE-A', { quotaBytes: 1_000_000 }, runtime)
  })
  afterEach(async () => {
    await running.stop()
    await issuer.stop()
    await fixture.remove()
  })

  /** With a token of these scopes, for this storage. */
  const as = async (scope: string, method: string, path: string, options: CallOptions = {}): Promise<Reply> =>
    fixture.call(method, `${site.url}${path}`, { token: await fixture.token(scope, site.audience), ...options })
  const all = (method: string, path: string, options?: CallOptions) =>
    as('storage.read:/ storage.modify:/', method, path, options)
  const onDisk = (path: string) => readFile(join(site.directory, path), 'utf8')

  describe('answers in the profile`s order', () => {
    it('401 without a token, and says how to bring one', async () => {
      const reply = await fixture.call('GET', `${site.url}/data/missing`)
      expect(reply.status).to.equal(401)
      expect(reply.headers['www-authenticate']).to.match(/^Bearer/)
    })

    it('401 to another storage`s token, even for what is missing', async () => {
      const token = await fixture.token('storage.read:/', 'https://other.example.org')
      expect((await fixture.call('GET', `${site.url}/data/missing`, { token })).status).to.equal(401)
    })

    it('403 before 404: who may not look does not learn what is there', async () => {
      expect((await as('storage.read:/a', 'GET', '/data/missing')).status).to.equal(403)
      expect((await as('storage.read:/', 'GET', '/data/missing')).status).to.equal(404)
    })

    it('401 from the second the token expires', async () => {
      const token = await fixture.token('storage.read:/', site.audience)
      const get = () => fixture.call('GET', `${site.url}/data/missing`, { token })
      clock.advance(3_599_000)
      expect((await get()).status).to.equal(404)
      clock.advance(1_000)
      expect((await get()).status).to.equal(401)
    })

    it('503 while the issuer`s keys can`t be had, and soon after they can be all is well', async () => {
      const token = await fixture.token('storage.read:/', site.audience)
      const get = () => fixture.call('GET', `${site.url}/data/missing`, { token })
      await issuer.stop()
      expect((await get()).status).to.equal(503)
      issuer = await startIssuer(fixture.sandbox, {}, { clock, random: systemRandom, log: silentLogger })
      clock.advance(1_000)
      expect((await get()).status).to.equal(404)
      await issuer.stop()
      clock.advance(2_000)
      expect((await get()).status).to.equal(404)
      issuer = await startIssuer(fixture.sandbox, {}, { clock, random: systemRandom, log: silentLogger })
    })

    it('and takes the audience that all storages accept', async () => {
      const token = await fixture.token('storage.read:/', '')
      expect((await fixture.call('GET', `${site.url}/data/missing`, { token })).status).to.equal(404)
    })
  })

  describe('refuses with 401', () => {
    const claims = () => ({ sub: 'x', jti: 'x', 'wlcg.ver': '1.0', scope: 'storage.read:/', aud: site.audience })
    const sign = async (
      header: { alg: string; kid?: string },
      key: Parameters<SignJWT['sign']>[0],
    ): Promise<string> => {
      const now = Math.floor(clock.now() / 1000)
      return new SignJWT({ ...claims(), iss: fixture.sandbox.issuer, iat: now, exp: now + 600 })
        .setProtectedHeader(header)
        .sign(key)
    }
    const status = async (token: string) => (await fixture.call('GET', `${site.url}/data/missing`, { token })).status
    const realKey = async () => {
      const file = join(fixture.sandbox.directory, 'issuer', 'es256.jwk')
      return JSON.parse(await readFile(file, 'utf8'))
    }
    const kid = async () => JSON.parse((await fixture.call('GET', `${fixture.sandbox.issuer}/jwks`)).text).keys[0].kid

    it('nothing that the issuer signed in the right way (which shows that the others fail for their own reason)', async () => {
      expect(await status(await sign({ alg: 'ES256', kid: await kid() }, await realKey()))).to.equal(404)
    })

    it('a token without kid (4)', async () => {
      expect(await status(await sign({ alg: 'ES256' }, await realKey()))).to.equal(401)
    })

    it('a token that is signed by HMAC with the public key (4)', async () => {
      const { text } = await fixture.call('GET', `${fixture.sandbox.issuer}/jwks`)
      expect(await status(await sign({ alg: 'HS256', kid: await kid() }, Buffer.from(text)))).to.equal(401)
    })

    it('a token that is signed by somebody else', async () => {
      const { privateKey } = await generateKeyPair('ES256', { extractable: true })
      expect(await status(await sign({ alg: 'ES256', kid: await kid() }, await exportJWK(privateKey)))).to.equal(401)
      expect(await status(await sign({ alg: 'ES256', kid: 'unknown' }, await exportJWK(privateKey)))).to.equal(401)
    })

    it('a token without a signature, and nonsense', async () => {
      const [, payload] = (await fixture.token('storage.read:/', site.audience)).split('.')
      const none = Buffer.from('{"alg":"none","kid":"x"}').toString('base64url')
      for (const token of [`${none}.${payload}.`, 'nonsense', 'a.b.c', '.', 'eyJ.eyJ.x']) {
        expect(await status(token), token).to.equal(401)
      }
    })
  })

  describe('stores', () => {
    it('a file whole, makes its parents, and tells its size and checksums', async () => {
      expect((await as('storage.create:/d', 'PUT', '/data/d/e/f', { body: CONTENT })).status).to.equal(201)
      expect(await onDisk('data/d/e/f')).to.equal(CONTENT)
      const head = await as('storage.read:/', 'HEAD', '/data/d/e/f', { headers: { 'Want-Digest': 'adler32' } })
      expect(head.status).to.equal(200)
      expect(head.headers).to.include({ 'content-length': '9', digest: `adler32=${ADLER32}` })
      const md5 = await as('storage.read:/', 'HEAD', '/data/d/e/f', { headers: { 'Want-Digest': 'md5' } })
      expect(md5.headers.digest).to.equal(`md5=${MD5}`)
    })

    it('the empty file', async () => {
      expect((await all('PUT', '/data/empty', { body: '' })).status).to.equal(201)
      const head = await all('HEAD', '/data/empty', { headers: { 'Want-Digest': 'adler32' } })
      expect(head.headers).to.include({ 'content-length': '0', digest: 'adler32=00000001' })
      expect(await all('GET', '/data/empty')).to.include({ status: 200, text: '' })
    })

    it('names that need encoding', async () => {
      const name = 'a b%#é&<>"\'+;=@,$!~()[]{}'
      expect((await all('PUT', `/data/${encodeURIComponent(name)}`, { body: CONTENT })).status).to.equal(201)
      expect(await readdir(join(site.directory, 'data'))).to.deep.equal([name])
      const listing = (await all('PROPFIND', '/data', { headers: { Depth: '1' } })).text
      expect(listing).to.include(`<D:href>/data/${encodeURIComponent(name).replaceAll('&', '&amp;')}</D:href>`)
    })

    it('under create never over what is there: 403, and the old file stays', async () => {
      await all('PUT', '/data/f', { body: CONTENT })
      expect((await as('storage.create:/', 'PUT', '/data/f', { body: 'other' })).status).to.equal(403)
      expect(await onDisk('data/f')).to.equal(CONTENT)
    })

    it('under modify over what is there, unless the client wants it kept', async () => {
      await all('PUT', '/data/f', { body: CONTENT })
      const kept = await all('PUT', '/data/f', { body: 'other', headers: { 'If-None-Match': '*' } })
      expect(kept.status).to.equal(412)
      expect((await all('PUT', '/data/f', { body: 'other', headers: { Overwrite: 'F' } })).status).to.equal(412)
      expect(await onDisk('data/f')).to.equal(CONTENT)
      expect((await all('PUT', '/data/f', { body: 'other' })).status).to.equal(204)
      expect(await onDisk('data/f')).to.equal('other')
      const head = await all('HEAD', '/data/f', { headers: { 'Want-Digest': 'adler32' } })
      expect(head.headers.digest).to.equal('adler32=06740223')
    })

    it('exactly one of many that create the same name at once', async () => {
      const token = await fixture.token('storage.create:/', site.audience)
      const put = (body: string) => fixture.call('PUT', `${site.url}/data/race`, { token, body })
      const replies = await Promise.all(Array.from({ length: 20 }, (_, index) => put(`writer ${index}`)))
      const winners = replies.flatMap(({ status }, index) => (status === 201 ? [index] : []))
      expect(winners).to.have.length(1)
      expect(await onDisk('data/race')).to.equal(`writer ${winners[0]}`)
      expect(new Set(replies.map(({ status }) => status))).to.deep.equal(new Set([201, 403]))
    })

    it('nothing beyond the quota: 507, and deleting makes room', async () => {
      const body = Buffer.alloc(600_000)
      expect((await all('PUT', '/data/one', { body })).status).to.equal(201)
      expect((await all('PUT', '/data/two', { body })).status).to.equal(507)
      expect((await all('PUT', '/data/one', { body })).status).to.equal(507)
      expect((await all('DELETE', '/data/one')).status).to.equal(204)
      expect((await all('PUT', '/data/two', { body })).status).to.equal(201)
      expect(await readdir(join(site.directory, 'data'))).to.deep.equal(['two'])
    })

    it('no parts of files, no files where directories are, none below files', async () => {
      await all('PUT', '/data/d/f', { body: CONTENT })
      expect((await all('PUT', '/data/x', { body: 'x', headers: { 'Content-Range': 'bytes 5-5/9' } })).status).to.equal(
        400,
      )
      expect((await all('PUT', '/data/d', { body: 'x' })).status).to.equal(409)
      expect((await all('PUT', '/data/d/f/g', { body: 'x' })).status).to.equal(409)
      expect((await all('PUT', `/data/${'x'.repeat(300)}`, { body: 'x' })).status).to.equal(400)
    })

    it('no path that leads out, encoded or not', async () => {
      const token = await fixture.token('storage.modify:/', site.audience)
      for (const path of ['/data/../x', '/data/%2e%2e/%2e%2e/x', '/data/%252e%252e/x', '/data/a%2fb', '/data/%00']) {
        expect(await fixture.statusOfRawPath('PUT', site.url, path, token), path).to.equal(400)
      }
    })
  })

  describe('gives', () => {
    beforeEach(async () => {
      await all('PUT', '/data/f', { body: CONTENT })
    })

    it('the whole file', async () => {
      const reply = await as('storage.read:/f', 'GET', '/data/f')
      expect(reply).to.include({ status: 200, text: CONTENT })
      expect(reply.headers).to.include({ 'content-length': '9', 'accept-ranges': 'bytes' })
    })

    it('a range', async () => {
      const reply = await all('GET', '/data/f', { headers: { Range: 'bytes=2-4' } })
      expect(reply).to.include({ status: 206, text: 'kip' })
      expect(reply.headers['content-range']).to.equal('bytes 2-4/9')
    })

    it('416 for a range beyond the end', async () => {
      const reply = await all('GET', '/data/f', { headers: { Range: 'bytes=9-' } })
      expect(reply.status).to.equal(416)
      expect(reply.headers['content-range']).to.equal('bytes */9')
    })

    it('the checksum of a file that somebody changed on disk', async () => {
      await writeFile(join(site.directory, 'data/f'), 'Wikipedia!')
      const { headers } = await all('HEAD', '/data/f', { headers: { 'Want-Digest': 'adler32' } })
      expect(headers.digest).to.equal('adler32=159f03b9')
    })

    it('no file to who may only create, but its size', async () => {
      expect((await as('storage.create:/', 'GET', '/data/f')).status).to.equal(403)
      expect((await as('storage.create:/', 'HEAD', '/data/f')).status).to.equal(200)
      expect((await as('storage.modify:/', 'HEAD', '/data/f')).status).to.equal(200)
      expect((await as('storage.poll:/', 'HEAD', '/data/f')).status).to.equal(403)
    })
  })

  describe('keeps a name space', () => {
    it('MKCOL: 201, 405 if it is there, 409 without a parent', async () => {
      expect((await as('storage.create:/d/e', 'MKCOL', '/data/d')).status).to.equal(201)
      expect((await as('storage.create:/d/e', 'MKCOL', '/data/d')).status).to.equal(405)
      expect((await as('storage.create:/d', 'MKCOL', '/data/x')).status).to.equal(403)
      expect((await all('MKCOL', '/data/x/y')).status).to.equal(409)
    })

    it('DELETE: files and empty directories, under modify only', async () => {
      await all('PUT', '/data/d/f', { body: CONTENT })
      expect((await as('storage.read:/ storage.create:/', 'DELETE', '/data/d/f')).status).to.equal(403)
      expect((await all('DELETE', '/data/d')).status).to.equal(409)
      expect((await as('storage.modify:/d', 'DELETE', '/data/d/f')).status).to.equal(204)
      expect((await all('DELETE', '/data/d/f')).status).to.equal(404)
      expect((await all('DELETE', '/data/d')).status).to.equal(204)
    })

    it('MOVE: under create, never over what is there', async () => {
      await all('PUT', '/data/f', { body: CONTENT })
      await all('PUT', '/data/g', { body: 'g' })
      const move = (scope: string, to: string, headers = {}) =>
        as(scope, 'MOVE', '/data/f', { headers: { Destination: `${site.url}${to}`, ...headers } })
      expect((await move('storage.create:/', '/data/g')).status).to.equal(403)
      expect((await move('storage.modify:/', '/data/g', { Overwrite: 'F' })).status).to.equal(412)
      expect((await move('storage.create:/', '/data/no/g')).status).to.equal(409)
      expect((await move('storage.create:/f', '/data/h')).status).to.equal(403)
      expect((await move('storage.create:/', '/data/h')).status).to.equal(201)
      expect(await onDisk('data/h')).to.equal(CONTENT)
      const replaced = await all('MOVE', '/data/h', { headers: { Destination: '/data/g' } })
      expect(replaced.status).to.equal(204)
      expect(await onDisk('data/g')).to.equal(CONTENT)
    })

    it('PROPFIND: the entry alone, or with its children; who may not read gets no list', async () => {
      await all('PUT', '/data/d/f', { body: CONTENT })
      await all('PUT', '/data/d/e/g', { body: CONTENT })
      const propfind = (scope: string, path: string, depth: string) =>
        as(scope, 'PROPFIND', path, { headers: { Depth: depth } })
      const hrefs = ({ text }: Reply) => [...text.matchAll(/<D:href>([^<]*)</g)].map(match => match[1]).sort()
      const list = await propfind('storage.read:/d', '/data/d', '1')
      expect(list.status).to.equal(207)
      expect(hrefs(list)).to.deep.equal(['/data/d/', '/data/d/e/', '/data/d/f'])
      expect(list.text).to.include('<D:getcontentlength>9</D:getcontentlength>')
      expect(hrefs(await propfind('storage.create:/d', '/data/d', '0'))).to.deep.equal(['/data/d/'])
      expect(hrefs(await propfind('storage.read:/', '/data/d/f', '1'))).to.deep.equal(['/data/d/f'])
      expect((await propfind('storage.modify:/d', '/data/d', '1')).status).to.equal(403)
      expect((await propfind('storage.read:/', '/data/d', 'infinity')).status).to.equal(403)
      expect((await propfind('storage.read:/', '/data/x', '0')).status).to.equal(404)
    })

    it('OPTIONS: what it can, to anybody', async () => {
      const { status, headers } = await fixture.call('OPTIONS', `${site.url}/`)
      expect(status).to.equal(200)
      expect(headers.dav).to.equal('1')
      for (const verb of ['COPY', 'PROPFIND', 'PUT']) expect(headers.allow).to.include(verb)
      expect((await all('LOCK', '/data')).status).to.equal(405)
    })
  })

  it('refuses as often as it was told', async () => {
    running.refuse({ verb: 'HEAD', status: 429, times: 2, retryAfterSeconds: 3 })
    const replies = [await all('HEAD', '/data'), await all('HEAD', '/data'), await all('HEAD', '/data')]
    expect(replies.map(({ status }) => status)).to.deep.equal([429, 429, 200])
    expect(replies[0]?.headers['retry-after']).to.equal('3')
    expect(running.requests.get('HEAD')).to.equal(3)
  })

  it('sends elsewhere when told so', async () => {
    running.behaviour.redirect = { verbs: ['GET'], origin: 'https://other.example.org' }
    const { status, headers } = await all('GET', '/data/x%20y')
    expect(status).to.equal(307)
    expect(headers.location).to.equal('https://other.example.org/data/x%20y')
  })
})

describe('byte ranges (RFC 9110 section 14.1.2)', () => {
  for (const [header, size, expected] of [
    [undefined, 10, undefined],
    ['bytes=0-', 10, { first: 0, last: 9 }],
    ['bytes=2-4', 10, { first: 2, last: 4 }],
    ['bytes=2-40', 10, { first: 2, last: 9 }],
    ['bytes=-3', 10, { first: 7, last: 9 }],
    ['bytes=-30', 10, { first: 0, last: 9 }],
    ['bytes=10-', 10, 'unsatisfiable'],
    ['bytes=-0', 10, 'unsatisfiable'],
    ['bytes=0-', 0, 'unsatisfiable'],
    ['bytes=4-2', 10, undefined],
    ['bytes=-', 10, undefined],
    ['bytes=0-1,3-4', 10, undefined],
    ['lines=0-1', 10, undefined],
  ] as const) {
    it(`${header} of ${size} bytes`, () => expect(byteRange(header, size)).to.deep.equal(expected))
  }
})

describe('Want-Digest (RFC 3230 section 4.3.1)', () => {
  for (const [header, supported, expected] of [
    [undefined, ['adler32', 'md5'], undefined],
    ['adler32', ['adler32', 'md5'], 'adler32'],
    ['ADLER32', ['adler32', 'md5'], 'adler32'],
    ['adler32;q=0.3, md5;q=1', ['adler32', 'md5'], 'md5'],
    ['sha-256, md5;q=0.1', ['adler32', 'md5'], 'md5'],
    ['adler32;q=0', ['adler32', 'md5'], undefined],
    ['adler32', ['md5'], undefined],
  ] as const) {
    it(`${header} of ${supported}`, () => expect(wantedAlgorithm(header, supported)).to.equal(expected))
  }
})
