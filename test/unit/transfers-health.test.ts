import { expect } from 'chai'
import {
  type EndedAttempt,
  type Health,
  HOLD,
  healthAfter,
  isEvidence,
  isStorageFault,
  isToLeave,
  mayFail,
} from '../../server/transfers/health.ts'

const NOW = 1_000_000_000
const SINCE = NOW - 5_000
const MANY = HOLD.failures

const FAULT = { scope: 'SOURCE', phase: 'TRANSFER', code: 'CONNECT_FAILED', message: 'refused' }
const done: EndedAttempt = {
  linkId: 7,
  voId: 1,
  destinationId: 2,
  sessionId: 1,
  mode: 'pull',
  outcome: 'done',
  claimedAt: NOW - 1_000,
  endedAt: NOW,
  again: false,
  error: undefined,
}
const failed: EndedAttempt = { ...done, outcome: 'failed', error: FAULT }
const times = (count: number, attempt = failed): EndedAttempt[] => Array.from({ length: count }, () => attempt)

const run: Health = {
  since: SINCE,
  failedAt: NOW - 1_000,
  gaveAt: 0,
  failures: MANY - 1,
  successes: 0,
  confirmed: true,
  sessionId: 1,
  holds: 0,
  heldUntil: 0,
  code: 'TLS_FAILED',
  message: 'before',
}
const trial: Health = { ...run, failures: 0, holds: 1, heldUntil: NOW - 2_000 }
const words = { code: FAULT.code, message: FAULT.message, failedAt: NOW }
const heldFor = (length: number) => ({ ...words, failures: 0, successes: 0, heldUntil: NOW + length })

const OTHERS = { none: false, moving: [] }
const ALONE = { none: true, moving: [] }

