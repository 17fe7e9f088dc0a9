import { spawn } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { playArguments, playsOf } from '../../../bin/playing.ts'
import { until } from '../../house/until.ts'
import { Fixture, type Reply } from './fixture.ts'

const WAYBILL = fileURLToPath(new URL('../../../bin/waybill.js', import.meta.url))

describe('storages that the command tells what to be', function () {
  this.timeout(60_000)
  let fixture: Fixture
  beforeEach(async () => {
    fixture = await Fixture.create()
  })
  afterEach(() => fixture.remove())

  /** `waybill sandbox` with these options, until `work` is done. */
  async function sandbox(options: string, work: () => Promise<void>): Promise<void> {
    const args = [WAYBILL, 'sandbox', '--dir', fixture.sandbox.directory, ...options.split(' ')]
    const running = spawn(process.execPath, args, { stdio: 'ignore' })
    const ended = once(running, 'exit')
    try {
      const urls = [fixture.sandbox.issuer, ...fixture.sandbox.storages.map(({ url }) => url)]
      await until(
        () => Promise.all(urls.map(url => fixture.call('OPTIONS', url).catch(() => undefined))),
        replies => replies.every(reply => reply !== undefined) || running.exitCode !== null,
        30_000,
      )
      await work()
    } finally {
      running.kill('SIGTERM')
      await ended
    }
  }

  async function call(name: string, method: string, path: string, more: object = {}): Promise<Reply> {
    const { url, audience } = fixture.storage(name)
    const token = await fixture.token('storage.modify:/ storage.read:/ storage.stage:/', audience)
    return fixture.call(method, `${url}${path}`, { token, ...more })
  }
  const put = (name: string, bytes: number) => call(name, 'PUT', '/data/f', { body: 'x'.repeat(bytes) })

  it('behave so: flavour, tape, quota, macaroons and refusals', () =>
    sandbox(
      '--play SITE-A=xrootd6 --tape SITE-C=eos --quota SITE-B=1k --macaroons SITE-B --refuse SITE-A=PUT:503:2:7 --refuse SITE-C=PUT:429',
      async () => {
        const refused = [await put('SITE-A', 1), await put('SITE-A', 1), await put('SITE-C', 1)]
        expect(refused.map(({ status, headers }) => [status, headers['retry-after']])).to.deep.equal([
          [503, '7'],
          [503, '7'],
          [429, undefined],
        ])
        expect([await put('SITE-A', 2_000), await put('SITE-C', 1)].map(({ status }) => status)).to.deep.equal([
          201, 201,
        ])
        expect([await put('SITE-B', 1_001), await put('SITE-B', 1_000)].map(({ status }) => status)).to.deep.equal([
          507, 201,
        ])
        // XRootD says 200 to what others say 204 to.
        expect((await call('SITE-A', 'DELETE', '/data/f')).status).to.equal(200)
        const tape = '/.well-known/wlcg-tape-rest-api'
        expect((await call('SITE-C', 'GET', tape)).status).to.equal(200)
        expect((await call('SITE-B', 'GET', tape)).status).to.be.above(400)
        const locality = async (): Promise<unknown> => {
          const headers = { 'Content-Type': 'application/json' }
          const body = JSON.stringify({ paths: ['/data/f'] })
          const reply = await call('SITE-C', 'POST', '/api/v1/archiveinfo', { body, headers })
          return (JSON.parse(reply.text) as { locality: string }[])[0]?.locality
        }
        // It leaves the disk by itself.
        await until(locality, where => where === 'TAPE', 20_000)
        const headers = { 'Content-Type': 'application/macaroon-request' }
        const wanted = { headers, body: JSON.stringify({ caveats: ['activity:DOWNLOAD'], validity: 'PT10M' }) }
        expect((await call('SITE-B', 'POST', '/data/f', wanted)).status).to.equal(200)
        expect((await call('SITE-A', 'POST', '/data/f', wanted)).status).to.equal(405)
      },
    ))

  it('are told by the demo to its parts as it was told', () => {
    const flags = {
      play: ['SITE-A=storm', 'SITE-A=dcache'],
      tape: ['SITE-A'],
      quota: ['SITE-B=10M'],
      macaroons: ['SITE-A'],
      refuse: ['SITE-A=PUT:503', 'SITE-A=COPY:429:20:30'],
    }
    const tape = { dialect: 'dcache', diskSeconds: 5 }
    const refuse = [
      { verb: 'PUT', status: 503, times: 1 },
      { verb: 'COPY', status: 429, times: 20, retryAfterSeconds: 30 },
    ]
    expect(Object.fromEntries(playsOf(flags))).to.deep.equal({
      'SITE-A': { plays: 'dcache', tape, behaviour: { macaroons: true }, refuse },
      'SITE-B': { quotaBytes: 10_000_000, refuse: [] },
    })
    expect(playArguments(flags).join(' ')).to.equal(
      '--play SITE-A=storm --play SITE-A=dcache --tape SITE-A --quota SITE-B=10M --macaroons SITE-A --refuse SITE-A=PUT:503 --refuse SITE-A=COPY:429:20:30',
    )
  })
})
