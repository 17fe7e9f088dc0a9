import { expect } from 'chai'
import { Secret } from '../../shared/domain/secret.ts'
import { classifyHttpFailure } from '../../shared/storage/classify.ts'
import { StorageError } from '../../shared/storage/types.ts'
import type { StorageAccess } from '../../worker/access.ts'
import type { Attempt } from '../../worker/attempt.ts'
import { faultOfSource } from '../../worker/source.ts'
import { watchdogsFor } from '../../worker/watchdogs.ts'
import { refusePermits, Stage } from './stage.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))
const WRONG = { adler32: '00000001' }

describe('checksum policies', () => {
  let stage: Stage
  afterEach(() => stage.end())
  async function copied(
    policies: readonly ['none' | 'source' | 'destination' | 'both', 'none' | 'source' | 'destination' | 'both'],
    overrides: Parameters<Stage['transfer']>[2] = {},
    before: () => void = () => undefined,
  ) {
    const [source, destination] = policies
    stage = await Stage.create({ source: { checksumPolicy: source }, destination: { checksumPolicy: destination } })
    before()
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT, overrides)
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }
  const digests = (storage: 'a' | 'b') => stage[storage].requests.get('HEAD Want-Digest') ?? 0

  it('destination: what was taken is compared, and the source is not asked', async () => {
    expect(await copied(['destination', 'destination'])).to.include({ result: 'done' })
    expect([digests('a'), digests('b')]).to.deep.equal([0, 1])
  })

  it('both: what is given is compared too, before it is copied', async () => {
    expect(await copied(['both', 'both'])).to.include({ result: 'done' })
    expect([digests('a'), digests('b')]).to.deep.equal([1, 1])
  })

  it('none: the size has to do', async () => {
    expect(await copied(['none', 'none'], WRONG)).to.include({ result: 'done' })
    expect([digests('a'), digests('b')]).to.deep.equal([0, 0])
  })

  for (const [what, content, expected] of [
    ['another file of the same size', CONTENT.toString().toUpperCase(), 'DESTINATION_EXISTS'],
    ['the file itself', CONTENT, 'done'],
  ] as const) {
    it(`none: ${what} that was there before is looked at more closely: ${expected}`, async () => {
      stage = await Stage.create({ source: { checksumPolicy: 'none' }, destination: { checksumPolicy: 'none' } })
      stage.server.before = refusePermits
      await stage.write('SITE-B', 'f1', content)
      stage.start()
      const transfer = await stage.transfer('f1', CONTENT)
      stage.server.enqueue(transfer)
      const { error, result } = await stage.server.outcomeOf(transfer.transfer)
      expect(error?.code ?? result).to.equal(expected)
    })
  }

  it('none: the size of what was there before has to do where its storage tells no checksum', async () => {
    stage = await Stage.create({ source: { checksumPolicy: 'none' }, destination: { checksumPolicy: 'none' } })
    stage.b.behaviour.checksums = []
    await stage.write('SITE-B', 'f1', CONTENT)
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    stage.server.enqueue(transfer)
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done', bytes: 0 })
  })

  it('source: a source that contradicts the catalogue twice is not copied', async () => {
    const outcome = await copied(['source', 'none'], WRONG)
    expect(outcome).to.deep.include({ result: 'failed', cleaned: false })
    expect(outcome.error).to.include({ code: 'SOURCE_CORRUPT', scope: 'SOURCE', retryable: false })
    expect(outcome.error?.message).to.match(/the source has adler32 [0-9a-f]{8}, expected was 00000001/)
    expect([stage.b.requests.get('COPY'), digests('a')]).to.deep.equal([undefined, 2])
  })

  it('source: one that says something else the second time is copied', async () => {
    const outcome = await copied(['source', 'destination'], {}, () => {
      stage.a.behaviour.strayChecksums = 1
    })
    expect(outcome).to.include({ result: 'done' })
  })

  it('source: one that tells no checksum is not copied', async () => {
    const outcome = await copied(['source', 'none'], {}, () => {
      stage.a.behaviour.checksums = []
    })
    expect(outcome.error).to.include({ code: 'CHECKSUM_UNAVAILABLE', scope: 'SOURCE' })
  })

  it('a copy that is wrong is removed, and the source blamed if it is wrong itself: the catalogue’s values win', async () => {
    const outcome = await copied(['destination', 'destination'], WRONG)
    expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
    expect(outcome.error).to.include({ code: 'SOURCE_CORRUPT', scope: 'SOURCE' })
    expect(await stage.read('SITE-B', 'f1')).to.equal(undefined)
    expect(await stage.read('SITE-A', 'f1'), 'no worker removes it').to.deep.equal(CONTENT)
  })

  for (const [md5, result] of [
    ['9c677286866aad38f8e9b660f5411814', 'done'],
    ['00000000000000000000000000000001', 'unknown'],
  ] as const) {
    it(`of a stream the worker knows both; md5 ${md5} in the catalogue, adler32 at the storages: ${result}`, async () => {
      stage = await Stage.create({ source: { canPush: false }, destination: { canPull: false } })
      for (const { behaviour } of [stage.a, stage.b]) behaviour.checksums = ['adler32']
      stage.start()
      const { adler32: _, ...transfer } = await stage.transfer('f1', 'Wikipedia')
      stage.server.enqueue({ ...transfer, md5 })
      expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result, mode: 'stream' })
    })
  }

  it('and not if it is right', async () => {
    const outcome = await copied(['destination', 'destination'], {}, () => {
      stage.b.behaviour.strayChecksums = 1
    })
    expect(outcome.error).to.include({ code: 'CHECKSUM_MISMATCH', scope: 'TRANSFER', retryable: true })
  })
})