describe('the health of a link', () => {
  type Case = [string, Health | undefined, EndedAttempt[], Partial<Health> | undefined]
  const cases: Case[] = [
    [
      'a first failure begins a run',
      undefined,
      [failed],
      { ...words, since: NOW, failures: 1, holds: 0, heldUntil: 0 },
    ],
    ['many at once hold it', undefined, times(MANY), { since: NOW, holds: 1, ...heldFor(HOLD.first) }],
    ['the last of many holds it', run, [failed], { since: SINCE, holds: 1, ...heldFor(HOLD.first) }],
    ['a success ends the run, whenever it began', run, [{ ...done, claimedAt: 0 }], undefined],
    ['also among failures', run, [...times(5), done], undefined],
    [
      'what is long ago is forgotten',
      { ...run, failedAt: NOW - HOLD.forgetAfter - 1 },
      [failed],
      { since: NOW, failures: 1 },
    ],
    ['a report that comes late tells nothing', run, [{ ...failed, endedAt: NOW - HOLD.late }], run],
    [
      'while it is held no failure counts, and no copy that began before',
      { ...trial, heldUntil: NOW + 1 },
      [...times(30), { ...done, claimedAt: SINCE - 1 }],
      { heldUntil: NOW + 1, holds: 1, successes: 0, failures: 0 },
    ],
    [
      'a copy that began after the first failure ends a hold',
      { ...trial, heldUntil: NOW + 60_000 },
      [done],
      { heldUntil: NOW, holds: 1, successes: 1 },
    ],
    ['a file that fails again and again is no run', run, times(30, { ...failed, again: true }), run],
    [
      'on trial, what was claimed before is no trial',
      trial,
      times(9, { ...failed, claimedAt: trial.heldUntil - 1 }),
      { holds: 1, heldUntil: trial.heldUntil, failures: 0 },
    ],
    [
      'a trial that fails holds it for twice as long',
      trial,
      [failed],
      { since: SINCE, holds: 2, ...heldFor(2 * HOLD.first) },
    ],
    ['and so on', { ...trial, holds: 3 }, [failed], { holds: 4, ...heldFor(8 * HOLD.first) }],
    ['at most so long', { ...trial, holds: 40 }, [failed], { holds: 41, ...heldFor(HOLD.longest) }],
    ['a trial that succeeds lets more in', trial, [done], { holds: 1, successes: 1, gaveAt: NOW }],
    ['some may fail then', { ...trial, successes: 2 }, [failed], { ...words, holds: 1, successes: 2, failures: 1 }],
    [
      'not more than succeed: it gave something, and is held as at first',
      { ...trial, holds: 3, successes: 2, failures: 2, gaveAt: NOW - 9 },
      [failed],
      { since: SINCE, gaveAt: NOW - 9, holds: 1, ...heldFor(HOLD.first) },
    ],
    ['many that succeed end it', { ...trial, successes: HOLD.successes - 1 }, [done], undefined],
    [
      'one that says when to come back is held until then also on trial, whatever has succeeded',
      { ...trial, successes: 15 },
      [{ ...failed, error: { ...FAULT, code: 'STORAGE_BUSY', retryAfterSeconds: 600 } }],
      { ...heldFor(600_000), code: 'STORAGE_BUSY', since: NOW, holds: 1 },
    ],
    [
      'it asks again and again, and gives nothing: it fails since then',
      trial,
      [{ ...failed, error: { ...FAULT, code: 'STORAGE_BUSY', retryAfterSeconds: 600 } }],
      { since: SINCE, holds: 2 },
    ],
  ]
  for (const [what, before, attempts, expected] of cases) {
    it(what, () => {
      const after = healthAfter(before, attempts, 'SOURCE', OTHERS, NOW)
      if (expected === undefined) expect(after).to.equal(undefined)
      else expect(after).to.include(expected)
    })
  }

  // One node with a broken resolver or CA directory must not take sources from all others.
  describe('as one worker alone sees it', () => {
    const own = { ...failed, mode: null }
    const seen: [string, EndedAttempt[], boolean, boolean][] = [
      ['is not enough', times(2 * MANY, own), false, false],
      ['nor in a push, which it drives itself', times(2 * MANY, { ...own, mode: 'push' }), false, false],
      ['is, when it is the only one', times(MANY, own), true, true],
      ['is not, however much it is, before a minute is over', times(20 * MANY, own), false, false],
      ['is, when another sees it too', [...times(MANY, own), { ...own, sessionId: 2 }], false, true],
      ['is, when a destination says so', [...times(MANY, own), failed], false, true],
    ]
    it('is no trial either', () => {
      const again = { ...own, mode: 'push' }
      // Nor is the next one at once, unless others bring something.
      const after = { holds: 1, failures: 0, heldUntil: NOW + HOLD.first, failedAt: trial.failedAt }
      expect(healthAfter(trial, [again], 'SOURCE', OTHERS, NOW)).to.include(after)
      expect(healthAfter(trial, [again, done], 'SOURCE', OTHERS, NOW)).to.include({
        successes: 1,
        heldUntil: trial.heldUntil,
      })
      expect(healthAfter(trial, [{ ...again, sessionId: 2 }], 'SOURCE', OTHERS, NOW)).to.include({ holds: 2 })
      expect(healthAfter(trial, [again], 'SOURCE', ALONE, NOW)).to.include({ holds: 2 })
    })
    it('is, when nobody has brought anything for a minute', () => {
      const since = NOW - HOLD.beforeMoving
      const lone = { ...run, confirmed: false, since }
      expect(healthAfter(lone, [own], 'SOURCE', OTHERS, NOW)).to.include({ holds: 1 })
      expect(healthAfter({ ...lone, since: since + 1 }, [own], 'SOURCE', OTHERS, NOW)).to.include({ holds: 0 })
      expect(healthAfter({ ...trial, since }, [own], 'SOURCE', OTHERS, NOW)).to.include({ holds: 2 })
      // Another moves something from there: the files only take their time.
      const moving = { none: false, moving: [lone.sessionId, 9] }
      expect(healthAfter(lone, [own], 'SOURCE', moving, NOW)).to.include({ holds: 0 })
      expect(healthAfter({ ...trial, since }, [own], 'SOURCE', moving, NOW)).to.include({ holds: 1 })
      const onlyIt = { none: false, moving: [lone.sessionId] }
      expect(healthAfter(lone, [own], 'SOURCE', onlyIt, NOW)).to.include({ holds: 1 })
      expect(healthAfter({ ...trial, since, gaveAt: NOW - 1 }, [own], 'SOURCE', OTHERS, NOW)).to.include({ holds: 1 })
    })
    for (const [what, attempts, soleWorker, isHeld] of seen) {
      it(what, () =>
        expect(
          (healthAfter(undefined, attempts, 'SOURCE', soleWorker ? ALONE : OTHERS, NOW)?.heldUntil ?? 0) > NOW,
        ).to.equal(isHeld),
      )
    }
  })
})

