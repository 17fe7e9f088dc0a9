import { expect } from 'chai'
import {
  MODES,
  type Mode,
  type ModeDecision,
  type ModeSums,
  modeFor,
  preferMode,
} from '../../server/transfers/modes.ts'
import { seeded } from './transfers-simulated-link.ts'

const MB = 1_000_000
const NONE: ModeSums = { files: 0, bytes: 0, milliseconds: 0, failures: 0 }

/** So many files that took `seconds` each. */
function copied(files: number, seconds: number, bytes = MB, failures = 0): ModeSums {
  return { files, bytes: files * bytes, milliseconds: files * seconds * 1_000, failures }
}

/** Of a link that did nothing before. */
const prefer = (preferred: Mode, pull: ModeSums, push: ModeSums): ModeDecision =>
  preferMode({ preferred, pull, push, recent: { pull, push } })

describe('the mode to prefer on a link', () => {
  const { learning, knowing, failing } = MODES.tries
  // [what, pull (preferred), push, expected mode, transfers of a thousand that try the other, code]
  const cases: [string, ModeSums, ModeSums, Mode, number, ModeDecision['code']][] = [
    ['untried', copied(1_000, 2), NONE, 'pull', learning, 'OTHER_UNTRIED'],
    ['few files say nothing', copied(1_000, 2), copied(29, 0.1), 'pull', learning, 'TOO_FEW_FILES'],
    ['neither of the preferred', copied(29, 2), copied(1_000, 0.1), 'pull', learning, 'TOO_FEW_FILES'],
    ['much faster: enough with few', copied(1_000, 2), copied(30, 1), 'push', learning, 'OTHER_FASTER'],
    ['a half faster by few may be chance', copied(1_000, 2), copied(30, 1.4), 'pull', learning, 'NOT_FASTER'],
    ['but not by many', copied(10_000, 2), copied(1_000, 1.4), 'push', knowing, 'OTHER_FASTER'],
    ['a tenth faster is not worth a change', copied(10_000, 2), copied(10_000, 1.8), 'pull', knowing, 'NOT_FASTER'],
    ['slower', copied(10_000, 1), copied(1_000, 2), 'pull', knowing, 'NOT_FASTER'],
    [
      'as fast for a byte: its files are smaller',
      copied(9_000, 20, 10 * MB),
      copied(900, 2),
      'pull',
      knowing,
      'NOT_FASTER',
    ],
    [
      'as fast for a file: its files are larger',
      copied(9_000, 2),
      copied(900, 2, 10 * MB),
      'pull',
      knowing,
      'NOT_FASTER',
    ],
    ['faster for both, with files unlike', copied(9_000, 20, 2 * MB), copied(900, 5), 'push', knowing, 'OTHER_FASTER'],
    ['empty files', copied(9_000, 2, 0), copied(900, 1, 0), 'push', knowing, 'OTHER_FASTER'],
    ['faster, but a third fails', copied(10_000, 2), copied(1_000, 1.4, MB, 500), 'pull', knowing, 'NOT_FASTER'],
    ['the other fails', copied(10_000, 2), copied(3, 0.1, MB, 10), 'pull', failing, 'OTHER_FAILS'],
    ['a few failures are no failing', copied(10_000, 2), copied(3, 0.1, MB, 9), 'pull', learning, 'TOO_FEW_FILES'],
    ['the preferred fails, the other works', copied(0, 0, MB, 10), copied(10, 9), 'push', failing, 'PREFERRED_FAILS'],
    ['both fail: the link does', copied(0, 0, MB, 50), copied(0, 0, MB, 50), 'pull', failing, 'OTHER_FAILS'],
    ['the preferred fails, the other is untried', copied(0, 0, MB, 50), NONE, 'pull', learning, 'OTHER_UNTRIED'],
  ]
  for (const [what, pull, push, preferred, tries, code] of cases) {
    it(`${what}: ${preferred}`, () => {
      const decision = prefer('pull', pull, push)
      expect([decision.preferred, decision.tries, decision.code]).to.deep.equal([preferred, tries, code])
      // The names of the two make no difference.
      const mirrored = prefer('push', push, pull)
      expect([mirrored.preferred, mirrored.code]).to.deep.equal([preferred === 'pull' ? 'push' : 'pull', code])
    })
  }

  it('says what it compared', () => {
    const { figures } = prefer('pull', copied(10_000, 2), copied(400, 1))
    expect(figures.faster).to.be.closeTo(Math.log(2), 1e-9)
    expect(figures.needed).to.be.closeTo(Math.log(1.15), 0.05)
  })

  it('does not go to and fro: what has just been preferred is not left on the same figures', () => {
    for (const seconds of [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4]) {
      const sums = [copied(1_000, 2), copied(1_000, seconds)] as const
      const first = prefer('pull', ...sums)
      expect(prefer(first.preferred, ...sums).preferred).to.equal(first.preferred)
    }
  })

  describe('after a day in which both worked, by the last minutes', () => {
    const day = { pull: copied(80_000, 1), push: copied(1_600, 2) }
    const dead = copied(0, 0, MB, 40)
    const lately: [string, Mode, ModeSums, ModeSums, Mode, number, ModeDecision['code']][] = [
      [
        'the preferred fails, the other works',
        'pull',
        copied(30, 1, MB, 40),
        copied(3, 2),
        'push',
        failing,
        'PREFERRED_FAILS',
      ],
      ['few failures are no failing', 'pull', copied(0, 0, MB, 9), copied(3, 2), 'pull', knowing, 'NOT_FASTER'],
      [
        'nobody knows whether the other works: more is tried',
        'pull',
        dead,
        copied(2, 2),
        'pull',
        learning,
        'NOT_FASTER',
      ],
      ['the other fails as well', 'pull', dead, copied(1, 2, MB, 2), 'pull', learning, 'NOT_FASTER'],
      ['both fail', 'pull', dead, dead, 'pull', failing, 'OTHER_FAILS'],
      ['what was left goes on failing', 'push', dead, copied(500, 2), 'push', failing, 'OTHER_FAILS'],
      ['also where few try it', 'push', copied(0, 0, MB, 0.1), copied(500, 2), 'push', knowing, 'OTHER_FAILS'],
      ['it works again, and is faster', 'push', copied(1, 1, MB, 0.1), copied(500, 2), 'pull', knowing, 'OTHER_FASTER'],
    ]
    for (const [what, before, pull, push, preferred, tries, code] of lately) {
      it(`${what}: ${preferred}`, () => {
        const decision = preferMode({ preferred: before, ...day, recent: { pull, push } })
        expect([decision.preferred, decision.tries, decision.code]).to.deep.equal([preferred, tries, code])
      })
    }
  })
})

