import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import {
  type Behaviour,
  PLAYED,
  type Played,
  type RunningIssuer,
  type RunningStorage,
  type StorageDescription,
  startIssuer,
  startStorage,
  WELL_BEHAVED,
} from '../../../sandbox/main.ts'
import { systemClock } from '../../../shared/runtime/clock.ts'
import { Fixture, type Reply } from './fixture.ts'

const CONTENT = 'a waybill travels with a consignment\n'
const ADLER32 = '070e0dc3'

/** The tables of facts/http-tpc.md, line by line, as the embedded storage plays them. */
describe('the embedded storage plays', () => {
  let fixture: Fixture
  let issuer: RunningIssuer
  let a: RunningStorage
  let b: RunningStorage
  let siteA: StorageDescription
  let siteB: StorageDescription

  before(async () => {
    fixture = await Fixture.create()
    issuer = await startIssuer(fixture.sandbox)
    a = await startStorage(fixture.sandbox, 'SITE-A')
    b = await startStorage(fixture.sandbox, 'SITE-B')
    siteA = fixture.storage('SITE-A')
    siteB = fixture.storage('SITE-B')
    await place(siteA, 'src/f', CONTENT)
    await place(siteB, 'dst/other', '')
  })
  after(async () => {
    await Promise.all([a.stop(), b.stop(), issuer.stop()])
    await fixture.remove()
  })

  async function place(site: StorageDescription, path: string, content: string): Promise<string> {
    const file = join(site.directory, 'data', path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content)
    return file
  }
  function play(played: Played, more: Partial<Behaviour> = {}): void {
    for (const { behaviour } of [a, b]) Object.assign(behaviour, WELL_BEHAVED, PLAYED[played], more)
  }

  interface Asked {
    readonly mode?: 'pull' | 'push'
    readonly from?: string
    readonly to?: string
    /** Below a new name. */
    readonly parent?: string
    readonly scopes?: { readonly source?: string; readonly destination?: string }
    readonly headers?: Record<string, string>
  }
  async function copy({ mode = 'pull', from = 'src/f', to = 'dst/new', scopes = {}, headers }: Asked): Promise<Reply> {
    const read = await fixture.token(scopes.source ?? 'storage.read:/src', siteA.audience)
    const write = await fixture.token(scopes.destination ?? 'storage.modify:/dst storage.read:/dst', siteB.audience)
    const urls = { source: `${siteA.url}/data/${from}`, destination: `${siteB.url}/data/${to}` }
    const [url, token, passive, other] =
      mode === 'pull'
        ? [urls.destination, write, read, { Source: urls.source }]
        : [urls.source, read, write, { Destination: urls.destination }]
    return fixture.call('COPY', url, {
      token,
      headers: {
        ...other,
        Overwrite: 'F',
        Credential: 'none',
        TransferHeaderAuthorization: `Bearer ${passive}`,
        ...headers,
      },
    })
  }
  const outcome = ({ status, text }: Reply) => `${status} ${text.trimEnd().split('\n').at(-1)}`

  let targets = 0
  const fresh = () => {
    targets += 1
    return `dst/f${targets}`
  }

  /** Section 5: by case, what each answers; no entry: the table has none. */
  const CASES: readonly (readonly [string, Asked, Partial<Record<Played, RegExp>>])[] = [
    [
      'pull, source 404',
      { from: 'src/none' },
      {
        xrootd5: /^201 failure: Remote side failed with status code 404; error message: "no such file or directory"$/,
        xrootd6: /^404 failure: .*remote host returned '404 Not Found' while fetching file size, local=\S+, remote=\S+/,
        eos: /^500 failure: Remote side localhost failed with status code 404 while fetching remote size, local=/,
        storm: /^202 failure: Error fetching \S+: 404 status code: 404, reason phrase: Not Found$/,
        dcache: /^202 failure: rejected GET: 404 Not Found$/,
      },
    ],
    [
      'push, source missing',
      { mode: 'push', from: 'src/none' },
      { xrootd5: /^400 Unable to open \S+; no such file/, xrootd6: /^404/, storm: /^404/, dcache: /^404/, eos: /^400/ },
    ],
    [
      'permission at the active side',
      { scopes: { destination: 'storage.read:/dst' } },
      { xrootd5: /^401 Unable to create \S+; permission denied$/, xrootd6: /^403/, dcache: /^401/, eos: /^401/ },
    ],
    [
      'exists, Overwrite: F',
      { to: 'dst/other' },
      {
        xrootd5: /^412 Unable to create \S+; file exists$/,
        xrootd6: /^409 failure: Unable to create \S+; file exists, local=/,
        storm: /^412 Target file exists and Overwrite is false$/,
        dcache: /^500/,
        eos: /^412/,
      },
    ],
    [
      'parent missing',
      { parent: '/no/f' },
      { xrootd5: /^400/, xrootd6: /^202 success/, storm: /^409/, dcache: /^400/, eos: /^201 success/ },
    ],
    [
      'push, exists, Overwrite: F',
      { mode: 'push', to: 'dst/other' },
      {
        xrootd5: /^201 success/,
        xrootd6: /^202 success/,
        storm: /^202 failure: TransferError while pushing \S+: Remote file exists and overwrite is false$/,
        dcache: /^202 success/,
      },
    ],
    [
      'Credential other than none',
      { headers: { Credential: 'gridsite' } },
      { xrootd5: /^400/, xrootd6: /^400/, storm: /^400/, dcache: /^400/, eos: /^400/ },
    ],
  ]
  for (const [what, asked, answers] of CASES) {
    for (const [played, expected] of Object.entries(answers) as [Played, RegExp][]) {
      it(`${played}: ${what}`, async () => {
        play(played)
        expect(outcome(await copy({ to: `${fresh()}${asked.parent ?? ''}`, ...asked }))).to.match(expected)
      })
    }
  }

  it('xrootd5: Overwrite: T with a bad source empties a good file', async () => {
    play('xrootd5')
    const file = await place(siteB, 'dst/good', CONTENT)
    expect(outcome(await copy({ from: 'src/none', to: 'dst/good', headers: { Overwrite: 'T' } }))).to.match(/failure/)
    expect(await readFile(file, 'utf8')).to.equal('')
  })

  it('xrootd6: does not, since it asks for the source first', async () => {
    play('xrootd6')
    const file = await place(siteB, 'dst/good', CONTENT)
    expect(outcome(await copy({ from: 'src/none', to: 'dst/good', headers: { Overwrite: 'T' } }))).to.match(/^404/)
    expect(await readFile(file, 'utf8')).to.equal(CONTENT)
  })

  describe('the answer to a COPY (section 2)', () => {
    const marker = /^Perf Marker\n/
    for (const [played, status, first, end] of [
      ['xrootd5', 201, marker, /End\nsuccess: Created$/],
      ['xrootd6', 202, marker, /End\nsuccess: Created$/],
      ['storm', 202, /^success/, /^success: Created$/],
      ['dcache', 202, /^success/, /^success: Created\n$/],
    ] as const) {
      it(played, async () => {
        play(played)
        const reply = await copy({ to: fresh() })
        expect(reply.status).to.equal(status)
        expect(reply.text).to.match(first).and.to.match(end)
      })
    }

    it('XRootD names the other side once it is connected', async () => {
      play('xrootd5')
      expect((await copy({ to: fresh() })).text).not.to.include('RemoteConnections')
    })
  })

  describe('other verbs (sections 3 and 4)', () => {
    const scope = 'storage.modify:/dst storage.read:/dst'
    const ask = async (method: string, path: string, headers: Record<string, string> = {}, scopes = scope) => {
      const token = await fixture.token(scopes, siteB.audience)
      const body = method === 'PUT' ? { body: 'x' } : {}
      return fixture.call(method, `${siteB.url}/data/${path}`, { token, headers, ...body })
    }
    const statuses = async (method: string, path: string) => [
      (await ask(method, path)).status,
      (await ask(method, path)).status,
    ]

    for (const [played, mkcol, put] of [
      ['xrootd5', [201, 201], [200, 200]],
      ['xrootd6', [201, 409], [201, 200]],
      ['storm', [409, 409], [409, 409]],
    ] as const) {
      it(`${played}: MKCOL and PUT where parents are missing, and once more`, async () => {
        play(played)
        expect(await statuses('MKCOL', `${fresh()}/deep`)).to.deep.equal(mkcol)
        expect(await statuses('PUT', `${fresh()}/deep/f`)).to.deep.equal(put)
      })
    }

    it('xrootd5: DELETE is 200, HEAD needs read, and its refusal ends the connection', async () => {
      play('xrootd5')
      await place(siteB, 'dst/gone', 'x')
      expect((await ask('DELETE', 'dst/gone')).status).to.equal(200)
      const refused = await ask('HEAD', 'dst/other', {}, 'storage.create:/dst')
      expect(refused.status).to.equal(403)
      expect(refused.headers.connection).to.equal('close')
    })

    it('xrootd5: an unknown checksum is answered by the first that it has', async () => {
      play('xrootd5')
      await place(siteB, 'dst/summed', CONTENT)
      const { headers } = await ask('HEAD', 'dst/summed', { 'Want-Digest': 'sha-256' })
      expect(headers.digest).to.equal(`adler32=${ADLER32}`)
    })

    it('xrootd6: Want-Repr-Digest is answered in its own form, unless both are asked for', async () => {
      play('xrootd6')
      await place(siteB, 'dst/summed', CONTENT)
      const wanted = { 'Want-Repr-Digest': 'adler32=1' }
      const alone = await ask('HEAD', 'dst/summed', wanted)
      expect(alone.headers['repr-digest']).to.match(/^adler32?=:[A-Za-z0-9+/]+=*:$/)
      const both = await ask('HEAD', 'dst/summed', { ...wanted, 'Want-Digest': 'adler32' })
      expect(both.headers)
        .to.include({ digest: `adler32=${ADLER32}` })
        .and.not.to.have.property('repr-digest')
    })

    it('xrootd5: headers count in their documented capitals only', async () => {
      play('xrootd5')
      const token = await fixture.token('storage.read:/dst', siteB.audience)
      const url = `${siteB.url}/data/dst/other`
      const head = (headers: Record<string, string>) => fixture.call('HEAD', url, { headers })
      expect((await head({ AUTHORIZATION: `Bearer ${token}` })).status).to.equal(403)
      expect((await head({ Authorization: `Bearer ${token}` })).status).to.equal(200)
    })
  })

  describe('dcache', () => {
    it('thinks of delegation unless it is told not to', async () => {
      play('dcache')
      const token = await fixture.token('storage.modify:/dst', siteB.audience)
      const headers = { Source: `${siteA.url}/data/src/f` }
      expect((await fixture.call('COPY', `${siteB.url}/data/dst/delegated`, { token, headers })).status).to.equal(500)
    })

    it('fails where the source tells no checksum, unless it is told not to care', async () => {
      play('dcache', { checksums: [] })
      expect(outcome(await copy({ to: fresh() }))).to.equal('202 failure: no checksum in HEAD response')
      expect(outcome(await copy({ to: fresh(), mode: 'push' }))).to.match(
        /^202 failure: verification failed: no useful/,
      )
      const headers = { RequireChecksumVerification: 'false' }
      expect(outcome(await copy({ to: fresh(), headers }))).to.equal('202 success: Created')
      expect(outcome(await copy({ to: fresh(), mode: 'push', headers }))).to.equal('202 success: Created')
    })

    it('blocks a client after its third 401, whatever it asks, and says for how long', async () => {
      const siteC = fixture.storage('SITE-C')
      const behaviour = { blocks: { refusals: 3, seconds: 1 } }
      const c = await startStorage(fixture.sandbox, 'SITE-C', { plays: 'dcache', behaviour })
      const token = await fixture.token('storage.read:/dst', siteC.audience)
      const head = async (bearer: string) => fixture.call('HEAD', `${siteC.url}/data/dst/none`, { token: bearer })
      for (const bearer of ['bad', 'bad', 'bad']) expect((await head(bearer)).status).to.equal(401)
      const blocked = await head(token)
      expect(blocked.status).to.equal(429)
      expect(blocked.headers['retry-after']).to.equal('1')
      await systemClock.sleep(1_050)
      expect((await head(token)).status).to.equal(404)
      await c.stop()
    })
  })
})
