import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { systemRandom as random } from '../../shared/runtime/random.ts'
import { type EndedAttempt, Reporter } from '../../worker/report.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

describe('outcomes', () => {
  let clock: ManualClock
  let batches: { transfer: number; endedMsAgo: number }[][]
  let fail: (batch: number[]) => Error | undefined
  let answers: string[]
  let over: AbortController
  let reporter: Reporter
  let dropped: number
  let errors: string[]
  let answer: 'applied' | 'refused'
  let urgentFrom: number

  beforeEach(() => {
    clock = new ManualClock()
    batches = []
    answers = []
    dropped = 0
    answer = 'applied'
    urgentFrom = Number.POSITIVE_INFINITY
    fail = () => undefined
    errors = []
    over = new AbortController()
    reporter = new Reporter({
      api: {
        reportOutcomes: async ({ body }) => {
          const transfers = body.outcomes.map(({ transfer }) => Number(transfer))
          const error = fail(transfers)
          if (error !== undefined) throw error
          batches.push(body.outcomes.map(({ transfer, endedMsAgo }) => ({ transfer: Number(transfer), endedMsAgo })))
          return { results: transfers.map(transfer => ({ transfer, fence: 1, answer })) }
        },
      },
      session: { id: 1, ended: over.signal, end: () => over.abort() },
      clock,
      random,
      log: { ...log, error: (_, message) => void errors.push(message) },
      isUrgent: count => count >= urgentFrom,
      onAnswer: answer => answers.push(answer),
      onDropped: () => {
        dropped += 1
      },
    })
  })

  const ended = (transfer: number): EndedAttempt => ({
    transfer,
    fence: 1,
    result: 'done',
    durationMs: 1,
    endedAt: clock.monotonic(),
    bytes: 0,
  })

  it('go out together after 200 ms, and say how long ago they ended', async () => {
    reporter.report(ended(1))
    await clock.advance(150)
    reporter.report(ended(2))
    expect(batches).to.deep.equal([])
    await clock.advance(50)
    expect(batches).to.deep.equal([
      [
        { transfer: 1, endedMsAgo: 200 },
        { transfer: 2, endedMsAgo: 50 },
      ],
    ])
    await reporter.drain()
    expect([answers, dropped]).to.deep.equal([['applied', 'applied'], 0])
  })

  it('go out at once when there are a hundred', async () => {
    for (let transfer = 1; transfer <= 100; transfer++) reporter.report(ended(transfer))
    await reporter.drain()
    expect(batches.map(batch => batch.length)).to.deep.equal([100])
  })

  it('go out at once when they are urgent', async () => {
    urgentFrom = 2
    reporter.report(ended(1))
    await clock.advance(100)
    expect(batches).to.deep.equal([])
    reporter.report(ended(2))
    await clock.advance(0)
    expect(batches.map(batch => batch.length)).to.deep.equal([2])
    await reporter.drain()
  })

  it('are sent again until they are answered', async () => {
    let failures = 3
    fail = () => (failures-- > 0 ? new HttpFailure('reset', 'POST', new URL('https://server.example/')) : undefined)
    reporter.report(ended(1))
    await clock.advance(5_000)
    expect(batches.map(batch => batch.map(({ transfer }) => transfer))).to.deep.equal([[1]])
  })

  it('one that the server cannot take does not take the others with it', async () => {
    fail = batch => (batch.includes(2) ? new ApiError('INVALID', 'outcomes.1', { status: 400 }) : undefined)
    for (const transfer of [1, 2, 3]) reporter.report(ended(transfer))
    await reporter.drain()
    expect(batches.flat().map(({ transfer }) => transfer)).to.deep.equal([1, 3])
    expect([dropped, reporter.unanswered]).to.deep.equal([1, []])
  })

  it('one that the server always fails at stops no others, and is given up in the end', async () => {
    const fault = new ApiError('INTERNAL', 'the server could not do this', { status: 500 })
    fail = batch => (batch.includes(2) ? fault : undefined)
    for (const transfer of [1, 2, 3]) reporter.report(ended(transfer))
    for (let second = 0; second < 20; second++) await clock.advance(1_000)
    expect(batches.flat().map(({ transfer }) => transfer)).to.deep.equal([1, 3])
    expect(reporter.unanswered.map(({ transfer }) => transfer)).to.deep.equal([2])
    reporter.report(ended(4))
    for (let second = 0; second < 5; second++) await clock.advance(1_000)
    expect(batches.flat().map(({ transfer }) => transfer)).to.deep.equal([1, 3, 4])
    for (let second = 0; second < 120; second++) await clock.advance(1_000)
    expect([dropped, reporter.unanswered, over.signal.aborted]).to.deep.equal([1, [], false])
    expect(errors).to.deep.equal(['the server cannot take this outcome: it is given up, and will be settled'])
    await reporter.drain()
  })

  it('are not given up while something between answers for the server', async () => {
    fail = () => new ApiError('API_NONSENSE', 'status 502', { status: 502 })
    for (const transfer of [1, 2]) reporter.report(ended(transfer))
    for (let second = 0; second < 300; second++) await clock.advance(1_000)
    fail = () => undefined
    for (let second = 0; second < 10; second++) await clock.advance(1_000)
    expect([dropped, batches.flat().map(({ transfer }) => transfer)]).to.deep.equal([0, [1, 2]])
  })

  it('that are refused are not held, and the worker hears of it', async () => {
    answer = 'refused'
    reporter.report(ended(1))
    await reporter.drain()
    expect([dropped, reporter.unanswered]).to.deep.equal([1, []])
  })

  it('end with the session', async () => {
    fail = () => new ApiError('SESSION_ENDED', 'it has ended', { status: 409 })
    reporter.report(ended(1))
    await reporter.drain()
    expect(over.signal.aborted).to.equal(true)
    expect(batches).to.deep.equal([])
  })

  it('that come while others are being sent go out next', async () => {
    reporter.report(ended(1))
    await clock.advance(200)
    reporter.report(ended(2))
    await clock.advance(200)
    expect(batches.map(batch => batch.map(({ transfer }) => transfer))).to.deep.equal([[1], [2]])
  })
})
