import { expect } from 'chai'
import { collapseSlashes, tapePath } from '../../shared/storage/tape-answers.ts'
import type { TapeClient } from '../../shared/storage/types.ts'
import { Stage } from './storage-stage.ts'
import { failure, json, TapeStage, TOKEN, WELL_KNOWN } from './storage-tape-stage.ts'

/** facts/http-tpc.md section 6, and the reference document of the WLCG Tape REST API v1. */
describe('the client of the tape API', () => {
  let played: TapeStage
  let tape: TapeClient
  beforeEach(() => {
    played = new TapeStage()
    tape = played.tape
  })
  afterEach(() => played.close())

  describe('discovery', () => {
    const described = (document: unknown) => played.stage.storage((_request, response) => json(response, 200, document))
    const endpoint = (version: string, uri = `https://127.0.0.1/api/${version}`) => ({ uri, version })

    for (const [what, versions, expected] of [
      ['takes the highest v1', ['v0', 'v1', 'v2'], 'v1'],
      ['takes a later revision of it', ['v1.2', 'v1', 'v1.10', 'v1.9'], 'v1.10'],
      ['does not take what only looks like one', ['v1', 'v1.2-alpha', 'v11'], 'v1'],
    ] as const) {
      it(what, async () => {
        const url = await described({ sitename: 'se', endpoints: versions.map(version => endpoint(version)) })
        expect(await tape.discover(`${url}/data/f`, TOKEN)).to.deep.equal({
          uri: `https://127.0.0.1/api/${expected}`,
          version: expected,
          sitename: 'se',
        })
      })
    }

    for (const [what, document, expected] of [
      ['only other versions', { endpoints: [endpoint('v0'), endpoint('v2')] }, 'NOT_SUPPORTED SOURCE'],
      ['no endpoints', { sitename: 'se' }, 'PROTOCOL_VIOLATION SOURCE'],
      ['endpoints of the wrong type', { endpoints: ['v1', null, { version: 1, uri: 2 }] }, 'NOT_SUPPORTED SOURCE'],
      ['a list', [], 'PROTOCOL_VIOLATION SOURCE'],
      ['a stranger`s host', { endpoints: [endpoint('v1', 'https://evil.example.com/v1')] }, 'REDIRECT_REFUSED SOURCE'],
      ['no address', { endpoints: [endpoint('v1', 'https://')] }, 'REDIRECT_REFUSED SOURCE'],
      ['another protocol', { endpoints: [endpoint('v1', 'file:///etc/passwd')] }, 'REDIRECT_REFUSED SOURCE'],
    ] as const) {
      it(`refuses a description with ${what}`, async () => {
        expect(await failure(tape.discover(await described(document), TOKEN))).to.equal(expected)
      })
    }

    it('follows the storage to the hosts its RSE names, and no further', async () => {
      const other = new Stage(played.clock, () => ['.example.org'])
      try {
        const url = await other.storage((_request, response) =>
          json(response, 200, { endpoints: [endpoint('v1', 'https://tape.example.org:8443/api/v1//')] }),
        )
        const { uri } = await other.client.tape.discover(url, TOKEN)
        expect(uri).to.equal('https://tape.example.org:8443/api/v1')
      } finally {
        other.close()
      }
    })

    it('tells a storage without a tape API', async () => {
      const url = await played.stage.storage((_request, response) => response.writeHead(404).end())
      expect(await failure(tape.archiveInfo(url, TOKEN, ['/a']))).to.equal('NOT_SUPPORTED DESTINATION')
    })

    it('is one request for many callers, and again after ten minutes', async () => {
      const { url } = await played.answering(200, {})
      await Promise.all(Array.from({ length: 50 }, (_, i) => tape.forget(`${url}/data/${i}`, TOKEN, 'r')))
      const asked = () => played.verbs.filter(verb => verb === `GET ${WELL_KNOWN}`).length
      expect(asked()).to.equal(1)
      await played.clock.advance(599_000)
      await tape.forget(url, TOKEN, 'r')
      expect(asked()).to.equal(1)
      await played.clock.advance(2_000)
      await tape.forget(url, TOKEN, 'r')
      expect(asked()).to.equal(2)
    })

    it('does not remember a failure', async () => {
      const url = await played.stage.storage((_request, response) => {
        if (played.stage.asked.length === 1) response.writeHead(503).end()
        else json(response, 200, { endpoints: [endpoint('v1')] })
      })
      expect(await failure(tape.discover(url, TOKEN))).to.equal('STORAGE_BUSY SOURCE')
      expect(await tape.discover(url, TOKEN)).to.include({ version: 'v1', sitename: undefined })
    })
  })

  describe('cancel, release and forget', () => {
    it('send paths in requests of at most 500', async () => {
      const paths = Array.from({ length: 501 }, (_, i) => `/data/${i}`)
      const { url, bodies } = await played.answering(200, '')
      expect(await tape.cancel(url, TOKEN, 'r', ['/data//a', '/data/a'])).to.deep.equal({ known: true })
      expect(await tape.release(url, TOKEN, 'r', paths)).to.deep.equal({ known: true })
      expect(await tape.forget(url, TOKEN, 'r')).to.deep.equal({ known: true })
      expect(played.verbs.slice(1)).to.deep.equal([
        'POST /api/v1/stage/r/cancel',
        'POST /api/v1/release/r',
        'POST /api/v1/release/r',
        'DELETE /api/v1/stage/r',
      ])
      expect(bodies).to.deep.equal([{ paths: ['/data/a'] }, { paths: paths.slice(0, 500) }, { paths: ['/data/500'] }])
    })

    it('ask nothing for no files', async () => {
      const { url } = await played.answering(200, '')
      await tape.release(url, TOKEN, 'r', [])
      expect(played.verbs).to.deep.equal([])
    })

    it('tell that the request is not known', async () => {
      const { url } = await played.answering(404, {})
      expect(await tape.cancel(url, TOKEN, 'r', ['/a'])).to.deep.equal({ known: false })
      expect(await tape.release(url, TOKEN, 'r', ['/a'])).to.deep.equal({ known: false })
      expect(await tape.forget(url, TOKEN, 'r')).to.deep.equal({ known: false })
    })

    it('tell a file that is not of the request', async () => {
      const { url } = await played.answering(400, { status: 400, title: 'File missing from stage request' })
      expect(await failure(tape.cancel(url, TOKEN, 'r', ['/a']))).to.equal('REQUEST_REFUSED SOURCE')
    })
  })

  describe('archiveInfo', () => {
    it('tells where each file is, or why not', async () => {
      const localities = ['DISK', 'TAPE', 'DISK_AND_TAPE', 'LOST', 'NONE', 'UNAVAILABLE', 'HEAVEN']
      const body = [
        ...localities.map((locality, i) => ({ path: `//data/${i}`, locality })),
        { path: '/data/7', error: 'USER ERROR: file does not exist or is not accessible to you' },
        { path: '/data/8', locality: 'DISK', error: 'no tape pool' },
        { path: '/data/9', error: '' },
      ].toReversed()
      const { url } = await played.answering(200, body)
      const paths = Array.from({ length: 10 }, (_, i) => `/data/${i}`)
      expect([...(await tape.archiveInfo(url, TOKEN, paths))]).to.deep.equal([
        ...localities.slice(0, 6).map((locality, i) => [`/data/${i}`, { locality }]),
        ['/data/6', {}],
        ['/data/7', { error: 'USER ERROR: file does not exist or is not accessible to you' }],
        ['/data/8', { locality: 'DISK', error: 'no tape pool' }],
        ['/data/9', {}],
      ])
    })

    it('asks again, in smaller requests, for what a storage left out, and then no more', async () => {
      const sizes: number[] = []
      const { url } = await played.storage((_request, response, body) => {
        const { paths } = JSON.parse(body) as { paths: string[] }
        sizes.push(paths.length)
        // As dCache does with a limit of 100; of one file it never says anything.
        const told = paths.slice(0, 100).filter(path => path !== '/data/600')
        json(
          response,
          200,
          told.map(path => ({ path, locality: 'TAPE' })),
        )
      })
      const paths = Array.from({ length: 601 }, (_, i) => `/data/${i}`)
      const found = await tape.archiveInfo(url, TOKEN, paths)
      expect(sizes).to.deep.equal([500, 101, 50, 50, 50, 50, 50, 50, 50, 50, 1])
      expect([...found].filter(([, info]) => info.locality !== 'TAPE')).to.deep.equal([['/data/600', {}]])
    })

    it('refuses what is no list, as a failure of the destination', async () => {
      const { url } = await played.answering(200, { '/data/a': 'TAPE' })
      expect(await failure(tape.archiveInfo(url, TOKEN, ['/data/a']))).to.equal('PROTOCOL_VIOLATION DESTINATION')
      const options = { scope: 'SOURCE' } as const
      expect(await failure(tape.archiveInfo(url, TOKEN, ['/data/a'], options))).to.equal('PROTOCOL_VIOLATION SOURCE')
    })
  })

  describe('paths', () => {
    for (const [url, expected] of [
      ['https://se.example.org:8443/data/a', '/data/a'],
      ['https://se.example.org//data///a%20b%25', '/data/a b%'],
      ['https://se.example.org/data/%C3%A9?authz=x', '/data/é'],
    ] as const) {
      it(`of ${url}: ${expected}`, () => expect(tapePath(url)).to.equal(expected))
    }

    it('have no repeated slashes', () => expect(collapseSlashes('//a/b///c/')).to.equal('/a/b/c/'))
  })
})
