import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import type { CopyOutcome, CopyRequest } from '../../shared/storage/types.ts'
import { ManualClock } from './http-manual-clock.ts'
import { Stage } from './storage-stage.ts'

const ACTIVE = new Secret('active-token-0123')
const PASSIVE = new Secret('passive-token-4567')
const marker = (bytes: number) =>
  `Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: ${bytes}\nTotal Stripe Count: 1\nEnd\n`

describe('third-party copy', () => {
  let clock: ManualClock
  let stage: Stage
  beforeEach(() => {
    clock = new ManualClock()
    stage = new Stage(clock)
  })
  afterEach(() => stage.close())

  function pull(base: string, more: Partial<CopyRequest> = {}): Promise<CopyOutcome> {
    return stage.client.copy({
      mode: 'pull',
      source: 'https://source.example.org/f',
      destination: `${base}/f`,
      activeToken: ACTIVE,
      passiveToken: PASSIVE,
      overwrite: false,
      ...more,
    })
  }

  const code = (outcome: CopyOutcome) => (outcome.kind === 'done' ? 'done' : `${outcome.kind} ${outcome.error.code}`)

  it('pulls with the documented headers', async () => {
    const base = await stage.storage((_request, response) =>
      response.writeHead(201).end(`${marker(5)}success: Created`),
    )
    const progress: number[] = []
    const outcome = await pull(base, { clientInfo: 'job-id=1', onProgress: bytes => progress.push(bytes) })
    expect(outcome).to.deep.equal({ kind: 'done', bytes: 5, checksums: {} })
    expect(progress).to.deep.equal([5])
    expect(stage.asked[0]).to.include({ method: 'COPY', path: '/f' })
    expect(stage.asked[0]?.headers).to.include({
      Source: 'https://source.example.org/f',
      Authorization: 'Bearer active-token-0123',
      TransferHeaderAuthorization: 'Bearer passive-token-4567',
      Overwrite: 'F',
      Credential: 'none',
      RequireChecksumVerification: 'false',
      ClientInfo: 'job-id=1',
    })
  })

  for (const [status, taken] of [
    [200, 0],
    [201, 1],
    [202, 1],
    [412, 0],
    [500, 0],
  ]) {
    it(`answered ${status} was ${taken === 1 ? 'taken' : 'not taken'}`, async () => {
      const base = await stage.storage((_request, response) => response.writeHead(status ?? 0).end('success: Created'))
      let calls = 0
      await pull(base, { onTaken: () => void calls++ })
      expect(calls).to.equal(taken)
    })
  }

  it('pushes from the source, with or without tokens', async () => {
    const base = await stage.storage((_request, response) => response.writeHead(202).end('success: Created\n'))
    const outcome = await pull('https://destination.example.org', {
      mode: 'push',
      source: `${base}/s`,
      overwrite: true,
      activeToken: undefined,
      passiveToken: undefined,
    })
    expect(code(outcome)).to.equal('done')
    expect(stage.asked[0]?.headers).to.include({ Destination: 'https://destination.example.org/f', Overwrite: 'T' })
    expect(stage.asked[0]?.headers).not.to.have.any.keys('Authorization', 'TransferHeaderAuthorization', 'Source')
  })

  const dialects: [string, number, string, string][] = [
    [
      'a failure behind 201',
      201,
      `${marker(0)}failure: Remote side failed with status code 404`,
      'failed SOURCE_MISSING',
    ],
    ['an end without outcome', 201, marker(7), 'unknown OUTCOME_UNKNOWN'],
    ['an empty answer', 201, '', 'unknown OUTCOME_UNKNOWN'],
    ['a page instead of markers', 200, '<html><h1>Welcome</h1></html>', 'unknown PROTOCOL_VIOLATION'],
    ['half a marker', 202, 'Perf Marker\nStripe Bytes', 'unknown PROTOCOL_VIOLATION'],
    ['a refusal', 412, 'file exists', 'failed DESTINATION_EXISTS'],
    ['a gateway that gave up', 504, '', 'unknown STORAGE_ERROR'],
    ['a redirect to nowhere', 307, '', 'failed REDIRECT_REFUSED'],
  ]
  for (const [name, status, text, expected] of dialects) {
    it(`takes ${name}`, async () => {
      const base = await stage.storage((_request, response) => response.writeHead(status).end(text))
      expect(code(await pull(base))).to.equal(expected)
    })
  }

  const sayings: [string, string, string][] = [
    [
      'after a marker',
      `${marker(7)}mover died: disk server gone\n`,
      'the answer ended without success or failure; 7 bytes were reported; the storage said: mover died: disk server gone',
    ],
    [
      'in several lines, the last without an end, on both sides of a marker',
      `Queued\n${marker(7)}Internal\r\n  error`,
      'the answer ended without success or failure; 7 bytes were reported; the storage said: Queued Internal error',
    ],
    [
      'in a marker that never ends',
      `${marker(7)}Perf Marker\nTimestamp: 1\nout of memory\n`,
      'the answer ended without success or failure; 7 bytes were reported; the storage said: out of memory',
    ],
    [
      'with tokens in it',
      `${marker(7)}who is active-token-0123 or eyJhbGciOiJFUzI1NiJ9.eyJzdWIi?\n`,
      'the answer ended without success or failure; 7 bytes were reported; the storage said: who is [secret] or [secret]?',
    ],
    ['without any marker', 'Internal error\n', 'COPY answered neither markers nor an outcome: Internal error'],
  ]
  for (const [name, text, message] of sayings) {
    it(`keeps what a storage says instead of an outcome: ${name}`, async () => {
      const base = await stage.storage((_request, response) => response.writeHead(201).end(text))
      const outcome = await pull(base)
      expect(outcome.kind === 'unknown' && outcome.error.message).to.equal(message)
    })
  }

  it('keeps it within 1000 characters, and no token that was cut', async () => {
    const said = async (text: string): Promise<string> => {
      const base = await stage.storage((_request, response) => response.writeHead(201).end(marker(7) + text))
      const outcome = await pull(base)
      return outcome.kind === 'unknown' ? outcome.error.message : ''
    }
    expect(await said('word '.repeat(800))).to.have.length(1000)
    // The line is cut in the token; the tags before it take no room in the end.
    const page = `<html>${'<b>'.repeat(1358)} here: active-token-0123\n`
    expect(page.slice(0, 4096)).to.match(/active-[a-z]+$/)
    expect(await said(page)).to.match(/; the storage said: here:$/)
    expect(await said('<html><br></html>')).to.match(/7 bytes were reported$/)
  })

  it('takes an answer that breaks off, with what was said before', async () => {
    const base = await stage.storage((_request, response) => {
      response.writeHead(201)
      response.write(`${marker(7)}going down\n`, () => response.destroy())
    })
    const outcome = await pull(base)
    expect(code(outcome)).to.equal('unknown CONNECTION_LOST')
    expect(outcome)
      .to.have.nested.property('error.message')
      .that.matches(/; the storage said: going down$/)
  })

  it('takes an answer that breaks off', async () => {
    const base = await stage.storage((_request, response) => {
      response.writeHead(201)
      response.write(marker(7), () => response.destroy())
    })
    expect(code(await pull(base))).to.equal('unknown CONNECTION_LOST')
  })

  it('takes an outcome whose connection then breaks off', async () => {
    const base = await stage.storage((_request, response) => {
      response.writeHead(201)
      response.write(`${marker(7)}success: Created`, () => response.destroy())
    })
    expect(code(await pull(base))).to.equal('done')
  })

  it('takes an answer without a status line as unknown, and no connection as failed', async () => {
    const server = createServer(socket => socket.once('data', () => socket.end('success: Created')))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    expect(code(await pull(base))).to.equal('unknown PROTOCOL_VIOLATION')
    server.close()
    await once(server, 'close')
    expect(code(await pull(base))).to.equal('failed CONNECT_FAILED')
  })

  it('keeps the tokens out of the words it keeps', async () => {
    const said = 'failure: who is active-token-0123 or passive-token-4567, Bearer x.y.z?'
    const base = await stage.storage((_request, response) => response.writeHead(201).end(said))
    const outcome = await pull(base)
    expect(outcome.kind === 'failed' && outcome.error.message).to.equal(
      'failure: who is [secret] or [secret], [secret]',
    )
  })

  describe('redirected', () => {
    it('is repeated with all headers', async () => {
      const pool = await stage.storage((_request, response) => response.writeHead(201).end('success: Created'))
      const door = await stage.storage((_request, response) =>
        response.writeHead(307, { Location: `${pool}/p?x=1` }).end(),
      )
      expect(code(await pull(door))).to.equal('done')
      expect(stage.asked.map(({ path }) => path)).to.deep.equal(['/f', '/p?x=1'])
      const { Host: _first, ...first } = stage.asked[0]?.headers ?? {}
      const { Host: _second, ...second } = stage.asked[1]?.headers ?? {}
      expect(second).to.deep.equal(first)
    })

    it('to a host it may not go to is refused, and nothing sent there', async () => {
      const door = await stage.storage((_request, response) =>
        response.writeHead(307, { Location: 'https://evil.example.net/?authz=abc' }).end(),
      )
      const outcome = await pull(door)
      expect(code(outcome)).to.equal('failed REDIRECT_REFUSED')
      expect(outcome).to.have.nested.property('error.scope', 'DESTINATION')
      expect(JSON.stringify(outcome)).to.include('evil.example.net').and.not.include('authz')
    })

    it('four times is refused', async () => {
      const door = await stage.storage((_request, response) => response.writeHead(307, { Location: '/f' }).end())
      expect(code(await pull(door))).to.equal('failed REDIRECT_REFUSED')
      expect(stage.asked).to.have.length(4)
    })
  })

  describe('watched', () => {
    /** A storage that answers and then waits for the test. */
    async function slow(): Promise<{ base: string; answered: Promise<ServerResponse> }> {
      let onAnswered: (response: ServerResponse) => void = () => undefined
      const answered = new Promise<ServerResponse>(resolve => {
        onAnswered = resolve
      })
      const base = await stage.storage((_request, response) => {
        response.writeHead(201)
        response.flushHeaders()
        onAnswered(response)
      })
      return { base, answered }
    }

    /** Writes, and waits until the client has taken it: `seen` counts markers. */
    class Progress {
      readonly seen: number[] = []
      #go: () => void = () => undefined
      readonly take = (bytes: number) => {
        this.seen.push(bytes)
        this.#go()
      }
      async after(response: ServerResponse, text: string): Promise<void> {
        const taken = new Promise<void>(resolve => {
          this.#go = resolve
        })
        response.write(text)
        await taken
      }
    }

    it('ends when no marker comes for a minute', async () => {
      const { base, answered } = await slow()
      const progress = new Progress()
      const outcome = pull(base, { onProgress: progress.take })
      const response = await answered
      await clock.untilSleeping()
      await clock.advance(50_000)
      await progress.after(response, marker(1))
      await clock.advance(59_000)
      const gone = once(response, 'close')
      await clock.advance(1_000)
      expect(code(await outcome)).to.equal('unknown TIMEOUT_NO_MARKER')
      await gone
    })

    it('ends when markers show no progress for three minutes', async () => {
      const { base, answered } = await slow()
      const progress = new Progress()
      const outcome = pull(base, { onProgress: progress.take })
      const response = await answered
      await clock.untilSleeping()
      await progress.after(response, marker(1000))
      for (let passed = 0; passed < 180_000; passed += 30_000) {
        await clock.advance(30_000)
        if (passed < 150_000) await progress.after(response, marker(1000))
      }
      const ended = await outcome
      expect(code(ended)).to.equal('unknown TIMEOUT_NO_PROGRESS')
      expect(ended).to.have.nested.property('error.message').that.includes('1000 bytes')
    })

    it('waits for a storage that sums or closes a file of which all bytes have come', async () => {
      const { base, answered } = await slow()
      const progress = new Progress()
      const outcome = pull(base, { size: 1000, onProgress: progress.take })
      const response = await answered
      await clock.untilSleeping()
      for (let passed = 0; passed < 300_000; passed += 30_000) {
        await progress.after(response, marker(1000))
        await clock.advance(30_000)
      }
      response.end('success: Created')
      expect(code(await outcome)).to.equal('done')
    })

    for (const [what, status, headers, expected] of [
      ['a refusal', 403, {}, 'failed PERMISSION_DENIED'],
      ['a redirect', 307, { Location: 'https://evil.example.net/' }, 'failed REDIRECT_REFUSED'],
    ] as const) {
      it(`does not wait for the end of ${what} that has none`, async () => {
        let onGone: () => void = () => undefined
        const gone = new Promise<void>(resolve => {
          onGone = resolve
        })
        const base = await stage.storage((_request, response) => {
          response.once('close', onGone)
          response.writeHead(status, { ...headers, 'Content-Length': '100' })
          response.write('no')
        })
        const outcome = pull(base, { watchdogs: { headers: 1_000 } })
        await clock.untilSleeping()
        await clock.advance(1_000)
        expect(code(await outcome)).to.equal(expected)
        await gone
        await turn()
        expect(clock.sleepers).to.equal(0)
      })
    }

    it('ends when its time for the size is over, however well it moves', async () => {
      const { base, answered } = await slow()
      const progress = new Progress()
      const outcome = pull(base, { size: 10 * 1_048_576, onProgress: progress.take })
      const response = await answered
      await clock.untilSleeping()
      let bytes = 0
      for (let passed = 0; passed < 620_000; passed += 31_000) {
        await progress.after(response, marker(++bytes))
        await clock.advance(31_000)
      }
      expect(code(await outcome)).to.equal('unknown TIMEOUT_TOTAL')
    })

    it('has other limits when told', async () => {
      const { base, answered } = await slow()
      const outcome = pull(base, { watchdogs: { noMarker: 1_000 } })
      await answered
      await clock.untilSleeping()
      await clock.advance(1_000)
      expect(code(await outcome)).to.equal('unknown TIMEOUT_NO_MARKER')
    })

    it('takes the outcome of a storage that says it and does not hang up', async () => {
      const { base, answered } = await slow()
      const progress = new Progress()
      const outcome = pull(base, { onProgress: progress.take })
      const response = await answered
      await clock.untilSleeping()
      await progress.after(response, `${marker(9)}success: Created`)
      await clock.advance(60_000)
      expect(code(await outcome)).to.equal('done')
    })

    it('is dropped when cancelled, and then unknown', async () => {
      const { base, answered } = await slow()
      const ending = new AbortController()
      const outcome = pull(base, { signal: ending.signal })
      const response = await answered
      await clock.untilSleeping()
      const gone = once(response, 'close')
      ending.abort()
      expect(code(await outcome)).to.equal('unknown CANCELLED')
      await gone
      await turn()
      expect(clock.sleepers).to.equal(0)
    })

    it('is not sent at all when cancelled before', async () => {
      const base = await stage.storage((_request, response) => response.end())
      expect(code(await pull(base, { signal: AbortSignal.abort() }))).to.equal('failed CANCELLED')
      expect(stage.asked).to.deep.equal([])
    })
  })
})
