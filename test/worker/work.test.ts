import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { HttpFailure } from '../../shared/http/failure.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { Slots } from '../../worker/slots.ts'
import { Stage } from './stage.ts'

const away = () => new HttpFailure('connect', 'POST', new URL('https://server.example/'))

describe('a worker', () => {
  let stage: Stage
  afterEach(() => stage.end())

  it('runs no more at once than it has slots for, and all in the end', async () => {
    stage = await Stage.create()
    const transfers = await Promise.all(Array.from({ length: 25 }, (_, i) => stage.transfer(`f${i}`, `content ${i}`)))
    let [active, most] = [0, 0]
    const { metrics } = stage.options
    stage.start({
      slots: new Slots(4, systemClock),
      metrics: {
        ...metrics,
        active: change => {
          active += change
          most = Math.max(most, active)
        },
      },
    })
    stage.server.enqueue(...transfers)
    for (const { transfer } of transfers) expect(await stage.server.outcomeOf(transfer)).to.include({ result: 'done' })
    expect(most).to.equal(4)
    expect(active).to.equal(0)
  })

  it('with the most slots that can be configured claims work', async () => {
    stage = await Stage.create()
    stage.start({ slots: new Slots(10_000, stage.options.clock) })
    const transfer = await stage.transfer('f1', 'content')
    stage.server.enqueue(transfer)
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
  })

  it('repeats a report whose answer was lost: nothing is copied or counted twice', async () => {
    stage = await Stage.create()
    let lost = 0
    stage.server.after = name => {
      if (name === 'reportOutcomes' && lost++ === 0) throw away()
    }
    stage.start()
    const transfer = await stage.transfer('f1', 'content')
    stage.server.enqueue(transfer)
    await stage.server.outcomeOf(transfer.transfer)
    await stage.server.untilCalled('reportOutcomes')
    expect(stage.server.outcomes).to.have.length(1)
    expect(stage.b.requests.get('COPY')).to.equal(1)
  })

  it('goes on while the server is away, and reports when it is back', async () => {
    stage = await Stage.create()
    let serverAway = false
    stage.server.before = name => {
      if (serverAway && name !== 'acquireToken' && name !== 'reportRenewal') throw away()
    }
    stage.start()
    const transfer = await stage.transfer('f1', 'content')
    stage.server.enqueue(transfer)
    await stage.server.untilCalled('reportRenewal')
    serverAway = true
    await stage.server.untilCalled('reportOutcomes')
    expect(String(await stage.read('SITE-B', 'f1'))).to.equal('content')
    serverAway = false
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
    expect(stage.server.sessions).to.equal(1)
  })

  it('after the answer to a claim was lost tells what it holds, and what it never heard of goes elsewhere', async () => {
    stage = await Stage.create()
    stage.server.heartbeatSeconds = 0.05
    stage.a.behaviour.bytesPerSecond = 100_000
    let lose = false
    stage.server.after = name => {
      if (name !== 'claim' || !lose) return
      lose = false
      throw new HttpFailure('reset', 'POST', new URL('https://server.example/'))
    }
    stage.start()
    const running = await stage.transfer('f1', Buffer.alloc(100_000, 1))
    stage.server.enqueue(running)
    await stage.server.untilProgress(running.transfer)
    lose = true
    const forgotten = await stage.transfer('f2', 'content')
    stage.server.enqueue(forgotten)
    expect(await stage.server.outcomeOf(forgotten.transfer)).to.include({ result: 'done' })
    expect(await stage.server.outcomeOf(running.transfer)).to.include({ result: 'done' })
    expect(stage.server.outcomes.length).to.equal(2)
    expect(stage.server.sessions).to.equal(1)
  })

  it('of which a claim arrives twice tells what it holds before long, and what it never heard of goes elsewhere', async () => {
    stage = await Stage.create()
    let ahead = 0
    const clock = { ...systemClock, monotonic: () => systemClock.monotonic() + ahead }
    stage.server.leaseSeconds = 1_000
    const { claim } = stage.server.api
    let twice = false
    stage.start({
      clock,
      api: {
        ...stage.server.api,
        claim: async call => {
          const first = await claim(call)
          if (!twice || first.transfers.length === 0) return first
          twice = false
          return claim(call)
        },
      },
    })
    twice = true
    const forgotten = await stage.transfer('f1', 'content')
    stage.server.enqueue(forgotten)
    while (twice) await stage.server.untilCalled('claim')
    ahead = 60_000
    // Ends the claim that was waiting already.
    const other = await stage.transfer('f2', 'content')
    stage.server.enqueue(other)
    expect(await stage.server.outcomeOf(other.transfer)).to.include({ result: 'done' })
    expect(await stage.server.outcomeOf(forgotten.transfer)).to.include({ result: 'done' })
    expect(stage.server.sessions).to.equal(1)
  })

  it('after the server did not take an outcome tells what it holds, and the transfer goes elsewhere', async () => {
    stage = await Stage.create()
    let refused = 0
    stage.server.before = name => {
      if (name === 'reportOutcomes' && refused++ === 0) throw new ApiError('INVALID', 'outcomes.0', { status: 400 })
    }
    stage.start()
    const orphan = await stage.transfer('f1', 'content')
    stage.server.enqueue(orphan)
    await stage.server.untilCalled('reportOutcomes')
    // Ends the claim that was waiting already.
    const other = await stage.transfer('f2', 'content')
    stage.server.enqueue(other)
    expect(await stage.server.outcomeOf(other.transfer)).to.include({ result: 'done' })
    expect(await stage.server.outcomeOf(orphan.transfer)).to.include({ result: 'done' })
    expect(stage.server.sessions).to.equal(1)
  })

  it('after the server did not take an import tells that it is not held, and it is given out again', async () => {
    stage = await Stage.create()
    const { claim } = stage.server.api
    const held: (number[] | undefined)[] = []
    stage.server.before = name => {
      if (name === 'reportImport') throw new ApiError('INVALID', 'error', { status: 400 })
    }
    const log = { ...stage.options.log, error: () => undefined }
    stage.start({
      log,
      api: {
        ...stage.server.api,
        claim: call => {
          held.push(call.body.held?.imports.map(Number))
          return claim(call)
        },
      },
    })
    const { source } = await stage.transfer('tree/f', 'x')
    const storage = stage.server.storages.get('SITE-A')
    if (storage === undefined) throw new Error('no storage')
    const url = `${stage.storage('SITE-A').url}/data/exp/ds/tree`
    const wanted = {
      dataset: 'ds/tree',
      summed: false,
      checksum: 'storage' as const,
      directories: [{ directory: 1, path: '' }],
    }
    stage.server.enqueueImport({ import: 5, fence: 3, url, grant: source.grant, storage, ...wanted })
    while (stage.server.called('reportImport') < 2) await stage.server.untilCalled('reportImport')
    // Ends the claim that was waiting already.
    const other = await stage.transfer('f2', 'content')
    stage.server.enqueue(other)
    await stage.server.outcomeOf(other.transfer)
    while (held.at(-1) === undefined) await stage.server.untilCalled('claim')
    expect(held.at(-1)).to.deep.equal([])
  })

  it('stops all attempts of a lease it cannot renew, reports nothing under it, and begins a new session', async () => {
    stage = await Stage.create()
    stage.server.leaseSeconds = 1
    stage.server.heartbeatSeconds = 0.2
    stage.a.behaviour.bytesPerSecond = 50_000
    let serverAway = false
    stage.server.before = () => {
      if (serverAway) throw away()
    }
    stage.start()
    const slow = await stage.transfer('slow', Buffer.alloc(2_000_000, 1))
    stage.server.enqueue(slow)
    await stage.server.untilProgress(slow.transfer)
    serverAway = true
    await stage.server.untilCalled('openSession')
    serverAway = false
    stage.server.leaseSeconds = 30
    const next = await stage.transfer('f1', 'content')
    stage.a.behaviour.bytesPerSecond = undefined
    stage.server.enqueue(next)
    expect(await stage.server.outcomeOf(next.transfer)).to.include({ result: 'done' })
    expect(stage.server.sessions).to.equal(2)
    expect(stage.server.outcomes.map(({ transfer }) => transfer)).to.deep.equal([next.transfer])
  })

  it('renews grants ahead of the work that needs them', async () => {
    stage = await Stage.create()
    const { source, destination } = await stage.transfer('f1', 'content')
    stage.server.wantedRenewals.push(source.grant, destination.grant)
    stage.start()
    await stage.server.untilCalled('reportRenewal')
    await stage.server.untilCalled('reportRenewal')
    expect(stage.server.queue).to.deep.equal([])
  })

  describe('that is stopped', () => {
    it('lets attempts finish, reports them and closes its session', async () => {
      stage = await Stage.create()
      stage.a.behaviour.bytesPerSecond = 100_000
      const worker = stage.start()
      const transfer = await stage.transfer('f1', Buffer.alloc(100_000, 1))
      stage.server.enqueue(transfer)
      await stage.server.untilCalled('reportRenewal')
      await worker.stop()
      expect(stage.server.outcomes.map(({ result }) => result)).to.deep.equal(['done'])
      expect([...stage.server.ended]).to.deep.equal([1])
    })

    it('ends what takes too long: a COPY under way is unknown, what was not sent is handed back', async () => {
      stage = await Stage.create()
      stage.server.heartbeatSeconds = 0.05
      stage.a.behaviour.bytesPerSecond = 20_000
      const worker = stage.start({ shutdownMs: 50 })
      const slow = await stage.transfer('slow', Buffer.alloc(2_000_000, 1))
      stage.server.enqueue(slow)
      await stage.server.untilProgress(slow.transfer)
      const waiting = await stage.transfer('f1', 'content')
      stage.server.before = name => {
        if (name === 'acquireToken') throw away()
      }
      stage.server.enqueue(waiting)
      await stage.server.untilCalled('acquireToken')
      await worker.stop()
      const results = stage.server.outcomes.map(({ transfer, result }) => [transfer, result])
      expect(Object.fromEntries(results)).to.deep.equal({
        [slow.transfer]: 'unknown',
        [waiting.transfer]: 'handed-back',
      })
      expect(stage.server.outcomes.find(({ result }) => result === 'unknown')?.error).to.include({
        code: 'INTERRUPTED',
      })
      expect([...stage.server.ended]).to.deep.equal([1])
    })

    it('stops while it has nothing to do, and while there is no server', async () => {
      stage = await Stage.create()
      const idle = stage.start()
      await stage.server.untilCalled('claim')
      await idle.stop()
      stage.server.before = () => {
        throw away()
      }
      const lonely = stage.start()
      await stage.server.untilCalled('openSession')
      await lonely.stop()
      expect(stage.server.sessions).to.equal(1)
    })
  })
})
