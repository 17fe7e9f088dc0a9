import { expect } from 'chai'
import {
  averageActive,
  beginMeasuring,
  isIdle,
  type LinkToTune,
  type MinuteSums,
  minuteToRead,
  partFull,
  stateFrom,
  TUNING,
  type Tuned,
  tuned,
} from '../../server/transfers/link-tuning.ts'

const LINK: LinkToTune = {
  id: 1,
  learnt: 10,
  maximum: 60,
  measuredAt: undefined,
  state: undefined,
  mode: undefined,
  bothModes: true,
}
const NO_SUMS = { files: 0, bytes: 0, milliseconds: 0, squaredSeconds: 0, failures: 0 }
const NOTHING_BEFORE = { pull: NO_SUMS, push: NO_SUMS, stream: NO_SUMS, none: NO_SUMS }
const START = 1_000 * 60_000

function sums(minute: number, mode: MinuteSums['mode'], files: number, failures = 0): MinuteSums {
  return { minute, mode, files, bytes: files * 1_000, milliseconds: files * 500, squaredSeconds: files / 4, failures }
}

/** What another round sees of what the last has left, as it was stored. */
function laterLink(
  { linkId: id, state, limit, mode }: Tuned,
  at: number,
): LinkToTune & {
  readonly measuredAt: number
  readonly state: NonNullable<LinkToTune['state']>
} {
  const stored = stateFrom(JSON.stringify(state))
  if (stored === undefined) throw new Error('what was stored is not understood')
  return { ...LINK, id, learnt: limit, mode, measuredAt: at, state: stored }
}

