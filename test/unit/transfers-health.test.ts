import { expect } from 'chai'
import {
  type EndedAttempt,
  type Health,
  HOLD,
  isSourceFault,
  isToLeave,
  judgeAttempts,
  nextHold,
} from '../../server/transfers/health.ts'

const NOW = 1_000_000_000
const MANY = HOLD.failures

describe('whether a source is held back', () => {
  const cases: [string, Partial<Health>, ReturnType<typeof nextHold>][] = [
    ['not for a few failures', { failures: MANY - 1 }, undefined],
    ['for many, a little', { failures: MANY }, { holds: 1, heldUntil: NOW + HOLD.first }],
    ['not longer for what was on its way', { failures: MANY + 30, holds: 1, heldUntil: NOW + 1 }, undefined],
    [
      'twice as long when the trial fails',
      { failures: MANY + 1, holds: 1, heldUntil: NOW },
      { holds: 2, heldUntil: NOW + 2 * HOLD.first },
    ],
    ['and so on', { failures: MANY + 2, holds: 3, heldUntil: NOW - 1 }, { holds: 4, heldUntil: NOW + 8 * HOLD.first }],
    ['at most so long', { failures: 999, holds: 40, heldUntil: NOW - 1 }, { holds: 41, heldUntil: NOW + HOLD.longest }],
  ]
  for (const [what, health, expected] of cases) {
    it(what, () =>
      expect(nextHold({ failures: 0, since: 0, holds: 0, heldUntil: 0, ...health }, NOW)).to.deep.equal(expected),
    )
  }
})

describe('whether queued transfers leave a source', () => {
  const since = NOW - HOLD.beforeMoving
  const cases: [string, Pick<Health, 'since' | 'heldUntil'>, boolean][] = [
    ['when it is held and has failed for a while', { since, heldUntil: NOW + 1 }, true],
    ['not at once: a restart passes', { since: since + 1, heldUntil: NOW + 1 }, false],
    ['not while it is on trial', { since, heldUntil: NOW }, false],
    ['not when it is not held', { since, heldUntil: 0 }, false],
  ]
  for (const [what, health, expected] of cases) {
    it(what, () => expect(isToLeave({ failures: MANY, holds: 1, ...health }, NOW)).to.equal(expected))
  }
})

describe('a failure', () => {
  const cases: [string, string, boolean][] = [
    ['SOURCE', 'CONNECT_FAILED', true],
    ['SOURCE', 'STORAGE_ERROR', true],
    ['SOURCE', 'SOURCE_MISSING', false],
    ['SOURCE', 'PERMISSION_DENIED', false],
    ['SOURCE', 'CHECKSUM_MISMATCH', false],
    ['DESTINATION', 'CONNECT_FAILED', false],
    ['TOKEN', 'TOKEN_REFUSED', false],
    ['TRANSFER', 'TIMEOUT_NO_PROGRESS', false],
  ]
  for (const [scope, code, expected] of cases) {
    it(`${code} at ${scope} ${expected ? 'is' : 'is not'} the source's own fault`, () =>
      expect(isSourceFault({ scope, code })).to.equal(expected))
  }
})

describe('what attempts say of their sources', () => {
  const done: EndedAttempt = {
    linkId: 7,
    mode: 'pull',
    outcome: 'done',
    startedAt: NOW,
    endedAt: NOW + 500,
    bytes: 100,
    error: undefined,
  }
  const failed = { ...done, outcome: 'failed', error: { scope: 'SOURCE', code: 'CONNECT_FAILED', message: 'refused' } }
  const copied = { linkId: 7, files: 1, bytes: 100, milliseconds: 500 }
  const nothing = { failures: [], works: [], copied: [] }
  const failures = [{ linkId: 7, count: 2, code: 'CONNECT_FAILED', message: 'refused' }]
  const cases: [string, EndedAttempt[], [number, number][], ReturnType<typeof judgeAttempts>][] = [
    ['nothing of one that has not failed', [done], [], { ...nothing, copied: [copied] }],
    ['that it works, after it has failed', [done], [[7, NOW]], { ...nothing, works: [7], copied: [copied] }],
    ['nothing, when they began before it failed', [done], [[7, NOW + 1]], { ...nothing, copied: [copied] }],
    ['that it fails', [failed, failed], [], { ...nothing, failures }],
    ['that it works, when some fail', [failed, done], [[7, NOW]], { ...nothing, works: [7], copied: [copied] }],
    ['nothing, when the file was there already', [{ ...done, mode: null }], [[7, 0]], nothing],
    [
      'how long files took',
      [done, { ...done, endedAt: NOW + 100, bytes: 1 }],
      [],
      { ...nothing, copied: [{ linkId: 7, files: 2, bytes: 101, milliseconds: 600 }] },
    ],
  ]
  for (const [what, attempts, failing, expected] of cases) {
    it(what, () => expect(judgeAttempts(attempts, new Map(failing))).to.deep.equal(expected))
  }
})
