import { createServer, request as httpRequest, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect } from 'chai'
import type { Caller } from '../../server/accounts/caller.ts'
import { createApp, type Handlers } from '../../server/app.ts'
import { parseJson } from '../../server/request-body.ts'
import { ApiError, createClient } from '../../shared/contract/client.ts'
import { problem } from '../../shared/contract/fields.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { createGotClient } from '../../shared/http/got-client.ts'
import { createTrust } from '../../shared/http/trust.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { type Logger, silentLogger } from '../../shared/runtime/logger.ts'
import { systemRandom } from '../../shared/runtime/random.ts'

const account = { id: 1, name: 'alice', voId: 1, vo: 'exp' }
const issuer = 'https://iam.example.org/'
/** Who the tokens of this test stand for. */
const CALLERS: Readonly<Record<string, Caller>> = {
  stranger: { issuer, subject: 'stranger', admin: false },
  alice: { issuer, subject: 'alice', admin: false, account },
  admin: { issuer, subject: 'admin', admin: true },
  pool: { issuer, subject: 'pool', admin: false, worker: { client: 'pool' } },
}

interface Logged {
  readonly fields: Record<string, unknown>
  readonly message: string
}

const logged: Logged[] = []
const keep = (fields: object, message: string): void => {
  logged.push({ fields: { ...fields }, message })
}
const log: Logger = { error: keep, warn: keep, info: keep, debug: keep }

let received: unknown
let ready = true

const handlers = {
  whoami: async ({ caller }) => ({ issuer, subject: caller.subject, admin: caller.admin, worker: false }),
  getDid: async ({ params }) => {
    received = params
    return {
      did: `${params.scope}:${params.name}`,
      type: 'DATASET',
      bytes: 0,
      files: 0,
      open: true,
      account: 'alice',
      createdAt: 0,
    }
  },
  listDids: async ({ query }) => {
    received = query
    return { items: [] }
  },
  listContents: async ({ query }) => {
    if (query.cursor === 'broken') throw new Error('the database is gone')
    const common = { type: 'FILE' as const, bytes: 0, files: 1, open: false, account: 'alice', createdAt: 0 }
    return { items: [{ did: 'exp:f', ...common }], next: 'broken' }
  },
  addDids: async request => {
    received = request
    return { created: request.body.dids.length }
  },
  addRse: async () => {
    throw new Error('insert into rses values (sealed-token) - SQLITE_FULL')
  },
  listRses: async () => {
    throw new WaybillError('ISSUER_UNREACHABLE', 'no answer from https://internal.example.org', { status: 503 })
  },
  addRules: async () => {
    throw new WaybillError('EXPRESSION_SYNTAX', 'position 3: a value is missing', { status: 400, field: 'expression' })
  },
  listVos: async () => ({ items: [], surprise: 'secret' }),
  claim: async ({ signal }) => {
    await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
    hungUp()
    await goOn
    return { transfers: [], more: false, storages: [], renewals: [], imports: [], tasks: [], drained: false }
  },
} satisfies Partial<Handlers>

let hungUp: () => void = () => undefined
let goOn = Promise.resolve()

async function authenticate(authorization: string | undefined): Promise<Caller> {
  const caller = CALLERS[authorization?.replace('Bearer ', '') ?? '']
  if (caller === undefined) throw new WaybillError('TOKEN_MISSING', 'send an access token', { status: 401 })
  return caller
}

