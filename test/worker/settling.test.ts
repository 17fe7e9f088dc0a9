import { expect } from 'chai'
import { betweenLooks, refusePermits, Stage } from './stage.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))

describe('an attempt whose end was not seen', () => {
  let stage: Stage
  afterEach(() => stage.end())
  const begin = async () => {
    stage = await Stage.create()
    return stage
  }
  const run = async (transfer: Awaited<ReturnType<Stage['transfer']>>) => {
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }

  it('is unknown at once, and settled by the next claim', async () => {
    await begin()
    stage.b.behaviour.withholdOutcome = true
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    const outcome = await run(transfer)
    expect(outcome).to.deep.include({ result: 'unknown', cleaned: false })
    expect(outcome.error).to.include({ code: 'OUTCOME_UNKNOWN', phase: 'TRANSFER' })
    expect(stage.server.called('askPermit')).to.equal(0)
    const settled = { ...transfer, fence: 2, kind: 'settle' } as const
    stage.server.enqueue(settled)
    expect(await stage.server.outcomeOfFence(settled.transfer, 2)).to.include({ result: 'done' })
    expect(stage.b.requests.get('COPY')).to.equal(1)
  })

  describe('and whose file has the right size, while the storage tells no checksum', () => {
    const untold = async () => {
      await begin()
      stage.b.behaviour.checksums = []
      stage.start()
      return stage.transfer('f1', CONTENT)
    }
    const stays = async () => {
      expect(stage.server.called('askPermit')).to.equal(0)
      expect(await stage.read('SITE-B', 'f1')).to.deep.equal(CONTENT)
    }

    it('is unknown, and not removed', async () => {
      const outcome = await run(await untold())
      expect(outcome).to.deep.include({ result: 'unknown', cleaned: false, left: 'own' })
      expect(outcome.error).to.include({ code: 'CHECKSUM_UNAVAILABLE', scope: 'DESTINATION', retryable: false })
      await stays()
    })

    it('is looked at again when it is settled', async () => {
      const transfer = await untold()
      await stage.write('SITE-B', 'f1', CONTENT)
      const outcome = await run({ ...transfer, kind: 'settle' })
      expect(outcome).to.include({ result: 'growing' })
      expect(outcome.error).to.include({ code: 'CHECKSUM_UNAVAILABLE' })
      await stays()
    })

    it('is looked at again when it lay there before', async () => {
      const transfer = await untold()
      await stage.write('SITE-B', 'f1', CONTENT)
      const outcome = await run(transfer)
      expect(outcome).to.include({ result: 'unknown' })
      expect(outcome.error?.message).to.match(/the copy failed too: DESTINATION_EXISTS/)
      await stays()
    })
  })

  it('is absent when nothing lies there', async () => {
    await begin()
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    expect(await run({ ...transfer, kind: 'settle' })).to.include({ result: 'absent' })
  })

  it('is not absent when its file shows at the second look only', async () => {
    await begin()
    stage.start(betweenLooks(() => stage.write('SITE-B', 'f1', 'a part')))
    expect(await run({ ...(await stage.transfer('f1', CONTENT)), kind: 'settle' })).to.include({ result: 'growing' })
  })

  it('is removed under a permit when it is wrong and no longer changes', async () => {
    await begin()
    await stage.write('SITE-B', 'f1', 'a part')
    stage.start()
    const outcome = await run({ ...(await stage.transfer('f1', CONTENT)), kind: 'settle' })
    expect(outcome).to.deep.include({ result: 'failed', cleaned: true })
    expect(outcome.error).to.include({ code: 'OUTCOME_UNKNOWN', retryable: true })
    expect(await stage.read('SITE-B', 'f1')).to.equal(undefined)
  })

  it('fails at a file that no attempt can have left, which stays', async () => {
    await begin()
    stage.server.before = refusePermits
    await stage.write('SITE-B', 'f1', 'another')
    stage.start()
    const outcome = await run({ ...(await stage.transfer('f1', CONTENT)), kind: 'settle' })
    expect(outcome).to.deep.include({ result: 'failed', cleaned: false })
    expect(outcome.error).to.include({ code: 'DESTINATION_EXISTS', scope: 'DESTINATION', retryable: false })
    expect(stage.server.permits).to.deep.equal([{ transfer: 1, written: false }])
    expect(String(await stage.read('SITE-B', 'f1'))).to.equal('another')
  })

  it('is left alone while it grows', async () => {
    await begin()
    await stage.write('SITE-B', 'f1', 'a part')
    stage.start(betweenLooks(() => stage.write('SITE-B', 'f1', 'a part, and more')))
    expect(await run({ ...(await stage.transfer('f1', CONTENT)), kind: 'settle' })).to.include({ result: 'growing' })
    expect(stage.server.called('askPermit')).to.equal(0)
  })

  it('is looked at again when the storage is away', async () => {
    await begin()
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    const away = { ...transfer.destination, url: 'https://localhost:1/data/exp/ds/f1' }
    const outcome = await run({ ...transfer, kind: 'settle', destination: away })
    expect(outcome).to.include({ result: 'growing' })
    expect(outcome.error).to.include({ code: 'CONNECT_FAILED', scope: 'DESTINATION' })
  })
})
