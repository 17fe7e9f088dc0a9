/** The optimizer at simulated links: what they carry scatters by 10 % (one deviation) from one window to the next. */
import { expect } from 'chai'
import {
  bestOf,
  type Conditions,
  type LinkShape,
  type Play,
  play,
  type Step,
  shareInForce,
  shareLearnt,
} from './transfers-simulated-link.ts'

const MUCH = 100_000
const MB = 1_000_000
/** 4 kB each, 300 a second, best at 16. */
const LAN: LinkShape = {
  overhead: 16 / 300,
  stream: 1_000 * MB,
  bytesPerSecond: 1_000 * MB,
  filesPerSecond: 300,
  penalty: 0.3,
  size: 4_096,
  scatter: 0.5,
}
/** 5 GB each, 200 s alone, best at 40. */
const WAN: LinkShape = {
  overhead: 2,
  stream: 25 * MB,
  bytesPerSecond: 1_000 * MB,
  filesPerSecond: 50,
  penalty: 0.3,
  size: 5_000 * MB,
  scatter: 0.7,
}
/** 50 MB each, best at 70. */
const MEDIUM: LinkShape = {
  overhead: 0.4,
  stream: 20 * MB,
  bytesPerSecond: 1_200 * MB,
  filesPerSecond: 1_000,
  penalty: 0.3,
  size: 50 * MB,
  scatter: 1,
}
/** Half of them below 9 MB, and half of the bytes in files of more than 4 GB; best at 41. */
const UNLIKE: LinkShape = {
  overhead: 0.5,
  stream: 10 * MB,
  bytesPerSecond: 400 * MB,
  filesPerSecond: 10_000,
  penalty: 0.3,
  size: 200 * MB,
  scatter: 2.5,
}
/** One stream fills it. */
const NARROW: LinkShape = { ...MEDIUM, stream: 50 * MB, bytesPerSecond: 50 * MB, penalty: 0.5, overhead: 0 }

const steady = (shape: LinkShape) => (): Conditions => ({ shape, demand: MUCH, outage: false })

function plays(at: (window: number) => Conditions, options: Omit<Play, 'seed'>, seeds = 50): Step[][] {
  return Array.from({ length: seeds }, (_, index) => play(at, { ...options, seed: index + 1 }))
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
const part = <T>(values: readonly T[], holds: (value: T) => boolean): number =>
  values.filter(holds).length / values.length

/** Within 10 % of what the link carries at best. */
const isGood = (step: Step): boolean => shareLearnt(step) >= 0.9

/** Verdicts from `since` (a window) until the learnt limit was good; Infinity: it never was. */
function verdictsUntilGood(steps: readonly Step[], since = 0): number {
  const found = steps.slice(since).find(isGood)
  return found === undefined ? Number.POSITIVE_INFINITY : found.verdicts - (steps[since - 1]?.verdicts ?? 0)
}

function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(share * values.length) - 1] ?? Number.NaN
}

