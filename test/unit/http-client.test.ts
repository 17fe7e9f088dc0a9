import { once } from 'node:events'
import { createServer as createHttpServer, request as plainRequest, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, createServer as createNetServer, type Server as NetServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { expect } from 'chai'
import { createAgentClient } from '../../shared/http/agent-client.ts'
import { ConnectionPool } from '../../shared/http/agents.ts'
import type { HttpClient, HttpRequest, HttpTimeouts } from '../../shared/http/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { asFetch } from '../../shared/http/fetch.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { wireHeaders, wireName } from '../../shared/http/wire.ts'
import { systemClock as clock } from '../../shared/runtime/clock.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { until } from '../house/until.ts'
import { ManualClock } from './http-manual-clock.ts'

const trust = createTrust({ defaultRoots: true, clock, log })
const TOKEN = 'eyJhbGciOiJub25lIn0.c2VjcmV0.c2lnbmF0dXJl'

describe('header names on the wire', () => {
  const cases: [string, string][] = [
    ['authorization', 'Authorization'],
    ['want-digest', 'Want-Digest'],
    ['content-length', 'Content-Length'],
    ['transferheaderauthorization', 'TransferHeaderAuthorization'],
    ['clientinfo', 'ClientInfo'],
    ['etag', 'ETag'],
    ['TransferHeaderAuthorization', 'TransferHeaderAuthorization'],
    ['x-Odd', 'x-Odd'],
  ]
  for (const [given, wire] of cases) it(`${given} goes out as ${wire}`, () => expect(wireName(given)).to.equal(wire))

  it('refuses what HTTP cannot carry without quoting it', () => {
    expect(() => wireHeaders({ Authorization: `Bearer ${TOKEN}\r\nX: y` }))
      .to.throw(/"Authorization"/)
      .with.property('message')
      .that.does.not.include(TOKEN)
  })
})

describe('HTTP client over kept agents', () => {
  it('keeps the connection of an answer that is there before Node has heard that the request went out', async () => {
    const connections: Socket[] = []
    const server = createNetServer(socket => {
      connections.push(socket)
      // The test ends in the middle of a request.
      socket.on('error', () => undefined)
      let isNew = true
      socket.on('data', data => {
        // The answer comes with the first of it; the rest is read later.
        if (isNew) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', () => void socket.pause())
        if (isNew) void clock.sleep(100).then(() => socket.resume())
        isNew = data.includes('\r\n\r\n')
      })
    })
    const url = await listen(server)
    const client = createAgentClient({ trust, clock, maxSockets: 1 })
    try {
      const headers = { Long: 'x'.repeat(16_000_000) }
      for (let i = 0; i < 2; i += 1) await (await client.request({ method: 'GET', url, headers })).text(10)
      expect(connections).to.have.length(1)
    } finally {
      client.close()
      for (const socket of connections) socket.destroy()
      server.close()
    }
  })
})

describe('kept connections', () => {
  it('may break between two requests, when Node listens for no error', async () => {
    const server = createHttpServer((_request, response) => response.end())
    const url = await listen(server)
    const pool = new ConnectionPool({ trust })
    const request = plainRequest(url, { agent: pool.agents().http })
    const [socket] = (await Promise.all([once(request, 'socket'), request.end()]))[0] as [Socket]
    // A reset that Node tells of after an answer which came before the request went out [seen, Node 20]: one in twenty of the above.
    request.once('response', response => response.resume()).once('close', () => socket.destroy(new Error('ECONNRESET')))
    try {
      // `once` would listen for an error.
      await new Promise(resolve => socket.once('close', resolve))
    } finally {
      pool.close()
      server.close()
    }
  })
})

const implementations: [string, (options: { fresh?: boolean; timeouts?: HttpTimeouts }) => HttpClient][] = [
  ['got', options => createGotClient({ trust, ...options })],
  ['kept agents', options => createAgentClient({ trust, clock, ...options })],
]

for (const [name, create] of implementations) {
  describe(`HTTP client over ${name}`, () => {
    const closing: (() => void)[] = []
    let client: HttpClient
    beforeEach(() => {
      client = create({})
      closing.push(() => client.close())
    })
    afterEach(() => {
      for (const close of closing.splice(0)) close()
    })

    async function serve(listener: RequestListener): Promise<{ url: string; server: Server }> {
      const server = createHttpServer(listener)
      closing.push(
        () => void server.close(),
        () => server.closeAllConnections(),
      )
      return { url: await listen(server), server }
    }

    /** A server without any HTTP of its own. */
    async function serveRaw(onConnection: (socket: Socket) => void): Promise<string> {
      const sockets: Socket[] = []
      const server = createNetServer(socket => {
        sockets.push(socket)
        socket.on('error', () => undefined)
        onConnection(socket)
      })
      closing.push(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
      return listen(server)
    }

    it('sends header names in the capitals they have or are documented with', async () => {
      let received = ''
      const url = await serveRaw(socket => {
        socket.on('data', data => {
          received += data
          if (received.includes('\r\n\r\n')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
        })
      })
      const headers = { Authorization: 'Bearer t', TransferHeaderAuthorization: 'Bearer p', 'want-digest': 'adler32' }
      await client.request({ method: 'COPY', url: `${url}/f`, headers })
      const lines = received.split('\r\n')
      expect(lines).to.include.members([
        'COPY /f HTTP/1.1',
        'Authorization: Bearer t',
        'TransferHeaderAuthorization: Bearer p',
        'Want-Digest: adler32',
      ])
      expect(lines.slice(1).filter(line => /^[a-z]/.test(line))).to.deep.equal([])
    })

    it('sends a stored length as Content-Length, in capitals', async () => {
      let received = ''
      const url = await serveRaw(socket => {
        socket.on('data', data => {
          received += data
          if (received.endsWith('hello')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
        })
      })
      const body = Readable.from([Buffer.from('hello')])
      await client.request({ method: 'PUT', url, headers: { 'content-length': '5' }, body })
      expect(received).to.match(/\r\nContent-Length: 5\r\n/)
      expect(received).not.to.match(/transfer-encoding/i)
    })

    for (const status of [201, 307, 404, 503]) {
      it(`answers with status ${status} as it came`, async () => {
        const { url } = await serve((_request, response) => {
          response.writeHead(status, { Location: 'http://elsewhere.example/', 'X-Twice': ['a', 'b'] }).end('words')
        })
        const answer = await client.request({ method: 'GET', url })
        expect(answer.status).to.equal(status)
        expect(answer.headers['x-twice']).to.equal('a, b')
        expect(await answer.text(100)).to.equal('words')
      })
    }

    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'MKCOL', 'PROPFIND', 'COPY']) {
      it(`speaks ${method} without a body`, async () => {
        const { url } = await serve((request, response) => response.end(request.method))
        const answer = await client.request({ method, url })
        expect(await answer.text(100)).to.equal(method === 'HEAD' ? '' : method)
      })
    }

    it('cuts a long text off', async () => {
      const { url } = await serve((_request, response) => response.end('x'.repeat(1_000_000)))
      expect(await (await client.request({ method: 'GET', url })).text(10)).to.equal('xxxxxxxxxx')
    })

    it('keeps the connection, and does not when told so', async () => {
      const ports = new Set<number | undefined>()
      const { url } = await serve((request, response) => {
        ports.add(request.socket.remotePort)
        response.end('ok')
      })
      for (let i = 0; i < 5; i++) await (await client.request({ method: 'GET', url })).text(10)
      expect(ports.size).to.equal(1)
      const fresh = create({ fresh: true })
      closing.push(() => fresh.close())
      for (let i = 0; i < 5; i++) await (await fresh.request({ method: 'GET', url })).text(10)
      expect(ports.size).to.equal(6)
    })

    it('frees the connection of a short answer nobody reads', async () => {
      const ports = new Set<number | undefined>()
      const { url } = await serve((request, response) => {
        ports.add(request.socket.remotePort)
        response.end('ok')
      })
      const answer = await client.request({ method: 'GET', url })
      await once(answer.body.resume(), 'close')
      await (await client.request({ method: 'GET', url })).text(10)
      expect(ports.size).to.equal(1)
    })

    async function failure(request: HttpRequest): Promise<HttpFailure> {
      try {
        const answer = await client.request(request)
        await answer.text(1_000_000)
      } catch (error) {
        expect(error).to.be.instanceOf(HttpFailure)
        if (error instanceof HttpFailure) return error
      }
      throw new Error('the request should have failed')
    }

    it('tells a name that does not resolve', async () => {
      expect((await failure({ method: 'GET', url: 'http://no-such-host.invalid/' })).kind).to.equal('resolve')
    })

    it('tells a refused connection', async () => {
      const { url, server } = await serve(() => undefined)
      server.close()
      await once(server, 'close')
      const refused = await failure({ method: 'GET', url })
      expect([refused.kind, refused.neverSent, refused.code]).to.deep.equal(['connect', true, 'HTTP_CONNECT'])
    })

    it('tells a TLS handshake with what is no TLS', async () => {
      const url = await serveRaw(socket => socket.end('not TLS at all\r\n'))
      const refused = await failure({ method: 'GET', url: url.replace('http:', 'https:') })
      expect(refused.kind).to.equal('tls')
    })

    it('tells a handshake that does not end', async () => {
      const url = (await serveRaw(() => undefined)).replace('http:', 'https:')
      const timeouts = { connect: 60, headers: 5000 }
      const late = await failure({ method: 'GET', url, timeouts })
      expect([late.kind, late.neverSent]).to.deep.equal(['timeout-connect', true])
    })

    it('tells headers that do not come, and is then not sure', async () => {
      const { url } = await serve(() => undefined)
      const late = await failure({ method: 'COPY', url, timeouts: { connect: 5000, headers: 60 } })
      expect([late.kind, late.neverSent]).to.deep.equal(['timeout-headers', false])
    })

    it('tells a body that takes too long', async () => {
      const { url } = await serve((_request, response) => response.write('begun'))
      const late = await failure({ method: 'GET', url, timeouts: { connect: 5000, headers: 5000, total: 150 } })
      expect(late.kind).to.equal('timeout-total')
    })

    it('tells a connection on which nothing moves', async () => {
      const { url } = await serve((_request, response) => response.write('begun'))
      const late = await failure({ method: 'GET', url, timeouts: { connect: 5000, headers: 5000, idle: 100 } })
      expect(late.kind).to.equal('timeout-idle')
    })

    it('tells an answer that is not HTTP', async () => {
      const url = await serveRaw(socket => socket.once('data', () => socket.end('Perf Marker\nEnd\nsuccess: Created')))
      expect((await failure({ method: 'COPY', url })).kind).to.equal('parse')
    })

    it('tells a connection that ends before the answer', async () => {
      const url = await serveRaw(socket => socket.once('data', () => socket.destroy()))
      expect((await failure({ method: 'COPY', url })).kind).to.equal('reset')
    })

    it('tells a connection that ends in the body', async () => {
      const url = await serveRaw(socket =>
        socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.')),
      )
      expect((await failure({ method: 'GET', url })).kind).to.equal('reset')
    })

    it('gives up when told, before, during and after the headers', async () => {
      expect((await failure({ method: 'GET', url: 'http://127.0.0.1:1/', signal: AbortSignal.abort() })).kind).to.equal(
        'aborted',
      )
      for (const begin of [false, true]) {
        const ending = new AbortController()
        const { url } = await serve((_request, response) => {
          if (begin) response.write('begun')
          setImmediate(() => ending.abort())
        })
        expect((await failure({ method: 'GET', url, signal: ending.signal })).kind).to.equal('aborted')
      }
    })

    it('fails when the body to send fails, and closes the connection', async () => {
      const body = new Readable({ read() {} })
      let onClosed: () => void = () => undefined
      const closed = new Promise<void>(resolve => {
        onClosed = resolve
      })
      const { url } = await serve(request => {
        request.on('error', () => undefined)
        request.once('close', onClosed)
        request.once('data', () => body.destroy(new Error('disk')))
      })
      body.push('some')
      expect((await failure({ method: 'PUT', url, headers: { 'Content-Length': '100' }, body })).kind).to.equal(
        'aborted',
      )
      await closed
    })

    it('destroys the body it was given when the exchange fails', async () => {
      const body = Readable.from(['x'])
      await failure({ method: 'PUT', url: 'http://127.0.0.1:1/', body })
      expect(body.destroyed).to.equal(true)
    })

    it('never quotes header values or the query', async () => {
      const url = await serveRaw(socket => socket.once('data', () => socket.destroy()))
      const headers = { Authorization: `Bearer ${TOKEN}` }
      const error = await failure({ method: 'GET', url: `${url}/path?authz=${TOKEN}`, headers })
      const shown = JSON.stringify([error.message, error.stack, error.cause, { ...error }])
      expect(shown).to.include('/path')
      expect(shown).not.to.include(TOKEN)
    })

    it('refuses an address that is none', async () => {
      for (const url of ['/relative', 'file:///etc/passwd', `nonsense ${TOKEN}`]) {
        const error = await client.request({ method: 'GET', url }).catch((error: unknown) => error)
        expect(error).to.have.property('code', 'HTTP_ADDRESS')
        expect(error).to.have.property('message').that.does.not.include(TOKEN)
      }
    })

    it('is a fetch for libraries', async () => {
      const { url } = await serve((request, response) => {
        let body = ''
        request.on('data', data => {
          body += data
        })
        request.on('end', () => {
          const seen = { body, type: request.headers['content-type'], method: request.method }
          response.writeHead(400, { 'Content-Type': 'application/json' }).end(JSON.stringify(seen))
        })
      })
      const fetch = asFetch(client)
      const answer = await fetch(url, {
        method: 'POST',
        headers: { accept: 'application/json' },
        body: new URLSearchParams({ grant_type: 'client_credentials' }),
      })
      expect(answer.status).to.equal(400)
      expect(answer.headers.get('content-type')).to.equal('application/json')
      expect(await answer.json()).to.deep.equal({
        body: 'grant_type=client_credentials',
        type: 'application/x-www-form-urlencoded;charset=UTF-8',
        method: 'POST',
      })
    })

    it('as a fetch gives an answer without a body, and refuses a status that is none', async () => {
      const { url } = await serve((_request, response) => response.writeHead(204).end())
      expect((await asFetch(client)(url)).body).to.equal(null)
      const odd = await serveRaw(socket =>
        socket.once('data', () => socket.end('HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n')),
      )
      const error = await asFetch(client)(odd).catch((error: unknown) => error)
      expect(error).to.be.instanceOf(HttpFailure).with.property('kind', 'parse')
    })
  })
}

describe('deadlines over kept agents', () => {
  it('end with a short answer, though nobody reads it', async () => {
    const server = createHttpServer((_request, response) => response.end())
    const url = await listen(server)
    const manual = new ManualClock()
    const client = createAgentClient({ trust, clock: manual })
    const { body } = await client.request({ method: 'HEAD', url })
    await until(
      async () => manual.sleepers,
      sleepers => sleepers === 0,
    )
    expect(body.readableDidRead).to.equal(false)
    client.close()
    server.close()
  })
})

describe('uploads over kept agents', () => {
  it('waits for 100 Continue, and keeps the body when another answer comes first', async () => {
    const server = createHttpServer((_request, response) => response.end())
    server.on('checkContinue', (request, response) => {
      if (request.url === '/door') {
        response.writeHead(307, { Location: '/pool' }).end()
        return
      }
      response.writeContinue()
      request.on('end', () => response.writeHead(201).end()).resume()
    })
    const url = await listen(server)
    const client = createAgentClient({ trust, clock })
    const body = Readable.from([Buffer.from('hello')])
    const headers = { 'Content-Length': '5', Expect: '100-continue' }
    const door = await client.request({ method: 'PUT', url: `${url}/door`, headers, body })
    expect(door.status).to.equal(307)
    expect(body.readableDidRead).to.equal(false)
    await door.text(10)
    expect((await client.request({ method: 'PUT', url: `${url}/pool`, headers, body })).status).to.equal(201)
    client.close()
    server.close()
    server.closeAllConnections()
  })

  it('bears a `100 Continue` that says `Connection: Close`, as XRootD 5.5.3 does', async () => {
    const server = createNetServer(socket => {
      socket.on('error', () => undefined)
      socket.on('data', data => {
        if (String(data).startsWith('PUT')) socket.write('HTTP/1.1 100 Continue\r\nConnection: Close\r\n\r\n')
        else socket.write('HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n\r\n:-)')
      })
    })
    const url = await listen(server)
    const client = createAgentClient({ trust, clock })
    const headers = { 'Content-Length': '5', Expect: '100-continue' }
    const stored = await client.request({ method: 'PUT', url, headers, body: Readable.from([Buffer.from('hello')]) })
    expect(await stored.text(10)).to.equal(':-)')
    client.close()
    server.close()
  })
})

async function listen(server: Server | NetServer): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
