import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import {
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
} from '../../../sandbox/main.ts'
import { systemClock } from '../../../shared/runtime/clock.ts'
import { silentLogger } from '../../../shared/runtime/logger.ts'
import { systemRandom } from '../../../shared/runtime/random.ts'
import { Fixture, type Reply } from './fixture.ts'

const CONTENT = 'a waybill travels with a consignment\n'

const runtime = { clock: systemClock, random: systemRandom, log: silentLogger }

/** Third-party copy from the embedded storage SITE-A to SITE-B, and what they can be told to do otherwise. */
describe('third-party copy between embedded storages', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let a: RunningStorage
  let b: RunningStorage
  let siteA: StorageDescription
  let siteB: StorageDescription
  let other: Server | undefined

  beforeEach(async () => {
    fixture = await Fixture.create()
    issuer = await startIssuer(fixture.sandbox, {}, runtime)
    a = await startStorage(fixture.sandbox, 'SITE-A', {}, runtime)
    b = await startStorage(fixture.sandbox, 'SITE-B', { quotaBytes: 1_000 }, runtime)
    siteA = fixture.storage('SITE-A')
    siteB = fixture.storage('SITE-B')
    const token = await fixture.token('storage.modify:/', siteA.audience)
    await fixture.call('PUT', `${siteA.url}/data/src/f`, { token, body: CONTENT })
  })
  afterEach(async () => {
    other?.close()
    other = undefined
    await Promise.all([a.stop(), b.stop(), issuer.stop()])
    await fixture.remove()
  })

  interface CopyOptions {
    readonly source?: string
    readonly destination?: string
    readonly sourceScope?: string
    readonly destinationScope?: string
    readonly headers?: Record<string, string>
  }

  async function addresses(options: CopyOptions) {
    return {
      source: options.source ?? `${siteA.url}/data/src/f`,
      destination: options.destination ?? `${siteB.url}/data/dst/f`,
      read: await fixture.token(options.sourceScope ?? 'storage.read:/src', siteA.audience),
      write: await fixture.token(options.destinationScope ?? 'storage.create:/dst', siteB.audience),
    }
  }

  async function pull(options: CopyOptions = {}): Promise<Reply> {
    const { source, destination, read, write } = await addresses(options)
    const headers = {
      Source: source,
      Credential: 'none',
      TransferHeaderAuthorization: `Bearer ${read}`,
      ...options.headers,
    }
    return fixture.call('COPY', destination, { token: write, headers })
  }

  async function push(options: CopyOptions = {}): Promise<Reply> {
    const { source, destination, read, write } = await addresses(options)
    const headers = {
      Destination: destination,
      Credential: 'none',
      TransferHeaderAuthorization: `Bearer ${write}`,
      ...options.headers,
    }
    return fixture.call('COPY', source, { token: read, headers })
  }

  const modes = { pull, push }
  const copied = () => readFile(join(siteB.directory, 'data/dst/f'), 'utf8')
  const left = async () =>
    (await readdir(siteB.directory, { withFileTypes: true, recursive: true })).filter(entry => entry.isFile())
  /** Uploads of SITE-B that have neither been given their name nor been removed. */
  const unfinished = async () => {
    const incoming = join(fixture.sandbox.directory, 'incoming', 'SITE-B')
    return (await readdir(incoming, { withFileTypes: true, recursive: true })).filter(entry => entry.isFile())
  }
  const lastLine = ({ text }: Reply) => text.trimEnd().split('\n').at(-1)

  for (const mode of ['pull', 'push'] as const) {
    describe(`by ${mode}`, () => {
      const copy = modes[mode]

      it('brings the file, with a marker at once and the outcome in the last line', async () => {
        const reply = await copy()
        expect(reply.status).to.equal(202)
        expect(reply.text).to.match(
          /^Perf Marker\nTimestamp: \d+\nStripe Index: 0\nStripe Bytes Transferred: 0\nTotal Stripe Count: 1\nRemoteConnections: tcp:[^\n]*\nEnd\nsuccess: Created\n$/,
        )
        expect(await copied()).to.equal(CONTENT)
      })

      it('brings the empty file', async () => {
        const token = await fixture.token('storage.modify:/', siteA.audience)
        await fixture.call('PUT', `${siteA.url}/data/src/empty`, { token, body: '' })
        expect(lastLine(await copy({ source: `${siteA.url}/data/src/empty` }))).to.equal('success: Created')
        expect(await copied()).to.equal('')
      })

      it('refuses with Overwrite: F what is there: 412', async () => {
        await copy()
        const scopes = { destinationScope: 'storage.modify:/dst storage.read:/dst' }
        expect((await copy({ ...scopes, headers: { Overwrite: 'F' } })).status).to.equal(412)
      })

      it('overwrites with modify only', async () => {
        await copy()
        const token = await fixture.token('storage.modify:/', siteA.audience)
        await fixture.call('PUT', `${siteA.url}/data/src/f`, { token, body: 'newer' })
        const kept = await copy()
        expect(`${kept.status} ${lastLine(kept)}`).to.match(/403/)
        expect(await copied()).to.equal(CONTENT)
        expect(lastLine(await copy({ destinationScope: 'storage.modify:/dst' }))).to.equal('success: Created')
        expect(await copied()).to.equal('newer')
      })

      it('fails within the answer when the passive side refuses, and leaves nothing', async () => {
        const wrong =
          mode === 'pull'
            ? { sourceScope: 'storage.read:/elsewhere' }
            : { destinationScope: 'storage.create:/elsewhere' }
        const reply = await copy(wrong)
        expect(reply.status).to.equal(202)
        expect(lastLine(reply)).to.match(/^failure: Remote side failed with status code 403; error message: ".+"$/)
        expect(await left()).to.deep.equal([])
      })

      it('refuses with 403 before it begins when its own token grants too little', async () => {
        const wrong = mode === 'pull' ? { destinationScope: 'storage.read:/' } : { sourceScope: 'storage.create:/' }
        expect((await copy(wrong)).status).to.equal(403)
      })

      it('refuses what is no COPY: http, delegation, both directions, neither', async () => {
        const address = mode === 'pull' ? { source: 'http://localhost:1/f' } : { destination: 'http://localhost:1/f' }
        expect((await copy(address)).status).to.equal(400)
        expect((await copy({ headers: { Credential: 'gridsite' } })).status).to.equal(400)
        const both = mode === 'pull' ? { Destination: siteA.url } : { Source: siteA.url }
        expect((await copy({ headers: both })).status).to.equal(400)
        expect((await copy({ headers: { Overwrite: 'perhaps' } })).status).to.equal(400)
      })

      it('can be switched off: 501', async () => {
        for (const storage of [a, b]) storage.behaviour[mode] = false
        expect((await copy()).status).to.equal(501)
      })

      it('fails when the other side can`t be reached', async () => {
        await (mode === 'pull' ? a : b).stop()
        const reply = await copy()
        expect(lastLine(reply)).to.match(/^failure: .*ECONNREFUSED/)
        expect(await left()).to.deep.equal([])
        if (mode === 'pull') a = await startStorage(fixture.sandbox, 'SITE-A', {}, runtime)
        else b = await startStorage(fixture.sandbox, 'SITE-B', {}, runtime)
      })
    })
  }

  it('fails by pull when the source is missing, as 202 and a failure line', async () => {
    const reply = await pull({ source: `${siteA.url}/data/src/none` })
    expect(reply.status).to.equal(202)
    expect(lastLine(reply)).to.match(/^failure: Remote side failed with status code 404/)
    expect(await left()).to.deep.equal([])
  })

  it('refuses by push when the source is missing: 404', async () => {
    expect((await push({ source: `${siteA.url}/data/src/none` })).status).to.equal(404)
  })

  it('fails at the quota and leaves nothing', async () => {
    const token = await fixture.token('storage.modify:/', siteA.audience)
    await fixture.call('PUT', `${siteA.url}/data/src/f`, { token, body: 'x'.repeat(1_001) })
    expect(lastLine(await pull())).to.match(/^failure: quota exceeded: only 1000 bytes fit$/)
    expect(lastLine(await push())).to.match(/^failure: Remote side failed with status code 507/)
    expect(await left()).to.deep.equal([])
  })

  it('is WebDAV`s own COPY when the destination is here and no passive side is addressed', async () => {
    const token = await fixture.token('storage.read:/src storage.create:/dst', siteA.audience)
    const headers = { Destination: `${siteA.url}/data/dst/g` }
    expect((await fixture.call('COPY', `${siteA.url}/data/src/f`, { token, headers })).status).to.equal(201)
    expect(await readFile(join(siteA.directory, 'data/dst/g'), 'utf8')).to.equal(CONTENT)
    expect((await fixture.call('COPY', `${siteA.url}/data/src/f`, { token, headers })).status).to.equal(403)
  })

  describe('with another source', () => {
    /** A source that does what `answer` says. */
    async function startOther(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
      const { certificateFile, keyFile } = fixture.sandbox.authority
      other = createServer({ cert: await readFile(certificateFile), key: await readFile(keyFile) }, answer)
      await once(other.listen(0, '127.0.0.1'), 'listening')
      return `https://localhost:${(other.address() as AddressInfo).port}/f`
    }

    it('sends it the transfer headers in their documented capitals (XRootD before 5.7 needs them)', async () => {
      let seen: string[] = []
      const source = await startOther((request, response) => {
        seen = request.rawHeaders
        response.end(CONTENT)
      })
      await pull({ source, headers: { 'TransferHeaderX-Request-Name': 'n', transferheaderscitag: '65' } })
      expect(seen).to.include.members(['Authorization', 'X-Request-Name', 'SciTag'])
    })

    it('follows a redirect of it, token and all, but never to http or another host', async () => {
      const token: (string | undefined)[] = []
      const to = { location: '/elsewhere' }
      const source = await startOther((request, response) => {
        token.push(request.headers.authorization)
        if (request.url === '/elsewhere') response.end(CONTENT)
        else response.writeHead(307, to).end()
      })
      expect(lastLine(await pull({ source }))).to.equal('success: Created')
      expect(token[1])
        .to.equal(token[0])
        .and.match(/^Bearer /)
      for (const location of [source.replace('https', 'http'), 'https://evil.example.org/f']) {
        to.location = location
        expect(lastLine(await pull({ source, destination: `${siteB.url}/data/dst/g` }))).to.match(
          /^failure: .*redirect/,
        )
      }
    })

    it('notices when it is cut off, and leaves nothing', async () => {
      const source = await startOther((_request, response) => {
        response.writeHead(200, { 'Content-Length': 100 })
        response.write('half', () => response.destroy())
      })
      expect(lastLine(await pull({ source }))).to.match(/^failure: /)
      expect(await left()).to.deep.equal([])
    })

    it('leaves the part behind when told to', async () => {
      b.behaviour.debris = true
      const source = await startOther((_request, response) => {
        response.writeHead(200, { 'Content-Length': 100 })
        response.write('half', () => response.destroy())
      })
      expect(lastLine(await pull({ source }))).to.match(/^failure: /)
      expect(await copied()).to.equal('half')
    })

    it('does not pass on a token that it quotes in its refusal', async () => {
      const source = await startOther((request, response) => {
        response.writeHead(403).end(`no: ${request.headers.authorization}`)
      })
      const { text } = await pull({ source })
      expect(text).to.include('403').and.not.match(/eyJ/)
    })

    /** A source that sends half; `begun` gives its answer, to be finished or to watch. */
    async function startStalling(): Promise<{ source: string; begun: Promise<ServerResponse> }> {
      let begin: (response: ServerResponse) => void
      const begun = new Promise<ServerResponse>(resolve => {
        begin = resolve
      })
      const source = await startOther((_request, response) => {
        response.writeHead(200, { 'Content-Length': CONTENT.length })
        response.write(CONTENT.slice(0, 4), () => begin(response))
      })
      return { source, begun }
    }

    /** Sends a COPY, and takes the client away once the source has begun. Resolves to the source's answer. */
    async function disconnectHalfway(): Promise<ServerResponse> {
      const { source, begun } = await startStalling()
      const { write, read } = await addresses({})
      const response = await fixture.http.request({
        method: 'COPY',
        url: `${siteB.url}/data/dst/f`,
        headers: { Authorization: `Bearer ${write}`, Source: source, TransferHeaderAuthorization: `Bearer ${read}` },
      })
      const half = await begun
      response.body.destroy()
      return half
    }

    it('aborts and cleans up when the client goes', async () => {
      const half = await disconnectHalfway()
      await once(half, 'close')
      await b.settled()
      expect(await left()).to.deep.equal([])
      expect(await unfinished()).to.deep.equal([])
    })

    it('goes on when the client goes, if it plays StoRM', async () => {
      b.behaviour.afterDisconnect = 'go-on'
      const half = await disconnectHalfway()
      half.end(CONTENT.slice(4))
      await b.settled()
      expect(await copied()).to.equal(CONTENT)
    })
  })

  describe('speaks the dialects of real storages', () => {
    it('201', async () => {
      b.behaviour.copyStatus = 201
      expect((await pull()).status).to.equal(201)
    })

    it('indented markers with more fields', async () => {
      b.behaviour.markers = 'indented'
      const { text } = await pull()
      expect(text).to.match(/^Perf Marker\n( {4}[^\n]+\n)+End\nsuccess: Created\n$/)
      expect(text).to.include('    State: ').and.include('    Stripe Bytes Transferred: 0\n')
    })

    it('no newline at the end', async () => {
      b.behaviour.finalNewline = false
      expect((await pull()).text).to.match(/End\nsuccess: Created$/)
    })

    it('nothing before the end of a short copy', async () => {
      b.behaviour.lateHeaders = true
      expect((await pull()).text).to.equal('success: Created\n')
    })

    it('no outcome', async () => {
      b.behaviour.withholdOutcome = true
      expect((await pull()).text)
        .to.match(/End\n$/)
        .and.not.include('success')
    })

    it('409 when the parent is missing', async () => {
      b.behaviour.makeParents = false
      expect((await pull()).status).to.equal(409)
    })

    it('no adler32', async () => {
      a.behaviour.checksums = ['md5']
      const token = await fixture.token('storage.read:/', siteA.audience)
      const head = (algorithm: string) =>
        fixture.call('HEAD', `${siteA.url}/data/src/f`, { token, headers: { 'Want-Digest': algorithm } })
      expect((await head('adler32')).headers).to.not.have.property('digest')
      expect((await head('md5')).headers.digest).to.match(/^md5=/)
    })

    it('slowness, with a marker every period', async () => {
      // 37 bytes in four steps of 0.1 s
      b.behaviour.bytesPerSecond = 100
      b.behaviour.markerSeconds = 0.1
      const { read, write, source, destination } = await addresses({})
      const response = await fixture.http.request({
        method: 'COPY',
        url: destination,
        headers: { Authorization: `Bearer ${write}`, Source: source, TransferHeaderAuthorization: `Bearer ${read}` },
      })
      const text = await response.text(10_000)
      const bytes = [...text.matchAll(/Transferred: (\d+)/g)].map(match => Number(match[1]))
      expect(bytes.length).to.be.greaterThan(1)
      expect(bytes).to.deep.equal(bytes.toSorted((x, y) => x - y))
      expect(text).to.match(/success: Created\n$/)
    })
  })
})