describe('the optimizer finds the best parallelism', () => {
  // [what, shape, seeds, windows, wander: from and to which part of the best 98 % of the learnt limits are]
  const shapes: [string, LinkShape, number, number, [number, number]][] = [
    ['4 kB files in a LAN', LAN, 50, 400, [0.85, 1.25]],
    ['5 GB files in a WAN', WAN, 15, 800, [0.85, 1.4]],
    ['50 MB files', MEDIUM, 50, 400, [0.85, 1.25]],
    ['where more than the best loses nothing', { ...MEDIUM, penalty: 0 }, 50, 400, [0.85, 1.45]],
    ['where more than the best fails', { ...MEDIUM, penalty: 0.1, failing: 0.4 }, 50, 400, [0.85, 1.2]],
    ['where more than the best loses much', { ...MEDIUM, penalty: 2 }, 50, 400, [0.8, 1.1]],
    ['one stream that fills the link', NARROW, 50, 400, [1, 1]],
  ]
  for (const [what, shape, count, windows, [least, most]] of shapes) {
    it(`${what}: within 10 % after 30 decisions, and stays there`, () => {
      const all = plays(steady(shape), { windows }, count)
      const found = all.map(steps => verdictsUntilGood(steps))
      expect(quantile(found, 0.5)).to.be.at.most(20)
      expect(quantile(found, 0.9)).to.be.at.most(30)
      expect(quantile(found, 1)).to.be.at.most(60)
      const settled = all.flatMap(steps => steps.filter(({ verdicts }) => verdicts > 60))
      expect(part(settled, isGood)).to.be.at.least(0.93)
      expect(mean(settled.map(step => shareInForce(step)))).to.be.at.least(0.9)
      const wandered = settled.map(({ decision }) => decision.state.learnt / Math.round(bestOf(shape)))
      expect(quantile(wandered, 0.01)).to.be.at.least(least)
      expect(quantile(wandered, 0.99)).to.be.at.most(most)
    })
  }

  it('a few very large files among small ones: within 10 % after five hours, for each change takes as long as they do', () => {
    const settled = plays(steady(UNLIKE), { windows: 800 }, 15).flatMap(steps => steps.slice(300))
    expect(part(settled, isGood)).to.be.at.least(0.93)
  })

  it('where the best is beyond the maximum: goes there, and stays', () => {
    const all = plays(steady({ ...MEDIUM, bytesPerSecond: 10_000 * MB }), { windows: 400 })
    const settled = all.flatMap(steps => steps.filter(({ verdicts }) => verdicts > 60))
    expect(part(settled, ({ decision }) => decision.state.learnt >= 90)).to.be.at.least(0.95)
    expect(settled.every(({ decision }) => decision.limit <= 100)).to.equal(true)
  })

  it('where one is all that is allowed: one', () => {
    const steps = plays(steady(MEDIUM), { windows: 50, maximum: 1, start: 1 }).flat()
    expect(new Set(steps.map(({ decision }) => decision.limit))).to.deep.equal(new Set([1]))
    expect(new Set(steps.map(({ decision }) => decision.code))).to.deep.equal(new Set(['AT_MAXIMUM']))
  })

  it('from 4 to 100 in about a dozen decisions where nothing scatters', () => {
    const [steps = []] = plays(steady({ ...MEDIUM, bytesPerSecond: 10_000 * MB }), { windows: 20, noise: 0 }, 1)
    expect(steps.findIndex(({ decision }) => decision.limit === 100) + 1).to.be.within(8, 13)
  })

  it('from far above', () => {
    const all = plays(steady(MEDIUM), { windows: 100, maximum: 1_000, start: 400 })
    const found = all.map(steps => steps.findIndex(step => shareLearnt(step, 1_000) >= 0.9))
    expect(found).to.not.include(-1)
    expect(quantile(found, 0.9)).to.be.at.most(40)
  })

  it('where the noise of one window goes on in the next', () => {
    const all = plays(steady(MEDIUM), { windows: 400, kept: 0.8 })
    const settled = all.flatMap(steps => steps.slice(60))
    expect(part(settled, isGood)).to.be.at.least(0.93)
  })
})

