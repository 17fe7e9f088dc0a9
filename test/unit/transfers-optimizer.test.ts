import { expect } from 'chai'
import { nextLimit, type OptimizerInput } from '../../server/transfers/optimizer.ts'
import { type OptimizerCode, type OptimizerState, startAt } from '../../server/transfers/optimizer-decision.ts'
import { sentenceOf } from '../../server/transfers/optimizer-words.ts'
import { type LinkWindow, levelOf } from '../../server/transfers/throughput.ts'

const MB = 1_000_000

/** A minute with 40 at a time of files of 10 MB that take 2 s each: 20 a second. */
const minute: LinkWindow = {
  length: 60_000,
  files: 1_200,
  bytes: 12_000 * MB,
  milliseconds: 2_400_000,
  squaredSeconds: 4_800,
  failures: 0,
  active: 40,
  full: 0,
  queued: 1_000,
}
const nothing: LinkWindow = { ...minute, files: 0, bytes: 0, milliseconds: 0 }
/** The same files, where so many at a time carry so much more (a factor). */
const at = (active: number, carries = 1): LinkWindow => ({
  ...minute,
  active,
  files: Math.round(minute.files * carries),
  bytes: minute.bytes * carries,
  milliseconds: active * 60_000,
})

const settled: OptimizerState = { ...startAt(40), atLearnt: { ...levelOf(minute), count: 5 }, lasting: 2_000 }
const trying = (trial: number): OptimizerState => ({ ...settled, trial, direction: trial > 40 ? 1 : -1 })
const input: OptimizerInput = { limit: 40, maximum: 100, window: minute, state: settled }

type Case = [string, Partial<OptimizerInput>, OptimizerCode, number, string]

