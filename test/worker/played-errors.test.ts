import { expect } from 'chai'
import type { Behaviour, Played } from '../../sandbox/main.ts'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { FLAVOURS, play } from './playing.ts'
import { refusePermits, Stage } from './stage.ts'
import type { ReportedOutcome } from './stand-in-server.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))

/** `code scope`, whether the same may succeed later, and whether something had to be removed at the destination. */
type Expected = readonly [failure: string, retryable: boolean, cleaned: boolean]

interface Row {
  readonly what: string
  readonly mode: 'pull' | 'push'
  /** What the source and the destination do; without it nothing but what they play. */
  readonly source?: Partial<Behaviour>
  readonly destination?: Partial<Behaviour>
  /** Scopes of the grants, for who may too little. */
  readonly grants?: { readonly source?: string; readonly destination?: string }
  readonly missing?: true
  readonly expected: Readonly<Record<Played, Expected>>
}

const same = (expected: Expected): Record<Played, Expected> => ({
  xrootd5: expected,
  xrootd6: expected,
  eos: expected,
  dcache: expected,
  storm: expected,
})

/** XRootD and StoRM leave what was written, or an empty file; dCache removes it (facts/http-tpc.md section 5, Debris). */
const littered = (failure: string, retryable: boolean): Record<Played, Expected> => ({
  ...same([failure, retryable, true]),
  dcache: [failure, retryable, false],
})

/** From 5.7.2 on XRootD asks for the source before it opens anything. */
const askedFirst = (failure: string): Record<Played, Expected> => ({
  ...same([failure, false, false]),
  xrootd5: [failure, false, true],
  storm: [failure, false, true],
})

const CUT = { breaksOff: { verb: 'GET', afterBytes: 1_000, by: 'closing' } } as const
const STALL = { breaksOff: { verb: 'GET', afterBytes: 1_000, by: 'stalling' } } as const
/** Of the side that is to notice a stall. */
const IMPATIENT = { stallSeconds: 0.5 } as const
const ELSEWHERE = 'storage.read:/exp/elsewhere'

/** The rows of facts/http-tpc.md section 5, as the worker reports them. */
const ROWS: readonly Row[] = [
  { what: 'source missing', mode: 'pull', missing: true, expected: askedFirst('SOURCE_MISSING SOURCE') },
  {
    what: 'source 403',
    mode: 'pull',
    grants: { source: ELSEWHERE },
    expected: askedFirst('PERMISSION_DENIED SOURCE'),
  },
  { what: 'source missing', mode: 'push', missing: true, expected: same(['SOURCE_MISSING SOURCE', false, false]) },
  {
    what: 'destination 403',
    mode: 'push',
    grants: { destination: 'storage.read:/exp/ds' },
    expected: same(['PERMISSION_DENIED DESTINATION', false, false]),
  },
  {
    what: 'permission at the active side',
    mode: 'pull',
    grants: { destination: 'storage.read:/exp/ds' },
    expected: {
      ...same(['PERMISSION_DENIED DESTINATION', false, false]),
      xrootd5: ['TOKEN_REFUSED TOKEN', true, false],
      eos: ['TOKEN_REFUSED TOKEN', true, false],
      dcache: ['TOKEN_REFUSED TOKEN', true, false],
    },
  },
  {
    what: 'permission at the active side',
    mode: 'push',
    grants: { source: ELSEWHERE },
    expected: {
      ...same(['PERMISSION_DENIED SOURCE', false, false]),
      xrootd5: ['TOKEN_REFUSED TOKEN', true, false],
      eos: ['TOKEN_REFUSED TOKEN', true, false],
      dcache: ['TOKEN_REFUSED TOKEN', true, false],
    },
  },
  {
    what: 'no space when the file is opened',
    mode: 'pull',
    destination: { full: 'at-open' },
    expected: same(['DESTINATION_FULL DESTINATION', true, false]),
  },
  {
    what: 'no space while it is written',
    mode: 'pull',
    destination: { full: 'while-writing' },
    expected: littered('DESTINATION_FULL DESTINATION', true),
  },
  {
    what: 'no space at the destination',
    mode: 'push',
    destination: { full: 'while-writing' },
    expected: {
      ...littered('DESTINATION_FULL DESTINATION', true),
      // It gets no answer.
      xrootd5: ['CONNECTION_LOST DESTINATION', true, true],
    },
  },
  { what: 'source cut off', mode: 'pull', source: CUT, expected: littered('SOURCE_CUT_OFF SOURCE', true) },
  {
    what: 'stall',
    mode: 'pull',
    source: STALL,
    destination: IMPATIENT,
    expected: {
      ...littered('TIMEOUT_NO_PROGRESS TRANSFER', true),
      // Their words name the source.
      xrootd6: ['TIMEOUT_NO_PROGRESS SOURCE', true, true],
      eos: ['TIMEOUT_NO_PROGRESS SOURCE', true, true],
    },
  },
  {
    what: 'stall of the destination',
    mode: 'push',
    source: IMPATIENT,
    destination: { breaksOff: { verb: 'PUT', afterBytes: 1_000, by: 'stalling' } },
    expected: littered('TIMEOUT_NO_PROGRESS TRANSFER', true),
  },
]

