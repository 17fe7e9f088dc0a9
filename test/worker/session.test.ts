import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { silentLogger as log } from '../../shared/runtime/logger.ts'
import { systemRandom as random } from '../../shared/runtime/random.ts'
import type { WorkerApi } from '../../worker/server.ts'
import { type HeartbeatLoad, openSession, type ProgressEntry, type Session } from '../../worker/session.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

type Heartbeat = WorkerApi['heartbeat']

const away = () => Promise.reject(new HttpFailure('connect', 'POST', new URL('https://server.example/')))

describe('a session', () => {
  let clock: ManualClock
  let beats: number[]
  let cancelled: number[]
  let answer: Heartbeat
  let changes: ProgressEntry[]
  let urgent: number[]
  let told: ProgressEntry[][]
  let session: Session
  let kept: Promise<void>

  const load: HeartbeatLoad = {
    changed: () => changes,
    urgentSince: () => urgent[0],
    told: entries => void told.push([...entries]),
    cancel: transfers => void cancelled.push(...transfers),
  }

  beforeEach(async () => {
    clock = new ManualClock()
    beats = []
    cancelled = []
    changes = []
    urgent = []
    told = []
    answer = async () => ({ leaseSeconds: 20, cancel: [] })
    const api: Pick<WorkerApi, 'openSession' | 'heartbeat' | 'closeSession'> = {
      openSession: async () => ({ session: 7, leaseSeconds: 20, heartbeatSeconds: 5 }),
      heartbeat: call => {
        beats.push(clock.monotonic())
        return answer(call)
      },
      closeSession: async () => ({}),
    }
    session = await openSession({ api, worker: 'w', clock, random, log }, new AbortController().signal)
    kept = session.keep(load)
  })
  afterEach(async () => {
    session.end()
    await kept
  })

  it('beats at the pace the server gave, and lives as long as it is answered', async () => {
    await clock.advance(60_000)
    expect(beats.slice(0, 3)).to.deep.equal([5_000, 10_000, 15_000])
    expect(session.ended.aborted).to.equal(false)
  })

  it('tells what is urgent in a moment, all of it in one heartbeat', async () => {
    await clock.advance(1_000)
    urgent = [1_000]
    session.tellSoon()
    await clock.advance(100)
    urgent.push(1_100)
    session.tellSoon()
    await clock.advance(10_000)
    expect(beats).to.deep.equal([1_200, 6_200])
  })

  it('tells nothing of what is over in a moment, and soon of what comes after it', async () => {
    await clock.advance(1_000)
    urgent = [1_000]
    session.tellSoon()
    await clock.advance(150)
    urgent = [1_150]
    await clock.advance(250)
    expect(beats).to.deep.equal([1_400])
    urgent = []
    session.tellSoon()
    await clock.advance(600)
    expect(beats).to.deep.equal([1_400])
    urgent = [2_000]
    session.tellSoon()
    await clock.advance(200)
    expect(beats).to.deep.equal([1_400, 2_200])
  })

  it('looks for what is urgent no more often as time goes on', async () => {
    for (let second = 0; second < 600; second += 1) {
      urgent = [clock.monotonic() - 50]
      session.tellSoon()
      await clock.advance(1_000)
    }
    expect(clock.sleepers).to.be.below(5)
  })

  it('ends before its lease does when nobody answers', async () => {
    answer = away
    await clock.advance(16_999)
    expect(session.ended.aborted).to.equal(false)
    await clock.advance(1)
    expect(session.ended.aborted).to.equal(true)
  })

  it('counts the lease from before the request: a slow answer extends less', async () => {
    answer = async () => {
      await clock.sleep(4_000)
      return { leaseSeconds: 20, cancel: [] }
    }
    // Asked at 5 s, answered at 9 s: good until 5 + 17 s.
    await clock.advance(9_500)
    answer = away
    await clock.advance(12_400)
    expect(session.ended.aborted).to.equal(false)
    await clock.advance(200)
    expect(session.ended.aborted).to.equal(true)
  })

  it('is tried more often while the server is away, and survives a short outage', async () => {
    answer = away
    await clock.advance(10_000)
    expect(beats.length).to.be.greaterThan(3)
    answer = async () => ({ leaseSeconds: 20, cancel: [] })
    await clock.advance(30_000)
    expect(session.ended.aborted).to.equal(false)
  })

  it('ends at once when the server has ended it', async () => {
    answer = () => Promise.reject(new ApiError('SESSION_ENDED', 'it has ended', { status: 409 }))
    await clock.advance(5_000)
    expect(session.ended.aborted).to.equal(true)
  })

  it('passes on what the server wants cancelled', async () => {
    answer = async () => ({ leaseSeconds: 20, cancel: [3, 4] })
    await clock.advance(5_000)
    expect(cancelled).to.deep.equal([3, 4])
  })

  it('tells progress again until it was heard', async () => {
    const entry: ProgressEntry = { transfer: 1, fence: 1, state: 'COPYING', bytes: 10 }
    changes = [entry]
    answer = away
    await clock.advance(5_000)
    expect(told).to.deep.equal([])
    answer = async () => ({ leaseSeconds: 20, cancel: [] })
    await clock.advance(5_000)
    expect(told[0]).to.deep.equal([entry])
  })
})