describe('whether queued transfers leave a source', () => {
  const since = NOW - HOLD.beforeMoving
  const cases: [string, Partial<Health>, boolean][] = [
    ['when a trial has failed after a while', { since, holds: 2 }, true],
    ['not at once: a restart passes', { since: since + 1, holds: 2 }, false],
    ['not before a trial has failed', { since, holds: 1 }, false],
    ['not when a trial succeeds', { since, holds: 2, successes: 1 }, false],
    ['not when it is not held', { since, holds: 0 }, false],
    ['not when it gave something since', { since, holds: 2, gaveAt: since + 1 }, false],
  ]
  for (const [what, health, expected] of cases) {
    it(what, () => expect(isToLeave({ ...run, failedAt: NOW, ...health })).to.equal(expected))
  }
})

describe('a failure', () => {
  const cases: [string, string, 'SOURCE' | 'DESTINATION' | undefined][] = [
    ['SOURCE', 'CONNECT_FAILED', 'SOURCE'],
    ['SOURCE', 'STORAGE_ERROR', 'SOURCE'],
    ['SOURCE', 'SOURCE_MISSING', undefined],
    ['SOURCE', 'PERMISSION_DENIED', undefined],
    ['SOURCE', 'CHECKSUM_MISMATCH', undefined],
    ['DESTINATION', 'CONNECT_FAILED', 'DESTINATION'],
    ['DESTINATION', 'DESTINATION_FULL', 'DESTINATION'],
    ['DESTINATION', 'DESTINATION_EXISTS', undefined],
    ['TOKEN', 'TOKEN_REFUSED', undefined],
    ['TRANSFER', 'TIMEOUT_NO_PROGRESS', undefined],
    ['SOURCE', 'TIMEOUT_NO_PROGRESS', 'SOURCE'],
    ['SOURCE', 'A_CODE_OF_LATER', undefined],
  ]
  for (const [scope, code, at] of cases) {
    it(`${code} at ${scope} ${at === undefined ? 'is nobody’s own fault' : `is the ${at}’s own fault`}`, () => {
      const error = { scope, phase: 'TRANSFER', code, message: '' }
      for (const side of ['SOURCE', 'DESTINATION'] as const) {
        expect(isStorageFault(error, side)).to.equal(side === at)
        expect(isEvidence({ ...failed, error }, side)).to.equal(side === at)
      }
    })
  }

  it('after the copy is none of the source: its file is there; of the destination it is', () => {
    expect(isStorageFault({ ...FAULT, phase: 'FINALIZATION' }, 'SOURCE')).to.equal(false)
    expect(isStorageFault({ ...FAULT, phase: 'FINALIZATION', scope: 'DESTINATION' }, 'DESTINATION')).to.equal(true)
  })
})

it('a file that was there already says nothing of its source', () => {
  expect(isEvidence({ ...done, mode: null }, 'SOURCE')).to.equal(false)
  expect(isEvidence(done, 'SOURCE')).to.equal(true)
})

