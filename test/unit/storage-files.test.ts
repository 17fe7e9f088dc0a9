import { Readable } from 'node:stream'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { StorageError } from '../../shared/storage/types.ts'
import { ManualClock } from './http-manual-clock.ts'
import { Stage } from './storage-stage.ts'

const TOKEN = new Secret('the-token-0123')

describe('storage client', () => {
  let clock: ManualClock
  let stage: Stage
  beforeEach(() => {
    clock = new ManualClock()
    stage = new Stage(clock)
  })
  afterEach(() => stage.close())

  const verbs = () => stage.asked.map(({ method, path }) => `${method} ${path}`)

  async function failure(run: Promise<unknown>): Promise<string> {
    const error = await run.catch((error: unknown) => error)
    expect(error).to.be.instanceOf(StorageError)
    return error instanceof StorageError ? `${error.failure.code} ${error.failure.scope}` : ''
  }

  describe('head', () => {
    it('tells size and checksum, and asks for it in the right capitals', async () => {
      const url = await stage.storage((_request, response) =>
        response.writeHead(200, { 'Content-Length': '6', Digest: 'adler32=84b021f' }).end(),
      )
      const found = await stage.client.head(`${url}/f`, TOKEN, { wantDigest: 'adler32', expectedSize: 6 })
      expect(found).to.deep.equal({ exists: true, size: 6, checksums: { adler32: '084b021f' } })
      expect(stage.asked[0]?.headers).to.include({ 'Want-Digest': 'adler32', Authorization: 'Bearer the-token-0123' })
    })

    it('does not take another algorithm for the one asked for', async () => {
      const url = await stage.storage((_request, response) =>
        response.writeHead(200, { 'Content-Length': '6', Digest: 'adler32=084b021f' }).end(),
      )
      const found = await stage.client.head(`${url}/f`, TOKEN, { wantDigest: 'md5' })
      expect(found).to.deep.equal({ exists: true, size: 6, checksums: { adler32: '084b021f' } })
    })

    it('tells that there is nothing', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(404).end())
      expect(await stage.client.head(url, TOKEN)).to.deep.equal({ exists: false })
    })

    it('tells a refusal', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(403).end())
      expect(await failure(stage.client.head(url, TOKEN, { scope: 'SOURCE' }))).to.equal('PERMISSION_DENIED SOURCE')
    })

    it('is repeated once after a lost connection', async () => {
      const url = await stage.storage((request, response) => {
        if (stage.asked.length === 1) request.socket.destroy()
        else response.writeHead(200, { 'Content-Length': '1' }).end()
      })
      expect(await stage.client.head(url, TOKEN)).to.include({ exists: true, size: 1 })
      expect(verbs()).to.deep.equal(['HEAD /', 'HEAD /'])
    })
  })

  describe('put', () => {
    const hello = () => Readable.from([Buffer.from('hel'), Buffer.from('lo\n')])

    it('looks first, waits for leave, sends the length, and sums', async () => {
      let stored = ''
      const url = await stage.storage((request, response) => {
        if (request.method === 'HEAD') {
          response.writeHead(404).end()
          return
        }
        response.writeContinue()
        request.on('data', data => {
          stored += data
        })
        request.on('end', () => response.writeHead(201).end())
      })
      const sums = await stage.client.put(`${url}/f`, TOKEN, hello(), 6, { overwrite: false })
      expect(sums).to.deep.equal({ adler32: '084b021f', md5: 'b1946ac92492d2347c6235b4d2611184' })
      expect(stored).to.equal('hello\n')
      expect(verbs()).to.deep.equal(['HEAD /f', 'PUT /f'])
      expect(stage.asked[1]?.headers).to.include({ 'Content-Length': '6', Expect: '100-continue' })
    })

    it('does not touch a file that is there', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(200).end())
      const body = hello()
      expect(await failure(stage.client.put(url, TOKEN, body, 6, { overwrite: false }))).to.equal(
        'DESTINATION_EXISTS GENERAL',
      )
      expect(verbs()).to.deep.equal(['HEAD /'])
      expect(body.destroyed).to.equal(true)
    })

    it('follows a redirect before the body is sent', async () => {
      const url = await stage.storage((request, response) => {
        if (request.url === '/door') {
          response.writeHead(307, { Location: '/pool' }).end()
          return
        }
        response.writeContinue()
        request.on('end', () => response.writeHead(201).end()).resume()
      })
      await stage.client.put(`${url}/door`, TOKEN, hello(), 6, { overwrite: true })
      expect(verbs()).to.deep.equal(['PUT /door', 'PUT /pool'])
    })

    for (const [announced, words] of [
      [5, 'more than'],
      [7, 'only 6 of'],
    ] as const) {
      it(`fails when ${announced} bytes were announced and 6 come`, async () => {
        const url = await stage.storage((request, response) => {
          response.writeContinue()
          request.resume()
        })
        const error = await stage.client
          .put(url, TOKEN, hello(), announced, { overwrite: true })
          .catch((error: unknown) => error)
        expect(error).to.have.property('code', 'SIZE_MISMATCH')
        expect(error).to.have.property('message').that.includes(words)
      })
    }

    it('tells a full storage that says so before the file was sent', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(507).end('quota exceeded'))
      const run = stage.client.put(url, TOKEN, hello(), 6, { overwrite: true, scope: 'DESTINATION' })
      expect(await failure(run)).to.equal('DESTINATION_FULL DESTINATION')
    })

    it('does not believe a storage that is content before the file was sent', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(201).end())
      const run = stage.client.put(url, TOKEN, hello(), 6, { overwrite: true })
      expect(await failure(run)).to.equal('PROTOCOL_VIOLATION GENERAL')
    })
  })

  describe('get', () => {
    it('reads a file', async () => {
      const url = await stage.storage((_request, response) =>
        response.writeHead(200, { 'Content-Length': '5' }).end('hello'),
      )
      const { body, size } = await stage.client.get(url, TOKEN)
      expect([size, Buffer.concat(await body.toArray()).toString()]).to.deep.equal([5, 'hello'])
    })

    it('reads a range, and refuses another one', async () => {
      const url = await stage.storage((_request, response) =>
        response.writeHead(206, { 'Content-Range': 'bytes 1-2/5' }).end('el'),
      )
      const { body } = await stage.client.get(url, TOKEN, { range: { first: 1, last: 2 } })
      expect(Buffer.concat(await body.toArray()).toString()).to.equal('el')
      expect(stage.asked[0]?.headers).to.include({ Range: 'bytes=1-2' })
      expect(await failure(stage.client.get(url, TOKEN, { range: { first: 2, last: 3 } }))).to.equal(
        'PROTOCOL_VIOLATION GENERAL',
      )
    })

    it('refuses the whole file when a range was asked for', async () => {
      const url = await stage.storage((_request, response) => response.end('hello'))
      expect(await failure(stage.client.get(url, TOKEN, { range: { first: 1, last: 2 } }))).to.equal(
        'PROTOCOL_VIOLATION GENERAL',
      )
    })
  })

  describe('remove', () => {
    it('tells whether there was a file', async () => {
      const url = await stage.storage((request, response) => response.writeHead(request.url === '/f' ? 204 : 404).end())
      expect(await stage.client.remove(`${url}/f`, TOKEN)).to.deep.equal({ existed: true })
      expect(await stage.client.remove(`${url}/g`, TOKEN)).to.deep.equal({ existed: false })
    })

    it('is not repeated after a lost connection: its permit may have run out', async () => {
      const url = await stage.storage(request => request.socket.destroy())
      expect(await failure(stage.client.remove(url, TOKEN, { scope: 'DESTINATION' }))).to.equal(
        'CONNECTION_LOST DESTINATION',
      )
      expect(verbs()).to.deep.equal(['DELETE /'])
    })
  })

  describe('mkcol', () => {
    /** A storage that makes no parents; `there`: what exists. */
    function plain(there: Set<string>, whenThere: number) {
      return stage.storage((request, response) => {
        const path = (request.url ?? '').replace(/\/$/, '')
        const parent = path.replace(/\/[^/]*$/, '')
        if (request.method === 'PROPFIND') response.writeHead(there.has(path) ? 207 : 404).end()
        else if (there.has(path)) response.writeHead(whenThere).end()
        else if (parent !== '' && !there.has(parent)) response.writeHead(409).end()
        else {
          there.add(path)
          response.writeHead(201).end()
        }
      })
    }

    it('makes only the parents that are missing, and remembers', async () => {
      const url = await plain(new Set(['/exp']), 405)
      await stage.client.mkcol(`${url}/exp/a/b`, TOKEN)
      expect(verbs().filter(verb => verb.startsWith('MKCOL'))).to.deep.equal([
        'MKCOL /exp/a/b/',
        'MKCOL /exp/a/',
        'MKCOL /exp/a/b/',
      ])
      const before = stage.asked.length
      await stage.client.mkcol(`${url}/exp/a/b/`, TOKEN)
      await stage.client.mkcol(`${url}/exp/a`, TOKEN)
      expect(stage.asked.length).to.equal(before)
    })

    it('forgets after a minute', async () => {
      const url = await plain(new Set(['/exp']), 405)
      await stage.client.mkcol(`${url}/exp/a`, TOKEN)
      await clock.advance(60_001)
      await stage.client.mkcol(`${url}/exp/a`, TOKEN)
      expect(verbs()).to.deep.equal(['MKCOL /exp/a/', 'MKCOL /exp/a/'])
    })

    it('takes the 409 of XRootD 6 for what exists', async () => {
      const url = await plain(new Set(['/exp', '/exp/a']), 409)
      await stage.client.mkcol(`${url}/exp/a`, TOKEN)
      expect(verbs()).to.deep.equal(['MKCOL /exp/a/', 'PROPFIND /exp/a/'])
    })

    it('asks once for many that want the same', async () => {
      const url = await plain(new Set(['/exp']), 405)
      await Promise.all(Array.from({ length: 50 }, () => stage.client.mkcol(`${url}/exp/a`, TOKEN)))
      expect(verbs()).to.deep.equal(['MKCOL /exp/a/'])
    })

    it('tells a refusal, and does not remember it', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(403).end())
      for (let i = 0; i < 2; i++) {
        const run = stage.client.mkcol(`${url}/exp/a`, TOKEN, { scope: 'DESTINATION' })
        expect(await failure(run)).to.equal('PERMISSION_DENIED DESTINATION')
      }
      expect(stage.asked).to.have.length(2)
    })

    it('ends at the root of a storage that never has a parent', async () => {
      const url = await stage.storage((_request, response) => response.writeHead(404).end())
      expect(await failure(stage.client.mkcol(`${url}/a/b/c`, TOKEN))).to.equal('PARENT_MISSING GENERAL')
    })
  })

  it('refuses an address that is none, without quoting it', async () => {
    const error = await stage.client.head('nonsense?authz=abc', TOKEN).catch((error: unknown) => error)
    expect(error).to.have.property('code', 'STORAGE_ADDRESS')
    expect(String(error)).not.to.include('abc')
  })
})
