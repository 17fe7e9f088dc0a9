import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { deflateSync } from 'node:zlib'
import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import type { CopyOutcome, StreamRequest } from '../../shared/storage/types.ts'
import { ManualClock } from './http-manual-clock.ts'
import { Stage } from './storage-stage.ts'

const READ = new Secret('source-token-0123')
const WRITE = new Secret('destination-token-4567')

describe('streamed copy', () => {
  let clock: ManualClock
  let stage: Stage
  let stored: Buffer[]
  beforeEach(() => {
    clock = new ManualClock()
    stage = new Stage(clock)
    stored = []
  })
  afterEach(() => stage.close())

  const source = (content: Buffer) =>
    stage.storage((_request, response) =>
      response.writeHead(200, { 'Content-Length': String(content.length) }).end(content),
    )

  const destination = (status = 201) =>
    stage.storage((request, response) => {
      if (request.method === 'HEAD') {
        response.writeHead(404).end()
        return
      }
      if (request.headers.expect !== undefined) response.writeContinue()
      request.on('data', data => stored.push(data))
      request.on('end', () => response.writeHead(status).end())
    })

  async function run(from: string, to: string, more: Partial<StreamRequest> = {}): Promise<CopyOutcome> {
    const tokens = { sourceToken: READ, destinationToken: WRITE }
    return stage.client.stream({ source: `${from}/s`, destination: `${to}/d`, ...tokens, overwrite: false, ...more })
  }

  const code = (outcome: CopyOutcome) =>
    outcome.kind === 'done' ? 'done' : `${outcome.kind} ${outcome.error.code} ${outcome.error.scope}`

  it('passes the bytes on, each storage with its own token, and sums them', async () => {
    const content = Buffer.alloc(3_000_000, 'waybill')
    const progress: number[] = []
    const outcome = await run(await source(content), await destination(), { onProgress: bytes => progress.push(bytes) })
    expect(outcome).to.deep.equal({
      kind: 'done',
      bytes: 3_000_000,
      checksums: {
        adler32: deflateSync(content).subarray(-4).toString('hex'),
        md5: createHash('md5').update(content).digest('hex'),
      },
    })
    expect(Buffer.concat(stored).equals(content)).to.equal(true)
    expect(progress.at(-1)).to.equal(3_000_000)
    const asked = stage.asked.map(({ method, headers }) => `${method} ${headers.Authorization}`)
    expect(asked).to.deep.equal([
      'HEAD Bearer destination-token-4567',
      'GET Bearer source-token-0123',
      'PUT Bearer destination-token-4567',
    ])
    await turn()
    expect(clock.sleepers).to.equal(0)
  })

  it('copies an empty file', async () => {
    expect(code(await run(await source(Buffer.alloc(0)), await destination()))).to.equal('done')
  })

  it('tells a missing source and sends nothing', async () => {
    const from = await stage.storage((_request, response) => response.writeHead(404).end())
    expect(code(await run(from, await destination()))).to.equal('failed SOURCE_MISSING SOURCE')
    expect(stage.asked.map(({ method }) => method)).to.deep.equal(['HEAD', 'GET'])
  })

  it('tells a source of another size and sends nothing', async () => {
    const outcome = await run(await source(Buffer.alloc(6)), await destination(), { size: 5 })
    expect(code(outcome)).to.equal('failed SIZE_MISMATCH SOURCE')
    expect(stage.asked.map(({ method }) => method)).to.deep.equal(['HEAD', 'GET'])
  })

  it('tells a source that breaks off, and breaks the upload off', async () => {
    const from = await stage.storage((_request, response) => {
      response.writeHead(200, { 'Content-Length': '100' })
      response.write('ten bytes.', () => response.destroy())
    })
    expect(code(await run(from, await destination()))).to.equal('failed SOURCE_CUT_OFF SOURCE')
  })

  it('tells a destination that refuses', async () => {
    expect(code(await run(await source(Buffer.alloc(6)), await destination(507)))).to.equal(
      'failed DESTINATION_FULL DESTINATION',
    )
  })

  for (const [status, code, phase] of [
    [503, 'STORAGE_BUSY', 'TRANSFER'],
    [429, 'TOO_MANY_REQUESTS', 'TRANSFER'],
    [403, 'PERMISSION_DENIED', 'PREPARATION'],
    [412, 'DESTINATION_EXISTS', 'PREPARATION'],
  ] as const) {
    it(`a destination that says ${status} after the bytes ${phase === 'TRANSFER' ? 'may have kept some' : 'has kept none'}`, async () => {
      const outcome = await run(await source(Buffer.alloc(6)), await destination(status))
      expect(outcome).to.deep.nested.include({ kind: 'failed', 'error.code': code, 'error.phase': phase })
    })
  }

  it('nothing was kept where the answer came instead of 100 Continue', async () => {
    const to = await stage.storage((request, response) =>
      response.writeHead(request.method === 'HEAD' ? 404 : 503, { Connection: 'close' }).end(),
    )
    const outcome = await run(await source(Buffer.alloc(6)), to)
    expect(outcome).to.deep.nested.include({
      kind: 'failed',
      'error.code': 'STORAGE_BUSY',
      'error.phase': 'PREPARATION',
    })
  })

  it('does not know the outcome when all was sent and no answer came', async () => {
    const to = await stage.storage((request, response) => {
      if (request.method === 'HEAD') response.writeHead(404).end()
      else {
        response.writeContinue()
        request.on('end', () => request.socket.destroy()).resume()
      }
    })
    expect(code(await run(await source(Buffer.alloc(6)), to))).to.equal('unknown CONNECTION_LOST DESTINATION')
  })

  it('ends when nothing moves', async () => {
    let onBegun: () => void = () => undefined
    const begun = new Promise<void>(resolve => {
      onBegun = resolve
    })
    const from = await stage.storage((_request, response) => {
      response.writeHead(200, { 'Content-Length': '100' })
      response.write('ten bytes.')
    })
    const outcome = run(from, await destination(), { onProgress: onBegun })
    await begun
    await clock.advance(180_000)
    expect(code(await outcome)).to.equal('failed TIMEOUT_NO_PROGRESS TRANSFER')
  })

  it('ends when cancelled', async () => {
    const ending = new AbortController()
    const from = await stage.storage((_request, response) => {
      response.writeHead(200, { 'Content-Length': '100' })
      response.write('ten bytes.')
    })
    const outcome = run(from, await destination(), { signal: ending.signal, onProgress: () => ending.abort() })
    expect(code(await outcome)).to.equal('failed CANCELLED GENERAL')
  })

  it('holds a fast source back for a slow destination', async () => {
    const size = 64 * 1024 * 1024
    let sent = 0
    const from = await stage.storage((_request, response) => {
      response.writeHead(200, { 'Content-Length': String(size) })
      const chunk = Buffer.alloc(1024 * 1024)
      const more = () => {
        while (sent < size) {
          sent += chunk.length
          if (!response.write(chunk)) {
            response.once('drain', more)
            return
          }
        }
        response.end()
      }
      more()
    })
    let held = 0
    const to = await stage.storage((request, response) => {
      if (request.method === 'HEAD') {
        response.writeHead(404).end()
        return
      }
      response.writeContinue()
      // Not reading: what the source could send by now is what lies in buffers between.
      void once(request, 'readable').then(async () => {
        let before = -1
        while (before !== sent) {
          before = sent
          await systemClock.sleep(50)
        }
        held = sent
        request.on('end', () => response.writeHead(201).end()).resume()
      })
    })
    expect(code(await run(from, to))).to.equal('done')
    expect(held).to.be.below(size / 2)
  })
})