describe('the next limit of a link', () => {
  const cases: Case[] = [
    ['more is tried', {}, 'PROBE_UP', 54, '40 -> 54: whether more pays is tried'],
    [
      'what pays is kept, and the next step tried at once',
      { limit: 54, window: at(54, 1.2), state: trying(54) },
      'INCREASE_PAYS',
      73,
      '54 -> 73: 54 carried 20.0 % more than 40: it pays',
    ],
    [
      'what does not pay is left',
      { limit: 54, window: at(54, 0.9), state: trying(54) },
      'NO_GAIN',
      40,
      '54 -> 40: 54 carried 10.0 % less than 40: more does not pay',
    ],
    [
      'what may be chance is tried again, with the learnt limit in between',
      { limit: 54, window: at(54, 1.05), state: trying(54) },
      'UNDECIDED',
      40,
      '54 -> 40: 54 carried 5.0 % more than 40 so far, which may be chance',
    ],
    [
      'less that carries as much is kept',
      { limit: 30, window: at(30, 1.1), state: trying(30) },
      'LESS_SUFFICES',
      22,
      '30 -> 22: 30 carried 10.0 % more than 40: less suffices',
    ],
    [
      'less that carries less is left',
      { limit: 30, window: at(30, 0.75), state: trying(30) },
      'LESS_CARRIES_LESS',
      40,
      '30 -> 40: 30 carried 25.0 % less than 40: less carries less',
    ],
    [
      'nothing beyond the maximum is tried',
      { maximum: 40, state: { ...settled, fruitless: 4 } },
      'AT_MAXIMUM',
      40,
      '40: the link and its storages allow 40',
    ],
    [
      'a lower maximum holds at once',
      { maximum: 20 },
      'ABOVE_MAXIMUM',
      20,
      '20: the link and its storages allow 20 now; 40 is kept in mind',
    ],
    [
      'one below what is tried ends the trial',
      { maximum: 50, limit: 54, state: trying(54) },
      'ABOVE_MAXIMUM',
      40,
      '50 -> 40: the link and its storages allow 50 now',
    ],
    [
      'as long as it lasts it is the limit that was learnt',
      { maximum: 20, window: at(20), state: { ...settled, learnt: 20, beyond: 40, fruitless: 4 } },
      'AT_MAXIMUM',
      20,
      '20: the link and its storages allow 20',
    ],
    [
      'less may be tried there',
      { maximum: 20, window: at(20), state: { ...settled, learnt: 20, beyond: 40 } },
      'PROBE_DOWN',
      15,
      '20 -> 15: whether less suffices is tried',
    ],
    [
      'and where most fail half of them run',
      { maximum: 20, window: { ...nothing, failures: 30 }, state: { ...settled, learnt: 20, beyond: 40 } },
      'OUTAGE',
      10,
      '20 -> 10: 30 of 30 attempts failed; 40 is kept in mind',
    ],
    [
      'when it is raised again all that was learnt is in force',
      { window: at(20), state: { ...settled, learnt: 20, beyond: 40 } },
      'MAXIMUM_RAISED',
      40,
      '40: the link and its storages allow 100 now, and 40 was learnt',
    ],
    [
      'or as much as it allows',
      { maximum: 30, window: at(20), state: { ...settled, learnt: 20, beyond: 40 } },
      'MAXIMUM_RAISED',
      30,
      '30: the link and its storages allow 30 now, and 40 was learnt',
    ],
    [
      'a maximum of 0 is for others to keep',
      { maximum: 0, limit: 1, state: undefined },
      'AT_MAXIMUM',
      1,
      '1: the link and its storages allow 1',
    ],
    [
      'one window that is unlike the others is chance',
      { window: at(40, 0.5) },
      'MEASURING',
      40,
      '40: measured at 40 before the next trial: 10 files/s, 100 MB/s',
    ],
    [
      'the second is a change',
      { window: at(40, 0.5), state: { ...settled, odd: levelOf(at(40, 0.5)) } },
      'THROUGHPUT_FELL',
      30,
      '40 -> 30: throughput fell by 50.0 % at the same limit',
    ],
    [
      'the second after one to the other side is not',
      { window: at(40, 0.5), state: { ...settled, odd: levelOf(at(40, 2)) } },
      'MEASURING',
      40,
      '40: measured at 40 before the next trial: 10 files/s, 100 MB/s',
    ],
    [
      'more than before is a change too',
      { window: at(40, 2), state: { ...settled, odd: levelOf(at(40, 2)) } },
      'THROUGHPUT_ROSE',
      54,
      '40 -> 54: throughput rose by 100.0 % at the same limit',
    ],
    [
      'files of quite other sizes are measured anew',
      { window: { ...minute, bytes: minute.bytes * 10 } },
      'OTHER_SIZES',
      40,
      '40: the files are of other sizes, 100 MB on average: it is measured anew',
    ],
    [
      'where many fail less is tried',
      { window: { ...minute, failures: 200 } },
      'FAILURES',
      30,
      '40 -> 30: 200 of 1400 attempts failed',
    ],
    [
      'where most fail half of them run',
      { window: { ...nothing, failures: 30 } },
      'OUTAGE',
      20,
      '40 -> 20: 30 of 30 attempts failed; 40 is kept in mind',
    ],
    [
      'and not less than an eighth',
      { limit: 6, window: { ...nothing, failures: 30 }, state: { ...settled, reduced: 6 } },
      'OUTAGE',
      5,
      '6 -> 5: 30 of 30 attempts failed; 40 is kept in mind',
    ],
    [
      'also where few fail in each window',
      { window: { ...nothing, failures: 2 }, state: { ...settled, pending: { ...nothing, failures: 4 } } },
      'OUTAGE',
      20,
      '40 -> 20: 6 of 6 attempts failed; 40 is kept in mind',
    ],
    [
      'twice as many with every window that copies again',
      { limit: 5, window: at(5), state: { ...settled, reduced: 5 } },
      'AFTER_OUTAGE',
      10,
      '5 -> 10: 1200 files were copied again, on the way back to 40',
    ],
    [
      'until it is what was learnt',
      { limit: 20, window: at(20), state: { ...settled, reduced: 20 } },
      'AFTER_OUTAGE',
      40,
      '20 -> 40: 1200 files were copied again, on the way back to 40',
    ],
    [
      'a third more where some still fail',
      { limit: 10, window: { ...at(10), failures: 300 }, state: { ...settled, reduced: 10 } },
      'AFTER_OUTAGE',
      13,
      '10 -> 13: 1200 files were copied again, on the way back to 40',
    ],
    [
      'an outage is not over where most still fail',
      { limit: 5, window: { ...at(5), files: 1, failures: 4 }, state: { ...settled, reduced: 5 } },
      'OUTAGE',
      5,
      '5: 4 of 5 attempts failed; 40 is kept in mind',
    ],
    [
      'where most fail while more is tried it is left for what was learnt',
      { limit: 54, window: { ...nothing, failures: 30 }, state: trying(54) },
      'FAILURES',
      40,
      '54 -> 40: 30 of 30 attempts failed',
    ],
    [
      'the first failure on the way back may be the outage that goes on',
      { limit: 20, window: { ...nothing, failures: 30 }, state: { ...settled, reduced: 20, worked: 10 } },
      'OUTAGE',
      10,
      '20 -> 10: 30 of 30 attempts failed; 40 is kept in mind',
    ],
    [
      'the fourth says that it was too much',
      { limit: 20, window: { ...nothing, failures: 30 }, state: { ...settled, reduced: 20, worked: 10, relapses: 3 } },
      'OVERLOADED',
      10,
      '20 -> 10: 30 of 30 attempts failed again, and 10 at a time did not',
    ],
    [
      'but not where no more ran than what copied',
      { limit: 10, window: { ...nothing, failures: 30 }, state: { ...settled, reduced: 10, worked: 10, relapses: 3 } },
      'OUTAGE',
      5,
      '10 -> 5: 30 of 30 attempts failed; 40 is kept in mind',
    ],
    [
      'an outage is not over where nothing ended',
      { limit: 5, window: { ...nothing, active: 0 }, state: { ...settled, reduced: 5 } },
      'NO_INFORMATION',
      5,
      '5: nothing ended',
    ],
    [
      'a limit that was not used is kept',
      { window: { ...minute, active: 12, queued: 0 } },
      'DEMAND_BELOW_LIMIT',
      40,
      '40: 12 ran on average and 0 waited: nothing to learn from',
    ],
    [
      'one that was reached most of the time is used, though less ran on average: what ends in bulk leaves places empty',
      { window: { ...at(28), full: 0.6 } },
      'PROBE_UP',
      54,
      '40 -> 54: whether more pays is tried',
    ],
    [
      'a trial without the work for it ends',
      { limit: 54, window: { ...minute, active: 12, queued: 0 }, state: trying(54) },
      'DEMAND_BELOW_LIMIT',
      40,
      '54 -> 40: 12 ran on average and 0 waited: nothing to learn from',
    ],
    [
      'a queue that would not fill a higher limit does not raise it',
      { window: { ...minute, queued: 39 } },
      'DEMAND_BELOW_LIMIT',
      40,
      '40: 40 ran on average and 39 waited: nothing to learn from',
    ],
    [
      'nothing known, nothing changed',
      { window: { ...nothing, active: 0, queued: 0 } },
      'NO_INFORMATION',
      40,
      '40: nothing ended',
    ],
    ['nothing ended where much should have', { window: nothing }, 'NO_INFORMATION', 40, '40: nothing ended'],
    [
      'few files are no measure',
      { window: { ...minute, files: 3, bytes: 30 * MB } },
      'TOO_FEW_FILES',
      40,
      '40: 3 files in 60 s are too few to judge by',
    ],
    [
      'neither is what began at another limit',
      { state: { ...settled, delay: 300_000 } },
      'TAKING_EFFECT',
      40,
      '40: what ends now began at another limit, or hung',
    ],
    [
      'where somebody else has set the limit it begins there',
      { limit: 20, window: at(20) },
      'PROBE_UP',
      27,
      '20 -> 27: whether more pays is tried',
    ],
  ]
  for (const [what, change, code, limit, sentence] of cases) {
    it(what, () => {
      const decision = nextLimit({ ...input, ...change })
      expect([decision.code, decision.limit]).to.deep.equal([code, limit])
      expect(sentenceOf(decision)).to.equal(sentence)
    })
  }

  it('what suffices below a lowered maximum is what was learnt', () => {
    const state = { ...trying(30), learnt: 40, beyond: 60, atTrial: levelOf(at(30, 1.1)) }
    const decision = nextLimit({ ...input, limit: 30, maximum: 40, window: at(30, 1.1), state })
    expect([decision.code, decision.state.learnt, decision.state.beyond]).to.deep.equal(['LESS_SUFFICES', 30, 0])
  })

  it('few files become enough with those of the next windows', () => {
    const few = { ...minute, files: 4, bytes: 40 * MB, milliseconds: 8_000 }
    const codes: OptimizerCode[] = []
    let state: OptimizerState | undefined = settled
    for (let number = 0; number < 3; number += 1) {
      const decision = nextLimit({ ...input, window: few, state })
      codes.push(decision.code)
      state = decision.state
    }
    expect(codes).to.deep.equal(['TOO_FEW_FILES', 'TOO_FEW_FILES', 'PROBE_UP'])
  })

  it('after a change it waits as long as a file takes', () => {
    const long = { ...minute, files: 20, milliseconds: 20 * 120_000, squaredSeconds: 20 * 120 ** 2 }
    const { state } = nextLimit({ ...input, window: long, state: { ...settled, atLearnt: levelOf(long), lasting: 0 } })
    expect(state.delay).to.equal(120_000)
    const later = nextLimit({ ...input, limit: 54, window: at(54), state })
    expect([later.code, later.state.delay]).to.deep.equal(['TAKING_EFFECT', 60_000])
  })

  it('an outage is over at once when copies succeed: its failures are not added to them', () => {
    const failed = { ...nothing, active: 1, failures: 6 }
    const few = { ...at(1), files: 3 }
    const one = { ...input, limit: 1, state: { ...startAt(1), pending: failed } }
    const first = nextLimit({ ...one, window: failed })
    const next = nextLimit({ ...one, window: few, state: first.state })
    expect([first.code, next.code]).to.deep.equal(['OUTAGE', 'AFTER_OUTAGE'])
  })

  it('is back after an outage, also where a fifth goes on failing', () => {
    let [limit, state]: [number, OptimizerState] = [40, settled]
    for (let number = 0; number < 4; number += 1)
      ({ limit, state } = nextLimit({ ...input, limit, state, window: { ...nothing, failures: 30 } }))
    expect(limit).to.equal(5)
    for (let number = 0; number < 8; number += 1)
      ({ limit, state } = nextLimit({ ...input, limit, state, window: { ...at(limit), failures: 300 } }))
    expect([limit, state.reduced]).to.deep.equal([40, 0])
  })

  it('rests longer the more trials in a row led nowhere', () => {
    const rests = [0, 1, 2, 3, 4, 9].map(fruitless => {
      let state: OptimizerState = { ...settled, fruitless }
      for (let windows = 1; ; windows += 1) {
        const decision = nextLimit({ ...input, state })
        if (decision.code === 'PROBE_UP') return windows
        state = decision.state
      }
    })
    expect(rests).to.deep.equal([1, 2, 4, 8, 16, 16])
  })
})