describe('API: the app made from the route table', () => {
  let server: Server
  let url: string
  const counted: [string, number][] = []
  const works: Promise<void>[] = []

  before(done => {
    const app = createApp({
      handlers: handlers as unknown as Handlers,
      authenticate,
      log,
      random: systemRandom,
      elapsed: () => systemClock.monotonic() / 1000,
      ready: () => ready,
      onRequest: (route, status) => counted.push([route, status]),
      onWork: work => works.push(work),
      checkAnswers: true,
    })
    server = createServer(app).listen(0, '127.0.0.1', () => {
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      done()
    })
  })
  after(done => {
    server.closeAllConnections()
    server.close(done)
  })

  const ask = (method: string, path: string, as: string | undefined, init: RequestInit = {}): Promise<Response> =>
    fetch(`${url}${path}`, {
      method,
      ...init,
      headers: { ...(as === undefined ? {} : { authorization: `Bearer ${as}` }), ...(init.headers ?? {}) },
    })
  const send = (method: string, path: string, as: string, body: unknown, headers = {}): Promise<Response> =>
    ask(method, path, as, {
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })

  /** The problem document of a refused request, with its form checked. */
  async function refusal(response: Promise<Response>, status: number, code: string) {
    const answer = await response
    expect(answer.headers.get('content-type')).to.match(/^application\/problem\+json/)
    const document = problem.parse(await answer.json())
    expect([answer.status, document.status, document.code]).to.deep.equal([status, status, code])
    expect(document.id).to.match(/^[0-9a-f]{16}$/)
    return { ...document, headers: answer.headers }
  }

  it('serves the document and the page without a token', async () => {
    const document = (await (await ask('GET', '/openapi.json', undefined)).json()) as { openapi: string }
    expect(document.openapi).to.equal('3.1.0')
    const page = await ask('GET', '/docs', undefined)
    expect(page.headers.get('content-security-policy')).to.contain("style-src 'sha256-")
    expect(await page.text()).to.contain('<section id="addRules">')
  })

  it('answers /readyz by its state', async () => {
    expect((await ask('GET', '/readyz', undefined)).status).to.equal(200)
    ready = false
    const { headers } = await refusal(ask('GET', '/readyz', undefined), 503, 'NOT_READY')
    ready = true
    expect(headers.get('retry-after')).to.equal('5')
    expect((await ask('GET', '/livez', undefined)).status).to.equal(200)
  })

  it('sends security headers with everything', async () => {
    for (const path of ['/livez', '/nothing', '/v1/whoami']) {
      const { headers } = await ask('GET', path, undefined)
      expect(headers.get('x-content-type-options')).to.equal('nosniff')
      expect(headers.get('cache-control')).to.equal('no-store')
      expect(headers.get('content-security-policy')).to.contain("default-src 'none'")
      expect(headers.get('x-powered-by')).to.equal(null)
    }
  })

  it('asks who calls', async () => {
    const { headers } = await refusal(ask('GET', '/v1/whoami', undefined), 401, 'TOKEN_MISSING')
    expect(headers.get('www-authenticate')).to.equal('Bearer realm="waybill"')
    expect(await (await ask('GET', '/v1/whoami', 'stranger')).json()).to.include({ subject: 'stranger' })
  })

  const refused: [string, string, string, string][] = [
    ['a manager’s row to a stranger', 'POST /v1/rules', 'stranger', 'no account is mapped to stranger'],
    ['a manager’s row to an admin without an account', 'POST /v1/rules', 'admin', 'no account is mapped'],
    ['an admin’s row to a manager', 'POST /v1/rses', 'alice', 'alice of https://iam.example.org/ is no admin'],
    ['a worker’s row to an admin', 'POST /v1/worker/claims', 'admin', 'is no worker'],
  ]
  for (const [what, row, as, said] of refused) {
    it(`refuses ${what}, with what to do`, async () => {
      const [method = '', path = ''] = row.split(' ')
      const { detail } = await refusal(send(method, path, as, '{'), 403, 'FORBIDDEN')
      expect(detail).to.contain(said)
    })
  }

  it('knows a path from a method', async () => {
    await refusal(ask('GET', '/v1/nothing', 'alice'), 404, 'PATH_UNKNOWN')
    await refusal(ask('GET', '/v1/rses/', 'alice'), 404, 'PATH_UNKNOWN')
    const { headers } = await refusal(ask('DELETE', '/v1/rses', 'alice'), 405, 'METHOD_NOT_ALLOWED')
    expect(headers.get('allow')).to.equal('POST, GET')
  })

  it('takes slashes in the name of a DID', async () => {
    const name = '/store/run-1/raw.data'
    const response = await ask('GET', `/v1/dids/exp/${encodeURIComponent(name)}`, 'alice')
    expect(response.status).to.equal(200)
    expect(received).to.deep.equal({ scope: 'exp', name })
  })

  const names: [string, string, string][] = [
    ['a dot segment', 'a%2F..%2Fb', 'must not have a segment'],
    ['an empty segment', 'a%2F%2Fb', 'must not have an empty segment'],
    ['white space', 'a%20b', 'white space (U+0020) at position 2'],
    ['a quote', 'a%27b', 'the character "\'"'],
    ['a control character', 'a%00b', 'a control character (U+0000)'],
    ['a non-ASCII character', 'a%C3%A9', 'not ASCII (U+00E9)'],
  ]
  for (const [what, name, said] of names) {
    it(`refuses a DID name with ${what}`, async () => {
      const { detail, field } = await refusal(ask('GET', `/v1/dids/exp/${name}`, 'alice'), 400, 'INVALID')
      expect(detail).to.contain(said)
      expect(field).to.equal('name')
    })
  }

  it('refuses a path that is no UTF-8', async () => {
    await refusal(ask('GET', '/v1/dids/exp/%ff', 'alice'), 400, 'PATH_MALFORMED')
  })

  it('fills in the defaults of a query, and refuses what it does not know', async () => {
    await ask('GET', '/v1/dids?scope=exp', 'alice')
    expect(received).to.deep.equal({ scope: 'exp', limit: 100 })
    const wrong = await refusal(ask('GET', '/v1/dids?scope=exp&limit=0&colour=red', 'alice'), 400, 'INVALID')
    expect(wrong.errors?.map(({ field }) => field)).to.have.members(['limit', 'colour'])
    await refusal(ask('GET', '/v1/dids?scope=exp&scope=two', 'alice'), 400, 'INVALID')
    await refusal(ask('GET', '/v1/whoami?colour=red', 'alice'), 400, 'INVALID')
  })

  it('names every field that is wrong, unknown ones too', async () => {
    const body = { dids: ['exp:a', 'exp:a/../b', 'nothing'], copies: 0, expression: 'X', urgent: true }
    const { errors, field } = await refusal(send('POST', '/v1/rules', 'alice', body), 400, 'INVALID')
    expect(errors?.map(error => error.field)).to.have.members(['dids.1', 'dids.2', 'copies', 'urgent'])
    expect(errors?.map(error => error.message)).to.include('copies must be at least 1')
    expect(field).to.equal('dids.1')
  })

  for (const copies of [0, -1, 1.5, '2', null]) {
    it(`refuses copies ${JSON.stringify(copies)}`, async () => {
      const body = { dids: ['exp:a'], copies, expression: 'X' }
      const { field } = await refusal(send('POST', '/v1/rules', 'alice', body), 400, 'INVALID')
      expect(field).to.equal('copies')
    })
  }

  it('lists no more errors than one can read', async () => {
    const dids = Array.from({ length: 1000 }, () => 'bad')
    const { errors } = await refusal(
      send('POST', '/v1/rules', 'alice', { dids, copies: 1, expression: 'X' }),
      400,
      'INVALID',
    )
    expect(errors).to.have.length(20)
  })

  it('passes on a refusal of a use case, with its field', async () => {
    const body = { dids: ['exp:a'], copies: 1, expression: 'a=' }
    const { detail, field } = await refusal(send('POST', '/v1/rules', 'alice', body), 400, 'EXPRESSION_SYNTAX')
    expect([detail, field]).to.deep.equal(['position 3: a value is missing', 'expression'])
  })

  it('refuses what is not JSON', async () => {
    await refusal(ask('POST', '/v1/rules', 'alice', { body: 'a=b' }), 415, 'CONTENT_TYPE')
    await refusal(send('POST', '/v1/rules', 'alice', '{}', { 'content-type': 'text/json' }), 415, 'CONTENT_TYPE')
    await refusal(send('POST', '/v1/rules', 'alice', '{}', { 'content-encoding': 'gzip' }), 415, 'CONTENT_TYPE')
    await refusal(ask('POST', '/v1/rules', 'alice'), 415, 'CONTENT_TYPE')
    const { detail } = await refusal(
      send('POST', '/v1/rules', 'alice', '{"copies": 1,\n "x": y}'),
      400,
      'JSON_MALFORMED',
    )
    expect(detail).to.equal('the body is not JSON: line 2, column 7 (position 20)')
    const headers = { 'content-type': 'application/json' }
    const bytes = Buffer.from([0x22, 0xff, 0x22])
    await refusal(ask('POST', '/v1/rules', 'alice', { headers, body: bytes }), 400, 'JSON_MALFORMED')
  })

  it('refuses a body of 100 MB without keeping it', async () => {
    const size = 100 * 1024 * 1024
    const before = process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed
    const declared = await upload('alice', size, true)
    expect([declared.status, declared.code]).to.deep.equal([413, 'BODY_TOO_LARGE'])
    const chunked = await upload('alice', size, false)
    expect([chunked.status, chunked.code]).to.deep.equal([413, 'BODY_TOO_LARGE'])
    const stranger = await upload('nobody', size, false)
    expect([stranger.status, stranger.code]).to.deep.equal([401, 'TOKEN_MISSING'])
    const grown = process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed - before
    expect(grown).to.be.below(80 * 1024 * 1024)
  })

  /** Sends `size` bytes as fast as they are taken, and gives the answer. */
  function upload(as: string, size: number, declare: boolean): Promise<{ status: number | undefined; code: string }> {
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest(`${url}/v1/dids`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${as}`,
          'content-type': 'application/json',
          ...(declare ? { 'content-length': size } : { 'transfer-encoding': 'chunked' }),
        },
      })
      let answered = false
      outgoing.once('error', error => (answered ? undefined : reject(error)))
      outgoing.once('response', async response => {
        answered = true
        const chunks: Buffer[] = []
        for await (const chunk of response) chunks.push(chunk as Buffer)
        outgoing.destroy()
        const { code } = problem.parse(JSON.parse(Buffer.concat(chunks).toString()))
        resolve({ status: response.statusCode, code })
      })
      const chunk = Buffer.alloc(1024 * 1024, 0x20)
      let sent = 0
      const more = (): void => {
        while (!answered && sent < size) {
          sent += chunk.length
          if (!outgoing.write(chunk)) {
            outgoing.once('drain', more)
            return
          }
        }
        if (!answered) outgoing.end()
      }
      more()
    })
  }

  it('hands the idempotency key on where the row takes one', async () => {
    const body = { dids: [{ did: 'exp:a', type: 'DATASET' }] }
    const response = await send('POST', '/v1/dids', 'alice', body, { 'idempotency-key': 'key-1' })
    expect(response.status).to.equal(201)
    expect(received).to.include({ idempotencyKey: 'key-1' })
    const long = 'k'.repeat(201)
    await refusal(send('POST', '/v1/dids', 'alice', body, { 'idempotency-key': long }), 400, 'INVALID')
    await refusal(send('POST', '/v1/dids', 'alice', body, { 'idempotency-key': '' }), 400, 'INVALID')
  })

  it('hides the causes of a 5xx behind an id that the log knows', async () => {
    const rse = { name: 'A', prefix: '/data', protocols: [{ url: 'https://a.example.org' }] }
    const failed = await refusal(send('POST', '/v1/rses', 'admin', rse), 500, 'INTERNAL')
    expect(failed.detail).not.to.match(/SQLITE|token/)
    const { fields } = logged.find(entry => entry.fields.id === failed.id) ?? {}
    expect(fields?.err).to.be.instanceOf(Error)
    const unreachable = await refusal(ask('GET', '/v1/rses', 'alice'), 503, 'ISSUER_UNREACHABLE')
    expect(unreachable.detail).not.to.contain('internal.example.org')
  })

  it('does not send what the schema of an answer does not know', async () => {
    const { detail } = await refusal(ask('GET', '/v1/vos', 'alice'), 500, 'INTERNAL')
    expect(detail).not.to.contain('surprise')
  })

  it('logs and counts each request by its row, never its headers, query or body', async () => {
    logged.length = 0
    counted.length = 0
    await ask('GET', '/v1/dids?scope=exp&prefix=SEEN', 'alice', { headers: { 'x-odd': 'SEEN' } })
    await refusal(send('POST', '/v1/rules', 'alice', { SEEN: 1 }), 400, 'INVALID')
    await ask('GET', '/SEEN', 'alice')
    expect(counted).to.deep.equal([
      ['listDids', 200],
      ['addRules', 400],
      ['none', 404],
    ])
    const [first, second] = logged
    expect(first?.fields).to.include({ method: 'GET', route: '/v1/dids', status: 200, subject: 'alice' })
    expect(second?.fields).to.have.nested.property('problem.code', 'INVALID')
    expect(JSON.stringify(logged)).not.to.match(/SEEN|Bearer/)
  })

  it('tells a handler that its caller has hung up, and the server when it is through all the same', async () => {
    works.length = 0
    let end: () => void = () => undefined
    goOn = new Promise(resolve => {
      end = resolve
    })
    const told = new Promise<void>(resolve => {
      hungUp = resolve
    })
    const controller = new AbortController()
    const outgoing = httpRequest(`${url}/v1/worker/claims`, {
      method: 'POST',
      headers: { authorization: 'Bearer pool', 'content-type': 'application/json' },
      signal: controller.signal,
    })
    outgoing.on('error', () => undefined)
    outgoing.end(JSON.stringify({ session: 1, limit: 1 }), () => setImmediate(() => controller.abort()))
    await told
    let isOver = false
    const over = works[0]?.then(() => {
      isOver = true
    })
    await systemClock.sleep(20)
    expect([works.length, isOver]).to.deep.equal([1, false])
    end()
    await over
  })

  it('breaks a list off that fails in the middle: nobody takes a part for the whole', async () => {
    const headers = { accept: 'application/x-ndjson' }
    const answer = await ask('GET', '/v1/dids/exp/run1/contents', 'alice', { headers })
    expect([answer.status, answer.headers.get('content-type')]).to.deep.equal([200, 'application/x-ndjson'])
    const end = await answer.text().then(
      text => text,
      () => 'broken off',
    )
    expect(end).to.equal('broken off')
    expect(logged.filter(({ message }) => message === 'an answer broke off')).to.have.length(1)
  })

  describe('with the typed client', () => {
    const http = createGotClient({ trust: createTrust({ defaultRoots: true, clock: systemClock, log: silentLogger }) })
    const as = (name: string) => createClient({ baseUrl: url, http, token: async () => new Secret(name) })
    after(() => http.close())

    it('calls a row, parameters encoded', async () => {
      const did = await as('alice').getDid({ params: { scope: 'exp', name: '/store/raw' } })
      expect(did).to.include({ did: 'exp:/store/raw', type: 'DATASET' })
      expect(await as('alice').whoami()).to.include({ subject: 'alice' })
    })

    it('turns a problem document into its error', async () => {
      const call = as('alice').addRules({ body: { dids: ['exp:a'], copies: 0, expression: 'X' } })
      const error = await call.then(
        () => undefined,
        reason => reason as unknown,
      )
      expect(error).to.be.instanceOf(ApiError)
      expect(error).to.include({ code: 'INVALID', status: 400, field: 'copies' })
      expect(error).to.have.nested.property('errors.0.message', 'copies must be at least 1')
      expect(error)
        .to.have.property('id')
        .that.matches(/^[0-9a-f]{16}$/)
    })

    it('does not let a name change the path', async () => {
      const call = as('alice').getDid({ params: { scope: 'exp', name: '..' } })
      const error = await call.then(
        () => undefined,
        reason => reason as unknown,
      )
      expect(error).to.include({ code: 'INVALID', field: 'name' })
    })
  })
})

describe('API: where JSON ends being JSON', () => {
  const cases: [string, string][] = [
    ['{x', 'line 1, column 2 (position 1)'],
    ['{"a":1,}', 'line 1, column 8 (position 7)'],
    ['[1,2', 'it ends too early'],
    ['"abc', 'it ends too early'],
    ['', 'it ends too early'],
    ['{} x', 'line 1, column 4 (position 3)'],
    ['nul1', 'line 1, column 4 (position 3)'],
    ['[1,\n-]', 'line 2, column 2 (position 5)'],
    ['{"token":"eyJhbGciOi", oops}', 'line 1, column 24 (position 23)'],
  ]
  for (const [text, said] of cases) {
    it(`${JSON.stringify(text)}: ${said}`, () => {
      expect(() => parseJson(text)).to.throw(WaybillError, `the body is not JSON: ${said}`)
    })
  }
})
