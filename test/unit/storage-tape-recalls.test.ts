import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { StorageError, type TapeClient } from '../../shared/storage/types.ts'
import { failure, json, TapeStage, TOKEN, WELL_KNOWN } from './storage-tape-stage.ts'

/** facts/http-tpc.md section 6, and the reference document of the WLCG Tape REST API v1. */
describe('recalls through the tape API', () => {
  let played: TapeStage
  let tape: TapeClient
  beforeEach(() => {
    played = new TapeStage()
    tape = played.tape
  })
  afterEach(() => played.close())

  describe('stage', () => {
    it('sends what the specification has, and nothing else', async () => {
      const { url, bodies } = await played.storage((_request, response) =>
        json(
          response,
          201,
          { requestId: 'e2b8f2b0-9952-11ec' },
          { Location: `${url}/api/v1/stage/e2b8f2b0-9952-11ec` },
        ),
      )
      const files = [{ path: '/data//a', diskLifetime: 'PT24H' }, { path: '/data/b é' }, { path: '/data/b é' }]
      expect(await tape.stage(`${url}/data`, TOKEN, files)).to.deep.equal({
        requestId: 'e2b8f2b0-9952-11ec',
        location: `${url}/api/v1/stage/e2b8f2b0-9952-11ec`,
      })
      expect(bodies).to.deep.equal([{ files: [{ path: '/data/a', diskLifetime: 'PT24H' }, { path: '/data/b é' }] }])
      expect(played.verbs).to.deep.equal([`GET ${WELL_KNOWN}`, 'POST /api/v1/stage'])
      expect(played.stage.asked[1]?.headers).to.include({
        Authorization: 'Bearer the-token-0123',
        'Content-Type': 'application/json',
      })
    })

    it('understands a Location without a host, and does not give on that of a stranger', async () => {
      const { url } = await played.storage((request, response) => {
        const location = request.headers.authorization?.endsWith('0123') ? '/x/stage/r' : 'https://evil.example.com/r'
        json(response, 201, { requestId: 'r' }, { Location: location })
      })
      const files = [{ path: '/a' }]
      expect((await tape.stage(url, TOKEN, files)).location).to.equal(`${url}/x/stage/r`)
      expect((await tape.stage(url, new Secret('another-token'), files)).location).to.equal(undefined)
    })

    for (const [what, body] of [
      ['no name', {}],
      ['a name that is a number', { requestId: 7 }],
      ['a name that leads elsewhere', { requestId: '../../stage' }],
      ['a name of dots', { requestId: '..' }],
      ['a list', []],
      ['a name of 300 characters', { requestId: 'r'.repeat(300) }],
    ] as const) {
      it(`does not take an answer with ${what}`, async () => {
        const { url } = await played.answering(201, body)
        expect(await failure(tape.stage(url, TOKEN, [{ path: '/a' }]))).to.equal('PROTOCOL_VIOLATION SOURCE')
      })
    }

    for (const [status, words, expected] of [
      [200, '{}', 'PROTOCOL_VIOLATION SOURCE'],
      [400, 'unrecognized payload element(s): ["x"]', 'REQUEST_REFUSED SOURCE'],
      [400, 'No such file or directory', 'REQUEST_REFUSED SOURCE'],
      [401, '', 'TOKEN_REFUSED TOKEN'],
      [403, '', 'PERMISSION_DENIED SOURCE'],
      [404, 'not found', 'NOT_FOUND SOURCE'],
      [413, 'the number of targets 501 exceeds the maximum 500', 'REQUEST_REFUSED SOURCE'],
      [429, 'quota exceeded', 'TOO_MANY_REQUESTS SOURCE'],
      [500, '', 'STORAGE_ERROR SOURCE'],
      [503, '', 'STORAGE_BUSY SOURCE'],
    ] as const) {
      it(`tells a ${status}${words === '' ? '' : ` "${words}"`}: ${expected}`, async () => {
        const { url } = await played.storage((_request, response) => response.writeHead(status).end(words))
        expect(await failure(tape.stage(url, TOKEN, [{ path: '/a' }]))).to.equal(expected)
      })
    }

    it('tells when an overloaded storage wants to be asked again', async () => {
      const { url } = await played.answering(429, { title: 'Too Many Requests' }, { 'Retry-After': '30' })
      const error = await tape.stage(url, TOKEN, [{ path: '/a' }]).catch((error: unknown) => error)
      expect(error).to.be.instanceOf(StorageError)
      if (error instanceof StorageError) {
        expect(error.failure).to.include({ code: 'TOO_MANY_REQUESTS', retryAfterSeconds: 30, retryable: true })
        expect(error.failure.message).to.equal('POST /stage answered 429: {"title":"Too Many Requests"}')
      }
    })

    it('is not repeated after a lost connection: it would be a second request', async () => {
      const { url } = await played.storage(request => request.socket.destroy())
      expect(await failure(tape.stage(url, TOKEN, [{ path: '/a' }]))).to.equal('CONNECTION_LOST SOURCE')
      expect(played.verbs).to.deep.equal([`GET ${WELL_KNOWN}`, 'POST /api/v1/stage'])
    })
  })

  describe('poll', () => {
    const PATHS = ['/data/a', '/data/b', '/data/c', '/data/d', '/data/e']
    const states = async (body: unknown, paths: readonly string[] = PATHS) => {
      const { url } = await played.answering(200, body)
      const progress = await tape.poll(url, TOKEN, 'r:1', paths)
      expect(played.verbs).to.deep.equal([`GET ${WELL_KNOWN}`, 'GET /api/v1/stage/r:1'])
      return progress.known ? [...progress.files].map(([path, state]) => [path, ...Object.values(state)].join(' ')) : []
    }

    it('understands dCache: states, in any order', async () => {
      const files = [
        { path: '/data/e', startedAt: 1, finishedAt: 2, error: 'CacheException(rc=10001;msg=lost)', state: 'FAILED' },
        { path: '/data/d', startedAt: 1, finishedAt: 2, state: 'CANCELLED' },
        { path: '/data/c', startedAt: 1, finishedAt: 2, state: 'COMPLETED' },
        { path: '/data/b', startedAt: 1, state: 'STARTED' },
        { path: '/data/a', state: 'SUBMITTED' },
      ]
      expect(await states({ id: 'r:1', createdAt: 1, startedAt: 1, files })).to.deep.equal([
        '/data/a pending',
        '/data/b pending',
        '/data/c staged',
        '/data/d cancelled',
        '/data/e failed CacheException(rc=10001;msg=lost)',
      ])
    })

    it('understands EOS: onDisk and error', async () => {
      const files = [
        { path: '/data/a', onDisk: true },
        { path: '/data/b', onDisk: false },
        { path: '/data/c', onDisk: false, error: 'Tape backend is unreachable' },
        { path: '/data/d', onDisk: false, error: '' },
        { path: '/data/e', onDisk: true, error: 'an older archive error' },
      ]
      expect(await states({ id: 'r:1', files })).to.deep.equal([
        '/data/a staged',
        '/data/b pending',
        '/data/c failed Tape backend is unreachable',
        '/data/d pending',
        '/data/e staged',
      ])
    })

    it('matches paths whatever their slashes, and answers by those that were asked for', async () => {
      const files = [
        { path: '//data///a', onDisk: true },
        { path: '/other', onDisk: true },
      ]
      expect(await states({ files }, ['/data//a', '/data/b'])).to.deep.equal(['/data//a staged', '/data/b unknown'])
    })

    it('does not know what makes no sense', async () => {
      const files = [
        null,
        7,
        ['/data/a'],
        { path: 1, state: 'COMPLETED' },
        { path: '/data/a', state: 'MAYBE' },
        { path: '/data/b', onDisk: 'yes' },
        { path: '/data/c', state: 7, error: 7 },
        { path: '/data/d', state: 'CANCELED' },
        { state: 'COMPLETED' },
      ]
      expect(await states({ files })).to.deep.equal([
        '/data/a unknown',
        '/data/b unknown',
        '/data/c unknown',
        '/data/d cancelled',
        '/data/e unknown',
      ])
    })

    it('does not choose between entries that contradict each other', async () => {
      const files = [
        { path: '/data/a', state: 'COMPLETED' },
        { path: '//data/a', state: 'FAILED' },
        { path: '/data/b', state: 'COMPLETED' },
        { path: '/data//b', state: 'COMPLETED' },
      ]
      expect(await states({ files }, ['/data/a', '/data/b'])).to.deep.equal(['/data/a unknown', '/data/b staged'])
    })

    it('reads 100,000 files', async () => {
      const paths = Array.from({ length: 100_000 }, (_, i) => `/data/${'d'.repeat(80)}/${i}`)
      const files = paths.toReversed().map(path => ({ path, startedAt: 1_646_305_470, state: 'STARTED' }))
      const { url } = await played.answering(200, { id: 'r', files })
      const progress = await tape.poll(url, TOKEN, 'r', paths)
      expect(progress.known && [...progress.files.values()].every(({ kind }) => kind === 'pending')).to.equal(true)
      expect(progress.known && progress.files.size).to.equal(100_000)
    })

    for (const [what, body] of [
      ['a list', '[]'],
      ['no files', '{"id":"r"}'],
      ['files of the wrong type', '{"files":{"/a":true}}'],
      ['null', 'null'],
      ['no JSON', '<html><body>Welcome</body></html>'],
      ['half of it', '{"files":[{"path":"/a","onDisk":tr'],
      ['nothing', ''],
      ['too much', `{"files":[]${' '.repeat(32 * 1024 * 1024)}}`],
    ] as const) {
      it(`refuses an answer with ${what}`, async () => {
        const { url } = await played.storage((_request, response) => response.end(body))
        expect(await failure(tape.poll(url, TOKEN, 'r', ['/a']))).to.equal('PROTOCOL_VIOLATION SOURCE')
      })
    }

    it('tells a request that is not known from one that failed', async () => {
      const { url } = await played.answering(404, { status: 404, title: 'Not found' })
      expect(await tape.poll(url, TOKEN, 'r', ['/a'])).to.deep.equal({ known: false })
    })

    it('shows no token, and not more than a line of what a storage says', async () => {
      const error = `refused: Bearer the-token-0123\n${'x'.repeat(5_000_000)}`
      const { url } = await played.answering(200, { files: [{ path: '/a', onDisk: false, error }] })
      const progress = await tape.poll(url, TOKEN, 'r', ['/a'])
      const state = progress.known ? progress.files.get('/a') : undefined
      expect(state).to.have.property('kind', 'failed')
      expect(state)
        .to.have.property('words')
        .that.matches(/^refused: \[secret\] x{900,}\.\.\.$/)
      expect(state).to.have.property('words').with.length(1000)
    })
  })
})
