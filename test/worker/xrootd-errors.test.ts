import { expect } from 'chai'
import type { Behaviour } from '../../sandbox/main.ts'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { until } from '../house/until.ts'
import { requireComponents } from '../interop/components.ts'
import { refusePermits, Stage } from './stage.ts'
import { XrootdPair } from './xrootd-pair.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))
/** It looks at its markers, every 5 s. */
const STALL_SECONDS = 3
const SPACE_BYTES = 1_000_000
/** By then it has noticed that its client is gone. */
const ABORTED_MS = 7_000

/** The column of facts/http-tpc.md section 5 that was measured, once more with the real server. */
describe('what a worker reports of real XRootD servers, for', () => {
  let stage: Stage
  let pair: XrootdPair

  before(async function () {
    requireComponents(this, ['xrootd'])
    stage = await Stage.create()
    const configuration = [`tpc.timeout ${STALL_SECONDS} ${STALL_SECONDS}`]
    pair = await XrootdPair.start(stage, { configuration, spaceBytes: SPACE_BYTES })
    stage.start()
  })
  beforeEach(() => {
    // As the real one does, where no earlier attempt wrote.
    stage.server.before = name => {
      if (stage.server.permits.at(-1)?.written !== true) refusePermits(name)
    }
  })
  after(async () => {
    await stage?.end()
    await pair?.stop()
  })

  const allow = (id: number, scope: string) => {
    const grant = stage.server.grants.get(id)
    if (grant !== undefined) stage.server.grants.set(id, { ...grant, scopes: [scope] })
  }
  const missing = (work: ClaimedTransfer) => ({
    ...work,
    source: { ...work.source, url: `${work.source.url}.missing` },
  })

  interface Row {
    readonly what: string
    readonly mode: 'pull' | 'push'
    readonly change: (work: ClaimedTransfer) => ClaimedTransfer
    readonly failure: string
    readonly words: RegExp
    readonly retryable: boolean
    readonly cleaned: boolean
  }
  const rows: readonly Row[] = [
    {
      what: 'source missing',
      mode: 'pull',
      change: missing,
      failure: 'SOURCE_MISSING SOURCE',
      words:
        /^failure: Remote side failed with status code 404; error message: "Unable to open .*; no such file or directory ?"$/,
      retryable: false,
      cleaned: true,
    },
    {
      what: 'source 403',
      mode: 'pull',
      change: work => {
        allow(work.source.grant, 'storage.read:/elsewhere')
        return work
      },
      failure: 'PERMISSION_DENIED SOURCE',
      words: /^failure: Remote side failed with status code 403/,
      retryable: false,
      cleaned: true,
    },
    {
      what: 'source missing',
      mode: 'push',
      change: missing,
      failure: 'SOURCE_MISSING SOURCE',
      words: /^COPY answered 400: Unable to open .*; no such file or directory$/,
      retryable: false,
      cleaned: false,
    },
    {
      what: 'destination 403',
      mode: 'push',
      change: work => {
        allow(work.destination.grant, 'storage.read:/e')
        return work
      },
      failure: 'PERMISSION_DENIED DESTINATION',
      words: /^failure: Remote side failed with status code 403/,
      retryable: false,
      cleaned: false,
    },
    {
      what: 'permission at the active side',
      mode: 'pull',
      change: work => {
        allow(work.destination.grant, 'storage.read:/e')
        return work
      },
      failure: 'TOKEN_REFUSED TOKEN',
      words: /^COPY answered 401: Unable to create .*; permission denied$/,
      retryable: true,
      cleaned: false,
    },
    {
      what: 'permission at the active side',
      mode: 'push',
      change: work => {
        allow(work.source.grant, 'storage.read:/elsewhere')
        return work
      },
      failure: 'TOKEN_REFUSED TOKEN',
      words: /^COPY answered 401: Unable to open .*; permission denied$/,
      retryable: true,
      cleaned: false,
    },
  ]
  for (const [index, { what, mode, change, failure, words, retryable, cleaned }] of rows.entries()) {
    it(`${what}, ${mode}: ${failure}`, async () => {
      const name = `e/${mode}${index}/f`
      await pair.place(pair.b, `e/${mode}${index}/other`, '')
      const outcome = await pair.run(change(await pair.transfer(mode, name, CONTENT)))
      const { error } = outcome
      expect(`${error?.code} ${error?.scope}`, error?.message).to.equal(failure)
      expect(error?.message).to.match(words)
      expect(error?.retryable).to.equal(retryable)
      expect(outcome).to.include({ result: 'failed', cleaned, mode })
      expect(await pair.lies(pair.b, name), 'what is left').to.equal(undefined)
      expect(await pair.lies(pair.a, name), 'the source').to.deep.equal(CONTENT)
    })
  }

  for (const [source, mode] of [
    ['', 'pull'],
    ['', 'push'],
    ['.missing', 'pull'],
    ['.missing', 'push'],
  ] as const) {
    it(`a file of somebody else's, ${mode}${source && ', source missing'}: it stays`, async () => {
      const name = `e/there-${mode}${source}/f`
      await pair.place(pair.b, name, 'another')
      const work = await pair.transfer(mode, name, CONTENT)
      const outcome = await pair.run(source === '' ? work : missing(work))
      expect(outcome).to.include({ result: 'failed', cleaned: false })
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', scope: 'DESTINATION', retryable: false })
      expect(String(await pair.lies(pair.b, name))).to.equal('another')
    })
  }

  // A PUT for which there is no space ends without an answer, seen on 5.5.3: what it was about cannot be told. Which of curl's words
  // are told depends on whether the connection is closed before all is sent.
  const NO_ANSWER = /^failure: (Server returned nothing \(no headers, no data\)|Failed sending data to the peer)$/
  for (const [mode, what, filler, code, words] of [
    ['pull', 'for all of it', 0, 'DESTINATION_FULL', /: Unknown filesystem write failure\.$/],
    ['pull', 'at all', SPACE_BYTES, 'DESTINATION_FULL', /: Unable to write \S+; no space left on device \(code=28\)$/],
    ['push', 'for all of it', 0, 'CONNECTION_LOST', NO_ANSWER],
    ['push', 'at all', SPACE_BYTES, 'CONNECTION_LOST', NO_ANSWER],
  ] as const) {
    it(`no space ${what}, ${mode}: ${code} DESTINATION, and nothing stays`, async () => {
      await pair.place(pair.b, 'e/full/filler', Buffer.alloc(filler)).catch(() => undefined)
      const outcome = await pair.run(await pair.transfer(mode, 'e/full/f', Buffer.alloc(2 * SPACE_BYTES, 'x')))
      await pair.place(pair.b, 'e/full/filler', '')
      expect(outcome.error?.message).to.match(words)
      expect(outcome.error).to.include({ code, scope: 'DESTINATION', retryable: true })
      expect(outcome).to.include({ result: 'failed', cleaned: true })
      expect(await pair.lies(pair.b, 'e/full/f')).to.equal(undefined)
    })
  }

  /** The embedded storage gives, XRootD fetches. */
  const between = async (name: string, behaviour: Partial<Behaviour>, content = CONTENT): Promise<ClaimedTransfer> => {
    await pair.place(pair.b, 'e/mixed/other', '')
    Object.assign(stage.a.behaviour, { breaksOff: undefined, bytesPerSecond: undefined }, behaviour)
    const given = await stage.transfer(name, content)
    const { destination, ...work } = await pair.transfer('pull', `e/mixed/${name}`, content)
    return { ...work, destination, source: given.source }
  }

  it('source cut off, pull: SOURCE_CUT_OFF SOURCE, and the part is removed', async () => {
    const work = await between('cut', { breaksOff: { verb: 'GET', afterBytes: 1_000, by: 'closing' } })
    const outcome = await pair.run(work)
    expect(outcome.error?.message).to.equal('failure: Transferred a partial file')
    expect(outcome.error).to.include({ code: 'SOURCE_CUT_OFF', scope: 'SOURCE', retryable: true })
    expect(outcome).to.include({ result: 'failed', cleaned: true })
    expect(await pair.lies(pair.b, 'e/mixed/cut')).to.equal(undefined)
  })

  it('stall, pull: TIMEOUT_NO_PROGRESS TRANSFER, and the part is removed', async () => {
    const work = await between('stall', { breaksOff: { verb: 'GET', afterBytes: 1_000, by: 'stalling' } })
    const outcome = await pair.run(work)
    expect(outcome.error?.message).to.match(
      /^failure: Error when interacting with local filesystem: .*no bytes have been received in 3 seconds\.$/,
    )
    expect(outcome.error).to.include({ code: 'TIMEOUT_NO_PROGRESS', scope: 'TRANSFER', retryable: true })
    expect(outcome).to.include({ result: 'failed', cleaned: true })
    expect(await pair.lies(pair.b, 'e/mixed/stall')).to.equal(undefined)
  })

  // 5.5.3 writes by the MiB: until then the file is empty, and two looks find it unchanged.
  it('a client that leaves: its file is removed, does not come back, and does no harm to the next one there', async () => {
    stage.server.heartbeatSeconds = 0.1
    const content = Buffer.alloc(SPACE_BYTES / 2, 'x')
    const work = await between('left', { bytesPerSecond: 40_000 }, content)
    stage.server.enqueue(work)
    await until(
      () => pair.lies(pair.b, 'e/mixed/left'),
      part => part !== undefined,
    )
    stage.server.cancelled.add(work.transfer)
    const left = await stage.server.outcomeOf(work.transfer)
    expect(left).to.include({ result: 'failed', cleaned: true })
    expect(left.error).to.include({ code: 'CANCELLED' })
    stage.server.cancelled.clear()
    const next = await between('left', {}, content)
    expect(await pair.run(next)).to.include({ result: 'done' })
    await systemClock.sleep(ABORTED_MS)
    expect(await pair.lies(pair.b, 'e/mixed/left')).to.deep.equal(content)
  })
})
