import { expect } from 'chai'
import { afterFailure, type FailedStep } from '../../server/tokens/renewal-policy.ts'

describe('a grant after a failed step', () => {
  const failed = { code: 'TOKEN_REFUSED', failures: 0, refusedBefore: false, ended: false }
  const HELD = ['refuse', 300_000] as const
  const cases: [string, FailedStep, readonly [string, number]][] = [
    ['an issuer that is down: soon again', { ...failed, step: 'mint', code: 'ISSUER_UNREACHABLE' }, ['retry', 1_000]],
    [
      'down for the fourth time: later',
      { ...failed, step: 'exchange', code: 'ISSUER_UNREACHABLE', failures: 3 },
      ['retry', 8_000],
    ],
    [
      'down for the hundredth time: a minute later',
      { ...failed, step: 'refresh', code: 'ISSUER_UNREACHABLE', failures: 99 },
      ['retry', 60_000],
    ],
    [
      'busy: when it said',
      { ...failed, step: 'mint', code: 'ISSUER_BUSY', retryAfterSeconds: 120 },
      ['retry', 120_000],
    ],
    ['a refused mint: held', { ...failed, step: 'mint' }, HELD],
    ['a refused exchange: held', { ...failed, step: 'exchange' }, HELD],
    [
      'a refused exchange of a token that ended: from the start',
      { ...failed, step: 'exchange', ended: true },
      ['restart', 0],
    ],
    ['a refused refresh: from the start', { ...failed, step: 'refresh' }, ['restart', 0]],
    [
      'a refresh refused after one whose answer was lost: from the start',
      { ...failed, step: 'refresh', failures: 1 },
      ['restart', 0],
    ],
    ['a refresh refused again: held', { ...failed, step: 'refresh', failures: 1, refusedBefore: true }, HELD],
    [
      'a refused exchange of a token that ended, again: held',
      { ...failed, step: 'exchange', ended: true, refusedBefore: true },
      HELD,
    ],
    ['a token too wide: held', { ...failed, step: 'refresh', code: 'TOKEN_WIDER' }, HELD],
  ]
  for (const [what, step, [event, delayMs]] of cases) {
    it(what, () => expect(afterFailure(step)).to.deep.equal({ event, delayMs }))
  }
})