it('a source that sums a file for hours keeps no transfer that was cancelled', async () => {
  const cancelled = new AbortController()
  const cancelledError = new StorageError(classifyHttpFailure({ verb: 'HEAD', scope: 'SOURCE' }, 'aborted', 'words'))
  const head = (_url: string, _token: Secret, { signal }: { signal: AbortSignal }) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(cancelledError)))
  const access = { use: (_place: unknown, run: (token: Secret) => unknown) => run(new Secret('token')) }
  const attempt = {
    transfer: { bytes: 1, adler32: '00000001' },
    source: { traits: { checksumPolicy: 'source', checksum: 'adler32' }, storage: { head } },
    copying: cancelled.signal,
    stop: new AbortController().signal,
  } as unknown as Attempt
  const looking = faultOfSource(attempt, { access: access as unknown as StorageAccess }).catch(error => error)
  cancelled.abort()
  expect(await looking).to.equal(cancelledError)
})

describe('the deadlines of a copy', () => {
  const own = { connect: 1, headers: 1, noMarker: 1, noProgress: 1, totalBase: 1, totalPerMiB: 1 }
  const at = { connectSeconds: 2, noProgressSeconds: 2, totalBaseSeconds: 2 }
  const other = { connectSeconds: 3, headersSeconds: 3, noProgressSeconds: 1, totalPerMibSeconds: 3 }
  const cases = [
    ['of a pull are the destination’s for its answer', 'pull', { connect: 3_000, headers: 3_000, noMarker: 1 }],
    ['of a push are the source’s for its answer', 'push', { connect: 2_000, headers: 1, noMarker: 1 }],
    ['of a stream are the longer of both', 'stream', { connect: 3_000, headers: 3_000, noMarker: 1 }],
  ] as const
  for (const [what, mode, answers] of cases) {
    it(what, () => {
      const bytes = { noProgress: 2_000, totalBase: 2_000, totalPerMiB: 3_000 }
      expect(watchdogsFor(own, at, other, mode)).to.deep.equal({ ...answers, ...bytes })
    })
  }
  it('are the worker’s own where no storage says anything', () => {
    expect(watchdogsFor(own, {}, {}, 'pull')).to.deep.equal(own)
  })
})

describe('a watchdog of a storage', () => {
  let stage: Stage
  afterEach(() => stage.end())
  async function watched(
    watchdogs: Record<string, number>,
    play: (stage: Stage) => void,
    overrides: Parameters<Stage['transfer']>[2] = {},
  ) {
    stage = await Stage.create({ destination: { watchdogs } })
    play(stage)
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT, overrides)
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }
  const slow = ({ a }: Stage) => {
    a.behaviour.bytesPerSecond = 1
  }

  it('ends a copy without a marker', async () => {
    const outcome = await watched({ noMarkerSeconds: 0.3 }, slow)
    expect(outcome.error).to.include({ code: 'TIMEOUT_NO_MARKER', scope: 'TRANSFER' })
  })

  it('ends a copy of which no byte moves', async () => {
    const outcome = await watched({ noProgressSeconds: 0.3 }, ({ a, b }) => {
      a.behaviour.bytesPerSecond = 1
      b.behaviour.markerSeconds = 0.1
    })
    expect(outcome.error).to.include({ code: 'TIMEOUT_NO_PROGRESS', scope: 'TRANSFER' })
  })

  it('ends a copy that takes too long', async () => {
    const outcome = await watched({ totalBaseSeconds: 0.5, totalPerMibSeconds: 0.1 }, stage => {
      slow(stage)
      stage.b.behaviour.markerSeconds = 0.1
    })
    expect(outcome.error).to.include({ code: 'TIMEOUT_TOTAL', scope: 'TRANSFER' })
  })

  it('ends the wait for an answer', async () => {
    const outcome = await watched({ headersSeconds: 0.3 }, stage => {
      slow(stage)
      stage.b.behaviour.lateHeaders = true
    })
    expect(outcome.error).to.include({ code: 'TIMEOUT_HEADERS', scope: 'DESTINATION' })
  })
})