describe('the health of a destination', () => {
  const FULL = { scope: 'DESTINATION', phase: 'TRANSFER', code: 'DESTINATION_FULL', message: 'no space left' }
  const BUSY = { ...FULL, code: 'STORAGE_BUSY', message: '503' }
  const RESTS = { ...FULL, code: 'TOO_MANY_REQUESTS', retryAfterSeconds: 600 }
  const at = (error: typeof FULL & { retryAfterSeconds?: number }): EndedAttempt => ({ ...failed, error })
  const again = (error: typeof FULL): EndedAttempt => ({ ...at(error), again: true })
  const early = (error: typeof FULL): EndedAttempt => ({ ...at(error), claimedAt: trial.heldUntil - 1 })
  const held = (length: number) => ({ failures: 0, successes: 0, heldUntil: NOW + length })
  const fullTrial: Health = { ...trial, code: FULL.code }
  const cases: [string, Health | undefined, EndedAttempt[], Partial<Health>][] = [
    ['that is full is held with the first file', undefined, [at(FULL)], { holds: 1, heldUntil: NOW + 60_000 }],
    ['though another file found room', undefined, [done, at(FULL)], { holds: 1, heldUntil: NOW + 60_000 }],
    ['is held for twice as long when it is still full', fullTrial, [at(FULL)], { holds: 2, heldUntil: NOW + 120_000 }],
    ['but for an hour at most', { ...fullTrial, holds: 40 }, [at(FULL)], { holds: 41, heldUntil: NOW + 3_600_000 }],
    ['that is busy is held after many files', undefined, times(MANY, at(BUSY)), { holds: 1, heldUntil: NOW + 15_000 }],
    ['and not after few', undefined, times(MANY - 1, at(BUSY)), { holds: 0 }],
    [
      'that says when to come back is held until then, with the first file',
      undefined,
      [at({ ...BUSY, retryAfterSeconds: 300 })],
      { holds: 1, heldUntil: NOW + 300_000 },
    ],
    [
      'that asks for less than a hold is held for less, since it knows',
      undefined,
      [at({ ...BUSY, retryAfterSeconds: 1 })],
      { holds: 1, heldUntil: NOW + 1_000 },
    ],
    [
      'that says when to come back is held until then also on trial, whatever has succeeded',
      { ...trial, holds: 3, successes: 15 },
      [at(RESTS)],
      { holds: 1, since: NOW, code: RESTS.code, ...held(600_000) },
    ],
    ['also where it said so of one file before', { ...trial, successes: 15 }, [again(RESTS)], held(600_000)],
    ['and to what was claimed before', { ...trial, successes: 15 }, [early(RESTS)], held(600_000)],
    ['and at first', undefined, [done, again(RESTS)], held(600_000)],
    [
      'that is full again on trial is held at once, as at first',
      { ...fullTrial, successes: 15 },
      [at(FULL)],
      held(60_000),
    ],
    ['also among those that found room', { ...fullTrial, successes: 15 }, [done, at(FULL)], held(60_000)],
    [
      'but not for one file that is too large for what is left',
      { ...fullTrial, successes: 15 },
      [again(FULL)],
      { successes: 15, failures: 1, heldUntil: trial.heldUntil },
    ],
    [
      'that is held, and tells what was on its way to come later, is held until then',
      { ...trial, holds: 1, heldUntil: NOW + 10_000 },
      [at(RESTS), at({ ...BUSY, retryAfterSeconds: 1 })],
      { holds: 1, failures: 0, heldUntil: NOW + 600_000 },
    ],
    [
      'whose trial failed long ago is as any other',
      { ...trial, holds: 5, successes: 3, failedAt: NOW - HOLD.forgetAfter - 1, heldUntil: NOW - HOLD.forgetAfter - 1 },
      [at(BUSY)],
      { since: NOW, holds: 0, failures: 1, heldUntil: 0 },
    ],
    [
      'but not where nothing has succeeded since',
      { ...trial, holds: 5, failedAt: NOW - HOLD.forgetAfter - 1, heldUntil: NOW - HOLD.forgetAfter - 1 },
      [at(BUSY)],
      { holds: 6, failures: 0 },
    ],
    [
      'nor just after it was held',
      { ...trial, holds: 5, failedAt: NOW - HOLD.forgetAfter - 1 },
      [at(BUSY)],
      { holds: 6, failures: 0 },
    ],
  ]
  for (const [what, before, attempts, expected] of cases) {
    it(what, () => expect(healthAfter(before, attempts, 'DESTINATION', OTHERS, NOW)).to.include(expected))
  }

  it('whose trial is long over is well with the next copy', () => {
    const over = { ...trial, successes: 1, failedAt: 0, heldUntil: NOW - HOLD.forgetAfter - 1 }
    expect(healthAfter(over, [done], 'DESTINATION', OTHERS, NOW)).to.equal(undefined)
  })

  it('that rests is not woken by copies that began before it asked', () => {
    const rests = healthAfter({ ...trial, successes: 15 }, [at(RESTS)], 'DESTINATION', OTHERS, NOW)
    const later = healthAfter(rests, [{ ...done, claimedAt: NOW - 1 }], 'DESTINATION', OTHERS, NOW + 1)
    expect(later).to.include(held(600_000))
  })

  it('is judged where something may be wrong only', () => {
    expect(mayFail([done, at(BUSY)])).to.equal(false)
    expect(mayFail([at(BUSY)])).to.equal(true)
    expect(mayFail([done, at(FULL)])).to.equal(true)
  })
})