describe('the optimizer finds it again', () => {
  const half = { ...MEDIUM, bytesPerSecond: MEDIUM.bytesPerSecond / 2 }
  const third = { ...MEDIUM, bytesPerSecond: MEDIUM.bytesPerSecond / 3 }
  const changing = (before: LinkShape, after: LinkShape) => (window: number) => steady(window < 100 ? before : after)()
  // [what, before, after, verdicts for half of the seeds, for 90 %, for all]
  const changes: [string, LinkShape, LinkShape, number, number, number][] = [
    ['when capacity is halved', MEDIUM, half, 20, 40, 60],
    ['when it falls to a third', MEDIUM, third, 20, 50, 80],
    ['when it doubles', half, MEDIUM, 30, 50, 80],
    ['when it trebles', third, MEDIUM, 30, 50, 80],
    ['when files are so small that it takes three times as many', MEDIUM, { ...MEDIUM, size: 4 * MB }, 20, 40, 60],
    ['when small files become large', { ...LAN, size: 1 * MB, bytesPerSecond: 300 * MB }, LAN, 20, 40, 60],
  ]
  for (const [what, before, after, most, nearly, all] of changes) {
    it(what, () => {
      const found = plays(changing(before, after), { windows: 300, maximum: 300 }).map(steps =>
        verdictsUntilGood(steps, 100),
      )
      expect(quantile(found, 0.5)).to.be.at.most(most)
      expect(quantile(found, 0.9)).to.be.at.most(nearly)
      expect(quantile(found, 1)).to.be.at.most(all)
    })
  }

  for (const failing of [0.6, 0.8, 1]) {
    it(`when it is halved, and ${100 * failing} % fail of what is too much`, () => {
      const all = plays(changing({ ...MEDIUM, failing }, { ...half, failing }), { windows: 300, maximum: 300 })
      const settled = all.flatMap(steps => steps.slice(200))
      // A step more would have it fail again.
      expect(part(settled, step => shareLearnt(step) >= 0.8)).to.be.at.least(0.93)
      expect(mean(settled.map(step => shareInForce(step)))).to.be.at.least(0.88)
    })
  }

  it('while capacity rises and falls threefold in six hours: nine tenths of it are carried', () => {
    const at = (window: number): Conditions =>
      steady({ ...MEDIUM, bytesPerSecond: 800 * MB * (1 + 0.5 * Math.sin(window / 60)) })()
    const all = plays(at, { windows: 800 }).flatMap(steps => steps.slice(60))
    expect(mean(all.map(step => shareInForce(step)))).to.be.at.least(0.9)
  })
})

describe('a change of file sizes is not one of capacity', () => {
  // Sizes go up and down by a factor of four, in 50 minutes.
  const swinging = (shape: LinkShape) => (window: number) =>
    steady({ ...shape, size: shape.size * Math.exp(0.7 * Math.sin(window / 8)) })()
  for (const [what, shape] of [
    ['small files, counted by files', LAN],
    ['large files, counted by bytes', MEDIUM],
  ] as const) {
    it(what, () => {
      const settled = plays(swinging(shape), { windows: 400 }, 20).flatMap(steps => steps.slice(60))
      expect(part(settled, isGood)).to.be.at.least(0.9)
      const falls = settled.filter(
        ({ decision }) => decision.code === 'THROUGHPUT_FELL' || decision.code === 'THROUGHPUT_ROSE',
      )
      expect(falls.length / settled.length).to.be.at.most(0.005)
    })
  }
})

describe('an outage of an hour', () => {
  const during =
    (shape: LinkShape, outage: 'failing' | 'hanging', from: number) =>
    (window: number): Conditions => ({
      shape,
      demand: MUCH,
      outage: window >= from && window < from + 60 ? outage : false,
    })
  for (const outage of ['failing', 'hanging'] as const) {
    it(`${outage}: what was learnt is kept, and in force again after 5 minutes`, () => {
      for (const steps of plays(during(MEDIUM, outage, 100), { windows: 166 })) {
        const learnt = steps[99]?.decision.state.learnt
        for (const { decision } of steps.slice(100, 160)) {
          expect(decision.state.learnt).to.equal(learnt)
          expect(decision.limit).to.be.at.least(1)
        }
        const after = steps.slice(160).map(({ decision }) => decision.limit)
        expect(Math.max(...after)).to.be.at.least(0.85 * (learnt ?? Number.NaN))
      }
    })
  }

  it('of 5 GB files: after 20 minutes, which are a few times the time of a file', () => {
    for (const steps of plays(during(WAN, 'failing', 600), { windows: 680 }, 15)) {
      const learnt = steps[599]?.decision.state.learnt
      const after = steps.slice(660).map(({ decision }) => decision.limit)
      expect(Math.max(...after)).to.be.at.least(0.85 * (learnt ?? Number.NaN))
    }
  })

  it('hanging files of 5 GB: what then ends late does not count', () => {
    const all = plays(during(WAN, 'hanging', 600), { windows: 800 }, 15)
    const after = all.flatMap(steps => steps.slice(660))
    expect(part(after, isGood)).to.be.at.least(0.9)
  })

  it('that comes and goes every few minutes: what was learnt is there again after an hour', () => {
    const at = (window: number): Conditions => ({
      shape: MEDIUM,
      demand: MUCH,
      outage: window >= 100 && window < 160 && window % 6 >= 3 ? 'failing' : false,
    })
    const found = plays(at, { windows: 260 }).map(steps => steps.slice(160).findIndex(isGood))
    expect(found).to.not.include(-1)
    expect(quantile(found, 0.9)).to.be.at.most(40)
    expect(quantile(found, 1)).to.be.at.most(60)
  })

  it('lets less run meanwhile, for too much may be its cause', () => {
    const [steps = []] = plays(during(MEDIUM, 'failing', 100), { windows: 160 }, 1)
    const { learnt } = steps[150]?.decision.state ?? { learnt: Number.NaN }
    expect(steps[150]?.decision.limit).to.equal(Math.ceil(learnt / 8))
  })
})

