import { expect } from 'chai'
import { ERROR_CATALOGUE } from '../../shared/domain/error-catalogue.ts'
import { afterFailure, DEFAULT_RETRY_POLICY, type RetryPolicy } from '../../shared/domain/retry-policy.ts'

const POLICY: RetryPolicy = { maxAttempts: 4, soon: 1_000, later: 10_000, maxDelay: 30_000 }
const LOST = { code: 'CONNECTION_LOST', scope: 'TRANSFER', retryable: true } as const
const BUSY = { code: 'STORAGE_BUSY', scope: 'DESTINATION', retryable: true } as const
const FULL = { code: 'DESTINATION_FULL', scope: 'DESTINATION', retryable: true } as const
const MISSING = { code: 'SOURCE_MISSING', scope: 'SOURCE', retryable: false } as const
const counted = (afterMs: number) => ({ again: true, counted: true, afterMs })
const uncounted = (afterMs: number) => ({ again: true, counted: false, afterMs })
const NEVER = { again: false }

type Row = [
  what: string,
  failure: Parameters<typeof afterFailure>[2],
  attempts: number,
  fraction: number,
  after: object,
]

describe('what becomes of a transfer after a failure', () => {
  const rows: Row[] = [
    ['a blip: within a second', LOST, 1, 0.5, counted(500)],
    ['at any time in it, at once too', LOST, 1, 0, counted(0)],
    ['twice as long after the second', LOST, 2, 0.5, counted(1_000)],
    ['and after the third', LOST, 3, 0.5, counted(2_000)],
    ['and no more after the last', LOST, 4, 0.5, NEVER],
    ['a storage that wants rest: later', BUSY, 1, 0.5, counted(5_000)],
    ['not longer than the longest', BUSY, 3, 0.9, counted(27_000)],
    ['not sooner than it asked for', { ...BUSY, retryAfterSeconds: 20 }, 1, 0.5, counted(20_000)],
    ['later than it asked for', { ...BUSY, retryAfterSeconds: 2 }, 1, 0.5, counted(5_000)],
    ['longer than the longest where it asked for that', { ...BUSY, retryAfterSeconds: 60 }, 1, 0.5, counted(60_000)],
    ['want of space costs no attempt', FULL, 1, 0.5, uncounted(60_000)],
    ['nor the last', FULL, 9, 0.5, uncounted(60_000)],
    ['but where it holds nothing it does', { ...FULL, scope: 'GENERAL' }, 1, 0.5, counted(5_000)],
    ['and ends', { ...FULL, scope: 'GENERAL' }, 4, 0.5, NEVER],
    ['a token that is late costs none', { code: 'TOKEN_LATE', scope: 'TOKEN', retryable: true }, 9, 0, uncounted(0)],
    ['what waiting does not change', MISSING, 1, 0.5, NEVER],
    ['but another source has it', { ...MISSING, retryable: true }, 1, 0.5, counted(500)],
    ['a code of another version', { code: 'NEWER', scope: 'GENERAL', retryable: true }, 1, 0.5, counted(500)],
  ]
  for (const [what, failure, attempts, fraction, after] of rows) {
    it(what, () => expect(afterFailure(POLICY, attempts, failure, fraction)).to.deep.equal(after))
  }

  it('by default: five attempts, 5 s after a blip, a minute for a storage that wants rest, an hour at most', () =>
    expect(DEFAULT_RETRY_POLICY).to.deep.equal({ maxAttempts: 5, soon: 5_000, later: 60_000, maxDelay: 3_600_000 }))

  it('what costs no attempt is held by something, or is a token on its way', () => {
    const free = Object.entries(ERROR_CATALOGUE).filter(([, { retry }]) => retry === 'uncounted')
    const loose = free.filter(([, { holds, scopes }]) => holds === 'nothing' && scopes.join() !== 'TOKEN')
    expect(loose).to.deep.equal([])
  })
})