describe('the mode of a transfer', () => {
  const decision = { preferred: 'pull' as const, tries: 100 }
  const ids = Array.from({ length: 20_000 }, (_, index) => 5_000_000_000 + index)

  it('is the other one for the share that tries it', () => {
    const tried = ids.filter(id => modeFor(id, 0, decision) === 'push').length
    expect(tried / ids.length).to.be.within(0.09, 0.11)
  })
  it('is the other one in every stretch of ids, and in every stride', () => {
    for (const stride of [1, 2, 7, 10, 16, 100, 1_000, 1_024]) {
      const some = Array.from({ length: 400 }, (_, index) => 17 + index * stride)
      expect(some.filter(id => modeFor(id, 0, decision) === 'push').length).to.be.within(15, 75)
    }
  })
  it('is the same each time it is asked', () => {
    expect(ids.map(id => modeFor(id, 0, decision))).to.deep.equal(ids.map(id => modeFor(id, 0, decision)))
  })
  it('is the preferred one after a failed attempt', () => {
    expect(new Set(ids.map(id => modeFor(id, 1, decision)))).to.deep.equal(new Set(['pull']))
  })
})

describe('the faster mode of a simulated link', () => {
  /** Transfers of log-normal sizes, whose time is an overhead and the bytes at a rate, and scatters by 30 %. */
  function play(
    seed: number,
    overheads: Record<Mode, number>,
    transfers: number,
  ): { preferred: Mode; at: number; changes: number } {
    const chance = seeded(seed)
    const sums = { pull: NONE, push: NONE }
    let decision: Pick<ModeDecision, 'preferred' | 'tries'> = { preferred: 'pull', tries: MODES.tries.learning }
    let [at, changes] = [0, 0]
    for (let id = 1; id <= transfers; id += 1) {
      const mode = modeFor(id, 0, decision)
      const bytes = Math.round(2 * MB * Math.exp(chance.normal()))
      const milliseconds = (1_000 * overheads[mode] + bytes / 10_000) * Math.exp(0.3 * chance.normal())
      const before = sums[mode]
      sums[mode] = {
        files: before.files + 1,
        bytes: before.bytes + bytes,
        milliseconds: before.milliseconds + milliseconds,
        failures: 0,
      }
      if (id % 100 !== 0) continue
      const next = preferMode({ preferred: decision.preferred, ...sums, recent: sums })
      if (next.preferred !== decision.preferred) [at, changes] = [id, changes + 1]
      decision = next
    }
    return { preferred: decision.preferred, at, changes }
  }
  const seeds = Array.from({ length: 50 }, (_, index) => index + 1)

  // facts/http-tpc.md section 8: 250 a second pulled, 380 pushed.
  it('is found within 2,000 transfers where it is half as fast again', () => {
    const played = seeds.map(seed => play(seed, { pull: 0.5, push: 0.22 }, 4_000))
    expect(new Set(played.map(({ preferred }) => preferred))).to.deep.equal(new Set(['push']))
    expect(played.filter(({ at, changes }) => at <= 2_000 && changes === 1).length).to.be.at.least(45)
  })
  it('is not made up where both are as fast: in fifty links two are wrong at most, and change once', () => {
    const played = seeds.map(seed => play(seed, { pull: 0.3, push: 0.3 }, 4_000))
    expect(played.filter(({ changes }) => changes > 0).length).to.be.at.most(2)
    expect(played.every(({ changes }) => changes <= 1)).to.equal(true)
  })
  it('is kept where the other is slower', () => {
    const played = seeds.map(seed => play(seed, { pull: 0.3, push: 0.6 }, 4_000))
    expect(played.every(({ changes }) => changes === 0)).to.equal(true)
  })
})