for (const flavour of FLAVOURS) {
  describe(`what a worker reports of ${flavour} storages, for`, () => {
    let stage: Stage
    before(async () => {
      stage = await Stage.create()
      stage.start()
    })
    beforeEach(() => {
      for (const storage of [stage.a, stage.b]) play(storage, flavour)
      // As the real one does, where no earlier attempt wrote.
      stage.server.before = name => {
        if (stage.server.permits.at(-1)?.written !== true) refusePermits(name)
      }
    })
    after(() => stage.end())

    let files = 0
    const prepare = async (mode: 'pull' | 'push', overrides: Partial<ClaimedTransfer> = {}) => {
      for (const storage of stage.server.storages.values()) {
        stage.server.storages.set(storage.rse, { ...storage, canPull: mode === 'pull' })
      }
      files += 1
      const transfer = await stage.transfer(`f${files}`, CONTENT, overrides)
      return { transfer, name: `f${files}` }
    }
    const run = async (transfer: ClaimedTransfer): Promise<ReportedOutcome> => {
      stage.server.enqueue(transfer)
      return stage.server.outcomeOf(transfer.transfer)
    }
    const allow = (id: number, scope: string | undefined) => {
      const grant = stage.server.grants.get(id)
      if (grant !== undefined && scope !== undefined) stage.server.grants.set(id, { ...grant, scopes: [scope] })
    }

    for (const { what, mode, source = {}, destination = {}, grants = {}, missing, expected } of ROWS) {
      const [failure, retryable, cleaned] = expected[flavour]
      it(`${what}, ${mode}: ${failure}`, async () => {
        play(stage.a, flavour, source)
        play(stage.b, flavour, destination)
        const { transfer, name } = await prepare(mode)
        allow(transfer.source.grant, grants.source)
        allow(transfer.destination.grant, grants.destination)
        const deletes = stage.b.requests.get('DELETE') ?? 0
        const from = missing ? { ...transfer.source, url: `${transfer.source.url}.missing` } : transfer.source
        const outcome = await run({ ...transfer, source: from })
        const { error } = outcome
        expect(`${error?.code} ${error?.scope}`, error?.message).to.equal(failure)
        expect(error?.retryable).to.equal(retryable)
        expect(outcome).to.include({ result: 'failed', cleaned, mode })
        expect((stage.b.requests.get('DELETE') ?? 0) - deletes, 'DELETEs').to.equal(cleaned ? 1 : 0)
        expect(await stage.read('SITE-B', name), 'what is left').to.equal(undefined)
        expect(await stage.read('SITE-A', name), 'the source').to.deep.equal(CONTENT)
      })
    }

    for (const mode of ['pull', 'push'] as const) {
      for (const source of ['', '.missing'])
        it(`a file of somebody else's, ${mode}${source && ', source missing'}: it stays`, async () => {
          const { transfer, name } = await prepare(mode)
          await stage.write('SITE-B', name, 'another')
          const deletes = stage.b.requests.get('DELETE') ?? 0
          const from = { ...transfer.source, url: `${transfer.source.url}${source}` }
          const outcome = await run({ ...transfer, source: from })
          expect(outcome).to.include({ result: 'failed', cleaned: false })
          expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', scope: 'DESTINATION', retryable: false })
          expect(String(await stage.read('SITE-B', name))).to.equal('another')
          expect(stage.b.requests.get('DELETE') ?? 0).to.equal(deletes)
        })
    }

    it("a file of somebody else's that came after the look, push: it stays", async () => {
      const { transfer, name } = await prepare('push')
      await stage.write('SITE-B', name, 'another')
      // To the canary, and to the look.
      stage.b.refuse({ verb: 'HEAD', status: 404, times: 2 })
      const copies = stage.a.requests.get('COPY') ?? 0
      const outcome = await run(transfer)
      expect(stage.a.requests.get('COPY')).to.equal(copies + 1)
      expect(outcome).to.include({ result: 'failed', cleaned: false })
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', retryable: false })
      expect(String(await stage.read('SITE-B', name))).to.equal('another')
    })

    it('a missing parent, pull: it is made, and the copy done', async () => {
      const { transfer } = await prepare('pull')
      await stage.write('SITE-A', `new/er/${transfer.transfer}`, CONTENT)
      const at = (url: string) => new URL(`new/er/${transfer.transfer}`, url).href
      const outcome = await run({
        ...transfer,
        source: { ...transfer.source, url: at(transfer.source.url) },
        destination: { ...transfer.destination, url: at(transfer.destination.url) },
      })
      expect(outcome.error).to.equal(undefined)
      expect(outcome).to.include({ result: 'done', mode: 'pull' })
      expect(await stage.read('SITE-B', `new/er/${transfer.transfer}`)).to.deep.equal(CONTENT)
    })
  })
}
