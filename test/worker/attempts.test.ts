import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { LeapingClock } from '../house/leaping-clock.ts'
import { betweenLooks, refusePermits, Stage, type StageOptions } from './stage.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))

describe('an attempt, between embedded storages', () => {
  let stage: Stage
  afterEach(() => stage.end())
  const begin = async (options?: StageOptions) => {
    stage = await Stage.create(options)
    return stage
  }
  const run = async (transfer: Awaited<ReturnType<Stage['transfer']>>) => {
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }

  describe('copies and verifies', () => {
    for (const [mode, source, destination] of [
      ['pull', {}, {}],
      ['push', {}, { canPull: false }],
      ['stream', { canPush: false }, { canPull: false }],
    ] as const) {
      it(`by ${mode}`, async () => {
        await begin({ source, destination })
        stage.start()
        const transfer = await stage.transfer('f1', CONTENT)
        const outcome = await run(transfer)
        expect(outcome).to.deep.include({ transfer: 1, fence: 1, result: 'done', mode, bytes: CONTENT.length })
        expect(outcome).to.deep.include({ sourceGrant: 11, destinationGrant: 12, cleaned: false })
        expect(await stage.read('SITE-B', 'f1')).to.deep.equal(CONTENT)
      })
    }

    it('an empty file', async () => {
      await begin()
      stage.start()
      expect(await run(await stage.transfer('empty', ''))).to.include({ result: 'done', bytes: 0 })
    })

    it('names that need percent-encoding nowhere else', async () => {
      await begin()
      stage.start()
      expect(await run(await stage.transfer('a+b=c@d,e~f', CONTENT))).to.include({ result: 'done' })
    })

    it('by md5 where the catalogue has nothing else', async () => {
      await begin()
      stage.start()
      const { adler32: _, ...rest } = await stage.transfer('f1', 'Wikipedia')
      expect(await run({ ...rest, md5: '9c677286866aad38f8e9b660f5411814' })).to.include({ result: 'done' })
    })

    it('with the source`s own checksum where the catalogue has none', async () => {
      await begin()
      stage.start()
      const { adler32: _, ...rest } = await stage.transfer('f1', CONTENT)
      expect(await run(rest)).to.include({ result: 'done' })
    })

    it('making the parents that COPY does not make', async () => {
      await begin()
      stage.b.behaviour.makeParents = false
      stage.start()
      expect(await run(await stage.transfer('deep/er/f1', CONTENT))).to.include({ result: 'done', mode: 'pull' })
      expect(stage.b.requests.get('MKCOL')).to.be.greaterThan(0)
    })

    it('in the next mode when one is not supported, and remembers that', async () => {
      await begin()
      stage.b.behaviour.pull = false
      stage.a.behaviour.push = false
      stage.start()
      expect(await run(await stage.transfer('f1', CONTENT))).to.include({ result: 'done', mode: 'stream' })
      expect(await run(await stage.transfer('f2', CONTENT))).to.include({ result: 'done', mode: 'stream' })
      expect(stage.a.requests.get('COPY')).to.equal(1)
      expect(stage.b.requests.get('COPY')).to.equal(1)
    })
  })

  describe('fails and cleans up', () => {
    it('when the catalogue knows another checksum than the source', async () => {
      await begin()
      stage.start()
      const outcome = await run(await stage.transfer('f1', CONTENT, { adler32: '00000001' }))
      expect(outcome).to.deep.include({ result: 'failed', cleaned: true, mode: 'pull' })
      expect(outcome.error).to.include({ code: 'SOURCE_CORRUPT', scope: 'SOURCE', retryable: false })
      expect(await stage.read('SITE-B', 'f1')).to.equal(undefined)
    })

    it('when the catalogue knows another size than the source', async () => {
      await begin()
      stage.start()
      const outcome = await run(await stage.transfer('f1', CONTENT, { bytes: 5 }))
      expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
      expect(outcome.error).to.include({ code: 'SOURCE_CORRUPT', retryable: false })
    })

    it('not a source of another size, streamed: it is its replica that is BAD', async () => {
      await begin({ source: { canPush: false }, destination: { canPull: false } })
      stage.start()
      const outcome = await run(await stage.transfer('f1', CONTENT, { bytes: 5 }))
      expect(outcome).to.deep.include({ result: 'failed', cleaned: false, mode: 'stream' })
      expect(outcome.error).to.include({ code: 'SOURCE_CORRUPT', scope: 'SOURCE', retryable: false })
    })

    it('debris of a failed pull, as XRootD leaves it', async () => {
      await begin()
      stage.b.behaviour.debris = true
      stage.start()
      const transfer = await stage.transfer('f1', CONTENT)
      const missing = { ...transfer, source: { ...transfer.source, url: `${transfer.source.url}.missing` } }
      const outcome = await run(missing)
      expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
      expect(outcome.error).to.include({ code: 'SOURCE_MISSING', scope: 'SOURCE' })
      expect(await stage.read('SITE-B', 'f1')).to.equal(undefined)
      expect(stage.b.requests.get('DELETE')).to.equal(1)
    })

    it('nothing when nothing was left: no permit is asked for', async () => {
      await begin()
      stage.start()
      const transfer = await stage.transfer('f1', CONTENT)
      const missing = { ...transfer, source: { ...transfer.source, url: `${transfer.source.url}.missing` } }
      expect(await run(missing)).to.deep.include({ result: 'failed', cleaned: false })
      expect(stage.server.called('askPermit')).to.equal(0)
    })

    it('nothing where somebody else’s file lies, pushed or pulled: it stays', async () => {
      for (const destination of [{}, { canPull: false }]) {
        await begin({ destination })
        stage.server.before = refusePermits
        await stage.write('SITE-B', 'f1', 'another')
        stage.start()
        const outcome = await run(await stage.transfer('f1', CONTENT))
        expect(outcome).to.deep.include({ result: 'failed', cleaned: false })
        expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', retryable: false })
        expect(String(await stage.read('SITE-B', 'f1'))).to.equal('another')
        expect(stage.b.requests.get('DELETE') ?? 0).to.equal(0)
        if (destination.canPull === undefined) await stage.end()
      }
    })

    it('not what somebody else is writing there: it is settled', async () => {
      await begin()
      await stage.write('SITE-B', 'f1', 'a part')
      stage.start(betweenLooks(() => stage.write('SITE-B', 'f1', 'a part, and more')))
      const outcome = await run(await stage.transfer('f1', CONTENT))
      expect(outcome).to.deep.include({ result: 'unknown', cleaned: false })
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS' })
      expect(stage.server.called('askPermit')).to.equal(0)
      expect(String(await stage.read('SITE-B', 'f1'))).to.equal('a part, and more')
    })

    it('nothing when somebody else finishes the right file meanwhile', async () => {
      await begin()
      await stage.write('SITE-B', 'f1', 'a part')
      stage.start(betweenLooks(() => stage.write('SITE-B', 'f1', CONTENT)))
      expect(await run(await stage.transfer('f1', CONTENT))).to.include({ result: 'done' })
      expect(stage.server.called('askPermit')).to.equal(0)
    })

    it('nothing where a storage says 500 for somebody else’s file', async () => {
      await begin()
      stage.server.before = refusePermits
      await stage.write('SITE-B', 'f1', 'another')
      stage.b.refuse({ verb: 'COPY', status: 500, times: 1 })
      stage.start()
      const outcome = await run(await stage.transfer('f1', CONTENT))
      expect(outcome).to.deep.include({ result: 'failed', cleaned: false, left: 'unknown' })
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', retryable: false })
      expect(outcome.error?.message).to.match(/it is none of yours; before: STORAGE_ERROR, COPY answered 500/)
      expect(stage.server.permits).to.deep.equal([{ transfer: 1, written: false }])
      expect(String(await stage.read('SITE-B', 'f1'))).to.equal('another')
    })

    it('what does not change between two looks, under a permit, so that the next attempt succeeds', async () => {
      await begin()
      await stage.write('SITE-B', 'f1', 'another')
      let looks = 0
      stage.start(betweenLooks(async () => void looks++))
      const outcome = await run(await stage.transfer('f1', CONTENT))
      expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
      expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', retryable: true })
      expect([looks, stage.server.called('askPermit')]).to.deep.equal([1, 1])
      expect(await stage.read('SITE-B', 'f1')).to.equal(undefined)
    })

    it('not once the machine was suspended: the DELETE is never sent', async () => {
      await begin()
      const clock = new LeapingClock()
      stage.server.after = name => {
        if (name === 'askPermit') clock.leap(60_000)
      }
      stage.start({ clock })
      const outcome = await run(await stage.transfer('f1', CONTENT, { adler32: '00000001' }))
      expect(outcome).to.deep.include({ result: 'unknown', cleaned: false })
      expect(stage.b.requests.get('DELETE') ?? 0).to.equal(0)
    })

    it('under another permit, when one was over before there was a token for it', async () => {
      await begin()
      let cleanUps = 0
      stage.server.before = name => {
        if (name !== 'acquireToken' || stage.server.called('askPermit') === 0 || cleanUps++ > 0) return
        throw new ApiError('PERMIT_MISSING', 'ask for one first', { status: 409 })
      }
      stage.start()
      expect(await run(await stage.transfer('f1', CONTENT, { adler32: '00000001' }))).to.include({ cleaned: true })
      expect(stage.server.called('askPermit')).to.equal(2)
    })

    it('not once the permit may be over: the DELETE is never sent', async () => {
      await begin()
      stage.server.permitSeconds = 0
      stage.start()
      const outcome = await run(await stage.transfer('f1', CONTENT, { adler32: '00000001' }))
      expect(outcome).to.deep.include({ result: 'unknown', cleaned: false })
      expect(stage.b.requests.get('DELETE') ?? 0).to.equal(0)
      expect(stage.server.called('askPermit')).to.equal(3)
    })
  })

  it('takes a file that is there already and right', async () => {
    await begin()
    await stage.write('SITE-B', 'f1', CONTENT)
    stage.start()
    expect(await run(await stage.transfer('f1', CONTENT))).to.include({ result: 'done', bytes: 0 })
  })

  describe('tells what it may have left', () => {
    it('nothing of its own, and no mode, where nothing was sent', async () => {
      await begin()
      stage.start()
      const transfer = await stage.transfer('f1', CONTENT)
      const away = { ...transfer.destination, url: 'https://localhost:1/data/exp/ds/f1' }
      const outcome = await run({ ...transfer, destination: away })
      expect(outcome).to.deep.include({ result: 'failed', left: 'unknown' })
      expect(outcome).not.to.have.property('mode')
    })

    it('nothing at all once it was cleaned up', async () => {
      await begin()
      stage.start()
      expect(await run(await stage.transfer('f1', CONTENT, { adler32: '00000001' }))).to.include({ left: 'nothing' })
    })

    it('what lies there, when the COPY was taken and nobody saw its end', async () => {
      await begin()
      stage.b.behaviour.withholdOutcome = true
      stage.start()
      expect(await run(await stage.transfer('f1', CONTENT))).to.include({ result: 'unknown', left: 'own' })
    })

    it('at once when the COPY was taken, not only with the next heartbeat', async () => {
      await begin()
      stage.a.behaviour.bytesPerSecond = 100_000
      stage.start()
      const transfer = await stage.transfer('big', Buffer.alloc(200_000, 7))
      stage.server.enqueue(transfer)
      await stage.server.untilProgress(transfer.transfer)
      expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
    })
  })

  it('is cancelled: the copy ends, what it left is removed', async () => {
    await begin()
    stage.server.heartbeatSeconds = 0.05
    stage.a.behaviour.bytesPerSecond = 100_000
    stage.b.behaviour.debris = true
    stage.start({ settleMs: 500 })
    const transfer = await stage.transfer('big', Buffer.alloc(5_000_000, 7))
    stage.server.enqueue(transfer)
    await stage.server.untilProgress(transfer.transfer)
    stage.server.cancelled.add(transfer.transfer)
    const outcome = await stage.server.outcomeOf(transfer.transfer)
    expect(outcome.error).to.include({ code: 'CANCELLED', scope: 'GENERAL' })
    expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
    expect(await stage.read('SITE-B', 'big')).to.equal(undefined)
  })
})
