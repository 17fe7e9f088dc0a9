import { expect } from 'chai'
import fc from 'fast-check'
import { nextLimit } from '../../server/transfers/optimizer.ts'
import { keptLimit, OPTIMIZER, type OptimizerState, startAt } from '../../server/transfers/optimizer-decision.ts'
import { sentenceOf } from '../../server/transfers/optimizer-words.ts'
import { type LinkWindow, NOTHING } from '../../server/transfers/throughput.ts'

const MB = 1_000_000

describe('whatever a link does', () => {
  const count = (max: number) => fc.oneof(fc.constant(0), fc.nat(max))
  const anything = fc
    .record({
      files: count(20_000),
      size: count(10_000 * MB),
      each: count(3_600_000),
      failures: count(500),
      idle: fc.nat(3),
      queued: count(2_000),
    })
    .map(
      ({ files, size, each, failures, idle, queued }) =>
        (limit: number): LinkWindow => ({
          length: 60_000,
          files,
          bytes: files * size,
          milliseconds: files * each,
          squaredSeconds: files * (each / 1_000) ** 2,
          failures,
          active: idle === 0 ? limit / 3 : limit,
          full: 0,
          queued,
        }),
    )
  const story = fc.array(fc.tuple(anything, fc.constantFrom(100, 100, 100, 100, 30, 1, 0)), { maxLength: 60 })

  const stepFrom = (limit: number): number => Math.max(limit + 1, Math.ceil(limit * Math.exp(OPTIMIZER.step.most)))

  it('the limit is a whole number from 1 to the maximum, at most a step above what was learnt or is on trial', () => {
    fc.assert(
      fc.property(story, fc.integer({ min: 1, max: 100 }), (windows, start) => {
        let limit = start
        let state: OptimizerState | undefined
        for (const [window, maximum] of windows) {
          const from = Math.min(limit, Math.max(1, maximum))
          const decision = nextLimit({ limit, maximum, window: window(from), state })
          expect(Number.isInteger(decision.limit)).to.equal(true)
          expect(decision.limit).to.be.within(1, Math.max(1, maximum))
          expect(decision.limit).to.be.at.most(
            stepFrom(Math.max(limit, state?.learnt ?? 0, state?.beyond ?? 0, state?.trial ?? 0)),
          )
          expect(sentenceOf(decision)).to.not.match(/NaN|Infinity|undefined/)
          expect(JSON.parse(JSON.stringify(decision.state))).to.deep.equal(decision.state)
          if (decision.code === 'ABOVE_MAXIMUM')
            expect(decision.figures.learnt).to.equal(state?.beyond || (state?.learnt ?? limit))
          state = decision.state
          limit = keptLimit(state)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('without information the limit does not change, but for a trial that ends', () => {
    fc.assert(
      fc.property(story, windows => {
        let limit = 40
        let state: OptimizerState = startAt(limit)
        for (const [window] of windows)
          ({ limit, state } = nextLimit({ limit, maximum: 100, window: window(limit), state }))
        const idle = nextLimit({ limit, maximum: 100, window: { ...NOTHING, length: 60_000 }, state })
        expect(idle.limit).to.equal(state.reduced || (state.delay > 0 ? limit : state.learnt))
        expect(idle.state.learnt).to.equal(state.learnt)
      }),
      { numRuns: 300 },
    )
  })
})
