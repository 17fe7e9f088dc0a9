import { expect } from 'chai'
import type { Secret } from '../../../shared/domain/secret.ts'
import { StorageError } from '../../../shared/storage/types.ts'
import { CONTENT, refusal, TapeSite } from './tape-site.ts'

const [FILE, OTHER] = ['/data/run/a', '/data/run/b'] as const
const SCOPES = 'storage.stage:/ storage.read:/'

describe('a storage with tape', () => {
  let site: TapeSite
  let token: Secret
  beforeEach(async () => {
    site = await TapeSite.create({ drives: 1, secondsPerFile: 60, archiveSeconds: 30, openSeconds: 100 })
    token = await site.token(SCOPES)
    await site.onTape(FILE)
  })
  afterEach(() => site.remove())

  const staged = async () => (await site.tape.stage(site.url, token, [{ path: FILE }])).requestId
  const post = async (target: string, body: unknown, scope = SCOPES) =>
    site.fixture.call('POST', `${site.url}/api/v1/${target}`, {
      token: (await site.token(scope)).reveal(),
      headers: { 'Content-Type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })

  describe('asks for the scopes of the profile (facts/tokens.md section 1, 13 and 14)', () => {
    const cases: [operation: string, scope: string, allowed: boolean][] = [
      ['stage', 'storage.stage:/', true],
      ['stage', 'storage.stage:/run', true],
      ['stage', 'storage.stage:/other', false],
      ['stage', 'storage.read:/', false],
      ['stage', 'storage.modify:/', false],
      ['stage', 'storage.poll:/', false],
      ['poll', 'storage.poll:/run', true],
      ['poll', 'storage.stage:/run', true],
      ['poll', 'storage.poll:/other', false],
      ['cancel', 'storage.stage:/run', true],
      ['cancel', 'storage.read:/', false],
      ['forget', 'storage.stage:/run', true],
      ['forget', 'storage.read:/', false],
      ['release', 'storage.stage:/run', true],
      ['release', 'storage.read:/', false],
      ['archiveInfo', 'storage.stage:/run', true],
      ['archiveInfo', 'storage.read:/run', true],
      ['archiveInfo', 'storage.create:/run', true],
      ['archiveInfo', 'storage.poll:/run', true],
      ['archiveInfo', 'storage.read:/other', false],
    ]
    for (const [operation, scope, allowed] of cases) {
      it(`${scope} ${allowed ? 'allows' : 'denies'} ${operation}`, async () => {
        const { tape, url } = site
        const id = await staged()
        const holder = await site.token(scope)
        const run = {
          stage: () => tape.stage(url, holder, [{ path: FILE }]),
          poll: () => tape.poll(url, holder, id, [FILE]),
          cancel: () => tape.cancel(url, holder, id, [FILE]),
          forget: () => tape.forget(url, holder, id),
          release: () => tape.release(url, holder, id, [FILE]),
          archiveInfo: () => tape.archiveInfo(url, holder, [FILE]),
        }[operation]
        if (run === undefined) throw new Error(operation)
        if (allowed) await run()
        else expect(await refusal(run())).to.equal(403)
      })
    }

    it('on every path of a request, and before it says what is there', async () => {
      const holder = await site.token('storage.stage:/run')
      const files = [{ path: FILE }, { path: '/data/elsewhere/none' }]
      expect(await refusal(site.tape.stage(site.url, holder, files))).to.equal(403)
      expect(await refusal(site.tape.archiveInfo(site.url, holder, ['/data/none']))).to.equal(403)
      expect(await refusal(site.tape.stage(site.url, undefined, files))).to.equal(401)
    })
  })

  describe('opens a file that is on tape only', () => {
    const read = (holder: Secret) => site.client.get(`${site.url}${FILE}`, holder)

    it('not for who may not stage: dCache says 403', async () => {
      expect(await refusal(read(await site.token('storage.read:/')))).to.equal(403)
    })

    it('as dCache does: it brings it, while the client waits', async () => {
      const reading = read(token)
      // Only the clock lets it come, and the clock is moved when it is being read.
      await site.clock.untilSleeping(2)
      await site.clock.advance(60_000)
      const { body } = await reading
      expect(Buffer.concat(await body.toArray()).toString()).to.equal(CONTENT)
      expect(await site.front.locality(FILE)).to.equal('DISK_AND_TAPE')
    })

    it('as dCache does: it gives up, and the file comes later', async () => {
      site.front.settings.secondsPerFile = 1000
      const reading = refusal(read(token))
      await site.clock.untilSleeping(2)
      await site.clock.advance(100_000)
      expect(await reading).to.equal(500)
    })

    it('not at all: EOS says 500', async () => {
      site.front.settings.dialect = 'eos'
      const error = await read(token).catch((error: unknown) => error)
      expect(error).to.be.instanceOf(StorageError)
      expect(error).to.have.property('message', 'GET answered 500: open - no disk replica exists')
    })

    it('and tells its size and checksum all the same', async () => {
      const found = await site.client.head(`${site.url}${FILE}`, token, { wantDigest: 'adler32' })
      expect(found).to.include({ exists: true, size: CONTENT.length })
      expect(found).to.have.nested.property('checksums.adler32')
    })

    it('for no copy either', async () => {
      const headers = { Destination: `${site.url}${OTHER}` }
      const copier = (await site.token('storage.read:/ storage.create:/')).reveal()
      const copy = () => site.fixture.call('COPY', `${site.url}${FILE}`, { token: copier, headers })
      expect((await copy()).status).to.equal(403)
      site.front.settings.dialect = 'eos'
      expect((await copy()).status).to.equal(500)
    })
  })

  it('lets a file go when its disk lifetime is over', async () => {
    const { requestId } = await site.tape.stage(site.url, token, [{ path: FILE, diskLifetime: 'PT10M' }])
    await site.turn(token, requestId, [FILE], 1)
    await site.clock.advance(599_000)
    expect(await site.front.evict(FILE)).to.equal(false)
    await site.clock.advance(1_000)
    expect(await site.front.evict(FILE)).to.equal(true)
  })

  it('fails a file whose disk lifetime makes no sense', async () => {
    const { requestId } = await site.tape.stage(site.url, token, [{ path: FILE, diskLifetime: 'P1W' }])
    expect(await site.count(token, requestId, [FILE])).to.deep.equal({ failed: 1 })
  })

  it('says 429 as often as it was told, and when to come again', async () => {
    Object.assign(site.front.settings, { tooMany: 2, retryAfterSeconds: 7 })
    for (const run of [() => staged(), () => site.tape.archiveInfo(site.url, token, [FILE])]) {
      const error = await run().catch((error: unknown) => error)
      expect(error).to.be.instanceOf(StorageError)
      if (error instanceof StorageError) {
        expect(error.failure).to.include({ code: 'TOO_MANY_REQUESTS', retryAfterSeconds: 7 })
      }
    }
    expect(await staged()).to.match(/^[\da-f-]{36}$/)
  })

  describe('as dCache', () => {
    it('refuses keys that it does not know beside files; EOS does not', async () => {
      const body = { files: [{ path: FILE, targetedMetadata: { 'SITE-A': {} } }], priority: 1 }
      const { status, text } = await post('stage', body)
      expect([status, JSON.parse(text)]).to.deep.equal([
        400,
        { status: 400, title: 'unrecognized payload element(s): ["priority"]' },
      ])
      site.front.settings.dialect = 'eos'
      expect((await post('stage', body)).status).to.equal(201)
    })

    it('takes 500 files in a request, and no more', async () => {
      const files = Array.from({ length: 501 }, (_, i) => ({ path: `/data/run/${i}` }))
      expect(await refusal(site.tape.stage(site.url, token, files))).to.equal(413)
      await site.tape.stage(site.url, token, files.slice(1))
      site.front.settings.dialect = 'eos'
      await site.tape.stage(site.url, token, files)
    })

    it('looks only at the first 100 files of an archiveinfo, and does not say so', async () => {
      const paths = Array.from({ length: 150 }, (_, i) => (i === 149 ? FILE : `/data/run/${i}`))
      const answered = async () => JSON.parse((await post('archiveinfo', { paths })).text) as unknown[]
      expect(await answered()).to.have.length(100)
      // Waybill's client asks again for what is left out.
      expect((await site.tape.archiveInfo(site.url, token, paths)).get(FILE)).to.deep.equal({ locality: 'TAPE' })
      site.front.settings.dialect = 'eos'
      expect(await answered()).to.have.length(150)
    })

    it('tells states, and times in milliseconds; EOS seconds', async () => {
      const id = await staged()
      const raw = async () =>
        JSON.parse(
          (await site.fixture.call('GET', `${site.url}/api/v1/stage/${id}`, { token: token.reveal() })).text,
        ) as object
      await site.turn(token, id, [FILE], 1)
      const createdAt = site.clock.now() - 60_000
      const file = { path: FILE, startedAt: createdAt, finishedAt: site.clock.now(), state: 'COMPLETED' }
      const times = { createdAt, startedAt: createdAt, completedAt: site.clock.now() }
      expect(await raw()).to.deep.equal({ id, ...times, files: [file] })
      site.front.settings.dialect = 'eos'
      const seconds = createdAt / 1000
      const files = [{ path: FILE, onDisk: true }]
      expect(await raw()).to.deep.equal({ id, createdAt: seconds, startedAt: seconds, files })
    })
  })

  for (const [what, target, body, status] of [
    ['no JSON', 'stage', 'files', 400],
    ['a list', 'stage', [], 400],
    ['no files', 'stage', { files: [] }, 400],
    ['files without a path', 'stage', { files: [{}] }, 400],
    ['a file that is null', 'stage', { files: [null] }, 400],
    ['a relative path', 'stage', { files: [{ path: 'data/a' }] }, 400],
    ['a path that climbs', 'archiveinfo', { paths: ['/data/../etc/passwd'] }, 400],
    ['no paths', 'archiveinfo', { paths: FILE }, 400],
    ['another resource', 'unpin', { paths: [FILE] }, 404],
    ['too much', 'stage', 'x'.repeat(16 * 1024 * 1024 + 1), 413],
  ] as const) {
    it(`answers ${status} to a request with ${what}`, async () => {
      expect((await post(target, body)).status).to.equal(status)
    })
  }
})

describe('a storage without tape', () => {
  it('has no tape API, and files may have its paths', async () => {
    const site = await TapeSite.create()
    try {
      const token = await site.token('storage.read:/ storage.stage:/')
      expect(await refusal(site.tape.discover(site.url, undefined))).to.equal(401)
      const stage = { token: token.reveal(), body: '{}' }
      expect((await site.fixture.call('POST', `${site.url}/api/v1/stage`, stage)).status).to.equal(405)
      await site.onDisk('/data/api/v1/stage')
      expect((await site.client.head(`${site.url}/data/api/v1/stage`, token)).exists).to.equal(true)
    } finally {
      await site.remove()
    }
  })
})
