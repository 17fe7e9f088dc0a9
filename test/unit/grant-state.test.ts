import { expect } from 'chai'
import {
  afterRefusal,
  type GrantFacts,
  type GrantState,
  grantStep,
  type RefusedFacts,
} from '../../shared/domain/grant-state.ts'

const HOLD = 300_000
const NOW = 10_000_000

describe('a storage refuses a token', () => {
  const live = { state: 'LIVE', generation: 3, renewing: false, refusedGeneration: 0, refusedAt: 0 } as const
  const cases: [string, Partial<RefusedFacts>, number, boolean, 'renew' | 'hold' | 'later' | 'nothing'][] = [
    ['the current one, for the first time', {}, 3, true, 'renew'],
    ['the current one, to a COPY', {}, 3, false, 'renew'],
    ['one that was renewed already', {}, 2, true, 'nothing'],
    ['the current one, and it is being renewed', { renewing: true }, 3, true, 'nothing'],
    ['the successor, to the canary', { refusedGeneration: 2, refusedAt: NOW - 1 }, 3, true, 'hold'],
    ['the successor, to a COPY', { refusedGeneration: 2, refusedAt: NOW - 1 }, 3, false, 'nothing'],
    [
      'the successor, while somebody renews',
      { refusedGeneration: 2, refusedAt: NOW - 1, renewing: true },
      3,
      true,
      'later',
    ],
    ['the same once more', { refusedGeneration: 3, refusedAt: NOW - 1 }, 3, true, 'nothing'],
    [
      'the successor, and there is a newer one',
      { generation: 4, refusedGeneration: 2, refusedAt: NOW - 1 },
      3,
      true,
      'hold',
    ],
    ['the first after a hold', { refusedGeneration: 2, refusedAt: NOW - HOLD + 1 }, 3, true, 'hold'],
    ['one long after', { refusedGeneration: 2, refusedAt: NOW - HOLD }, 3, true, 'renew'],
    ...(['WANTED', 'HELD', 'EXPIRED', 'REVOKED'] as const).map(
      (state): [string, { state: GrantState }, number, boolean, 'nothing'] => [
        `a ${state} grant`,
        { state },
        3,
        true,
        'nothing',
      ],
    ),
    ['one to be refreshed', { state: 'RENEWING' }, 3, true, 'renew'],
  ]
  for (const [what, more, generation, canary, expected] of cases) {
    it(`${what}: ${expected}`, () => {
      expect(afterRefusal({ ...live, ...more }, { generation, canary }, HOLD, NOW)).to.equal(expected)
    })
  }
})

describe('the next step of a grant whose token was refused', () => {
  const facts: GrantFacts = {
    state: 'LIVE',
    generation: 1,
    exchanged: false,
    hasRefreshToken: false,
    refused: true,
    expiresAt: NOW + 3_600_000,
    lifetimeMs: 3_600_000,
  }
  it('is another token, however long it would live', () => {
    expect(grantStep(facts, 'never', 0, 1, NOW)).to.equal('mint')
    const exchanged = { ...facts, exchanged: true }
    expect(grantStep(exchanged, 'always', 0, 1, NOW)).to.equal('mint')
    expect(grantStep({ ...exchanged, hasRefreshToken: true }, 'always', 0, 1, NOW)).to.equal('refresh')
    expect(grantStep({ ...facts, refused: false }, 'never', 0, 1, NOW)).to.equal('none')
  })
})