describe('a maximum that is lowered for a while', () => {
  const from = 100
  const lowered = (least: number, until: number) => (window: number) => (window >= from && window < until ? least : 100)
  // In five hours chance may find that less suffices.
  for (const [least, until, share] of [
    [1, 160, 1],
    [5, 102, 1],
    [20, 160, 0.9],
    [20, 400, 0.8],
  ] as const) {
    it(`to ${least} for ${until - from} windows: no more runs meanwhile, and what was learnt is there at once`, () => {
      const all = plays(steady(MEDIUM), { windows: until + 1, maximum: lowered(least, until) })
      for (const steps of all) {
        const meanwhile = steps.slice(from, until)
        expect(meanwhile.every(({ decision: { limit, from } }) => Math.max(limit, from) <= least)).to.equal(true)
        expect(meanwhile[0]?.decision.code).to.equal('ABOVE_MAXIMUM')
      }
      const kept = part(all, steps => steps.at(-1)?.decision.limit === steps[from - 1]?.decision.state.learnt)
      expect(kept).to.be.at.least(share)
    })
  }

  it('to what is still more than the best: less is found to suffice, and stays', () => {
    const all = plays(steady(LAN), { windows: 300, maximum: lowered(30, 250), start: 90 })
    expect(
      part(
        all.map(steps => steps[290]),
        step => step !== undefined && isGood(step),
      ),
    ).to.be.at.least(0.9)
  })
})

describe('idle times', () => {
  it('demand below the limit teaches nothing: what was learnt does not change by it', () => {
    const at = (window: number): Conditions => ({ ...steady(MEDIUM)(), demand: window < 100 ? MUCH : (window % 7) * 8 })
    for (const steps of plays(at, { windows: 300 })) {
      const learnt = steps[99]?.decision.state.learnt
      expect(steps.slice(100).every(({ decision }) => decision.state.learnt === learnt)).to.equal(true)
    }
  })

  it('demand that comes and goes: within 10 % as long as it lasts', () => {
    const at = (window: number): Conditions => ({
      ...steady(MEDIUM)(),
      demand: window % 50 < 25 ? MUCH : (window % 7) * 5,
    })
    const busy = plays(at, { windows: 500 })
      .flatMap(steps => steps.slice(100))
      .filter(step => step.conditions.demand === MUCH)
    expect(part(busy, isGood)).to.be.at.least(0.93)
  })

  it('a queue that is shorter than the limit does not raise it', () => {
    const at = (): Conditions => ({ ...steady(MEDIUM)(), demand: 30 })
    for (const steps of plays(at, { windows: 100 })) {
      expect(Math.max(...steps.map(({ decision }) => decision.state.learnt))).to.be.at.most(20)
    }
  })
})