describe('what a link did in a window', () => {
  const began = beginMeasuring(LINK, [sums(999, 'pull', 7), sums(1_000, 'pull', 3)], START + 20_000)
  const busy = { active: 10, full: 1, queued: 1_000 }

  it('is what its minutes have gained, also those that the window shares', () => {
    const minutes = [sums(999, 'pull', 8), sums(1_000, 'pull', 30), sums(1_001, 'push', 5, 2)]
    const [decision] = tuned(laterLink(began, START + 20_000), { ...busy, minutes }, START + 80_000).decisions
    expect(decision?.figures).to.include({ seconds: 60, files: 1 + 27 + 5, failures: 2, active: 10, queued: 1_000 })
  })

  it('is counted once', () => {
    const first = [sums(999, 'pull', 7), sums(1_000, 'pull', 30), sums(1_001, 'pull', 20)]
    const one = tuned(laterLink(began, START + 20_000), { ...busy, minutes: first }, START + 80_000)
    const link = laterLink(one, START + 80_000)
    expect(minuteToRead(link, START + 140_000)).to.equal(1_000)
    const later = [sums(1_000, 'pull', 31), sums(1_001, 'pull', 25), sums(1_002, 'pull', 4)]
    const two = tuned(link, { ...busy, minutes: later }, START + 140_000)
    expect(two.state.modes.pull.files).to.be.closeTo(27 + 20 + (1 + 5 + 4), 0.2)
  })

  it('tells of the faster mode, and the reason is kept', () => {
    const slow = { ...sums(1_000, 'pull', 103), milliseconds: 103_000 }
    const minutes = [sums(999, 'pull', 7), slow, sums(1_000, 'push', 100)]
    const { mode, decisions } = tuned(laterLink(began, START + 20_000), { ...busy, minutes }, START + 80_000)
    expect(mode).to.deep.include({ preferred: 'push' })
    const [, why] = decisions
    expect(why).to.deep.include({ subject: 'mode', before: 'pull', after: 'push', code: 'OTHER_FASTER' })
    expect(why?.sentence).to.match(
      /^pull -> push: push takes \d+\.\d % less time for a file \(pull 100 files, push 100 files\)$/,
    )
  })

  it('says nothing of modes where a storage has one only', () => {
    const link = { ...laterLink(began, START + 20_000), bothModes: false }
    const { mode, decisions } = tuned(link, { ...busy, minutes: [sums(1_000, 'push', 100)] }, START + 80_000)
    expect([mode, decisions.filter(({ subject }) => subject === 'mode')]).to.deep.equal([undefined, []])
  })

  it('is told once for the same reason', () => {
    const minutes = [sums(999, 'pull', 7), sums(1_000, 'pull', 3)]
    const idle = { active: 0, full: 0, queued: 0, minutes }
    const one = tuned(laterLink(began, START + 20_000), idle, START + 80_000)
    expect(one.decisions.map(({ subject, code }) => [subject, code])).to.deep.equal([
      ['limit', 'NO_INFORMATION'],
      ['mode', 'OTHER_UNTRIED'],
    ])
    expect(tuned(laterLink(one, START + 80_000), idle, START + 140_000).decisions).to.deep.equal([])
  })

  it('begins anew after idleness: the limit stays, and modes fade', () => {
    const minutes = [sums(1_000, 'pull', 103)]
    const one = tuned(laterLink(began, START + 20_000), { ...busy, minutes }, START + 80_000)
    const link = laterLink(one, START + 80_000)
    expect(isIdle(link, START + 80_000 + TUNING.gap)).to.equal(false)
    const now = START + 80_000 + TUNING.modes
    expect(isIdle(link, now)).to.equal(true)
    const again = beginMeasuring(link, [], now)
    expect([again.limit, again.decisions]).to.deep.equal([link.learnt, []])
    expect(again.state.modes.pull.files).to.be.closeTo(link.state.modes.pull.files / Math.E, 1e-6)
  })

  it('leaves what was learnt where the maximum is lower: the lesser of both counts', () => {
    const minutes = [sums(1_000, 'pull', 103)]
    const lowered = { ...laterLink(began, START + 20_000), maximum: 4 }
    const one = tuned(lowered, { ...busy, active: 4, minutes }, START + 80_000)
    expect([one.limit, one.decisions[0]?.code, one.decisions[0]?.after]).to.deep.equal([10, 'ABOVE_MAXIMUM', 4])
    const raised = tuned(laterLink(one, START + 80_000), { ...busy, active: 4, minutes }, START + 140_000)
    expect([raised.limit, raised.decisions[0]?.code]).to.deep.equal([10, 'MAXIMUM_RAISED'])
  })

  it('leaves a mode that begins to fail within minutes, whatever it did all day, and goes back when it works', () => {
    // 50 pulls a minute, one push in fifty at least; pull fails for an hour.
    let link = laterLink(beginMeasuring(LINK, [], START), START)
    let now = START
    const turns: [number, string][] = []
    for (let minute = 0; minute < 1_000; minute += 1) {
      const isDown = minute >= 700 && minute < 760
      const { preferred = 'pull', tries = 100 } = link.mode ?? {}
      const other = (50 * tries) / 1_000
      const [pulls, pushes] = preferred === 'pull' ? [50, other] : [other, 50]
      const copied = { bytes: 1e6, milliseconds: 1_000, squaredSeconds: 1 }
      const done = (mode: 'pull' | 'push', files: number, each: number): MinuteSums => ({
        minute: Math.floor(now / 60_000),
        mode,
        files,
        bytes: files * copied.bytes,
        milliseconds: files * each * copied.milliseconds,
        squaredSeconds: files,
        failures: 0,
      })
      const pulled = isDown ? { ...done('pull', 0, 1), failures: pulls } : done('pull', pulls, 1)
      now += 60_000
      const seen = { active: 10, full: 1, queued: 1_000, minutes: [pulled, done('push', pushes, 2)] }
      const next = tuned({ ...link, state: { ...link.state, minute: 0, before: NOTHING_BEFORE } }, seen, now)
      if (next.mode !== undefined && next.mode.preferred !== preferred) turns.push([minute, next.mode.preferred])
      link = laterLink(next, now)
    }
    expect(turns.map(([, mode]) => mode)).to.deep.equal(['push', 'pull'])
    const [[left = 0] = [], [back = 0] = []] = turns
    expect(left - 700).to.be.within(3, 12)
    expect(back - 760).to.be.within(0, 60)
  })

  it('drops what another version has left', () => {
    expect(stateFrom(null)).to.equal(undefined)
    expect(stateFrom('{}')).to.equal(undefined)
    expect(stateFrom('{"version":0}')).to.equal(undefined)
  })

  it('has as many active as its looks have found on average', () => {
    const looks = [3, undefined, 6].map((active, at) => ({ at, active: new Map(active ? [[1, active]] : []) }))
    expect([averageActive(looks, 1), averageActive([], 1)]).to.deep.equal([3, 0])
    expect([partFull(looks, 1, 3), partFull(looks, 1, 6), partFull([], 1, 1)]).to.deep.equal([2 / 3, 1 / 3, 0])
  })
})
