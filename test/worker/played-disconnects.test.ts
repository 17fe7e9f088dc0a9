import { expect } from 'chai'
import type { Played } from '../../sandbox/main.ts'
import { FLAVOURS, play } from './playing.ts'
import { refusePermits, Stage } from './stage.ts'

const CONTENT = Buffer.alloc(600_000, 'some content')
/** Longer than a storage takes to notice that its client is gone (`markerSeconds`). */
const SETTLE_MS = 1_000

/** facts/http-tpc.md section 5, Disconnect: what becomes of a COPY whose client leaves in the middle. */
describe('a worker that leaves a COPY', () => {
  let stage: Stage
  let worker: { stop: () => Promise<void> }
  beforeEach(async () => {
    stage = await Stage.create()
    stage.server.heartbeatSeconds = 0.05
    stage.server.before = name => {
      if (stage.server.permits.at(-1)?.written !== true) refusePermits(name)
    }
    worker = stage.start({ settleMs: SETTLE_MS, shutdownMs: 50 })
  })
  afterEach(() => stage.end())

  async function underWay(flavour: Played, bytesPerSecond = 200_000) {
    for (const storage of [stage.a, stage.b]) play(storage, flavour)
    stage.a.behaviour.bytesPerSecond = bytesPerSecond
    const transfer = await stage.transfer('big', CONTENT)
    stage.server.enqueue(transfer)
    await stage.server.untilProgress(transfer.transfer)
    return transfer
  }
  const deletes = () => stage.b.requests.get('DELETE') ?? 0
  const lies = () => stage.read('SITE-B', 'big')

  for (const flavour of FLAVOURS.filter(name => name !== 'storm')) {
    const leaves = flavour !== 'dcache'
    it(`${flavour}, cancelled: it ends at the next marker, and ${leaves ? 'its part is removed' : 'leaves nothing'}`, async () => {
      const transfer = await underWay(flavour)
      stage.server.cancelled.add(transfer.transfer)
      const outcome = await stage.server.outcomeOf(transfer.transfer)
      expect(outcome.error).to.include({ code: 'CANCELLED', scope: 'GENERAL' })
      expect(outcome).to.include({ result: 'failed', cleaned: leaves })
      expect(deletes()).to.equal(leaves ? 1 : 0)
      expect(await lies()).to.equal(undefined)
    })
  }

  it('storm, cancelled: it goes on, and is neither removed nor copied again before it ends', async () => {
    const transfer = await underWay('storm', 80_000)
    const copies = stage.b.requests.get('COPY')
    stage.server.cancelled.add(transfer.transfer)
    const outcome = await stage.server.outcomeOf(transfer.transfer)
    expect(outcome).to.include({ result: 'unknown', cleaned: false, left: 'own' })
    const growing = { ...transfer, fence: 2, kind: 'settle' } as const
    stage.server.cancelled.clear()
    stage.server.enqueue(growing)
    expect(await stage.server.outcomeOfFence(transfer.transfer, 2)).to.include({ result: 'growing' })
    await stage.b.settled()
    stage.server.enqueue({ ...growing, fence: 3 })
    expect(await stage.server.outcomeOfFence(transfer.transfer, 3)).to.include({ result: 'done' })
    expect(await lies()).to.deep.equal(CONTENT)
    expect(stage.b.requests.get('COPY')).to.equal(copies)
    expect([deletes(), stage.server.called('askPermit')]).to.deep.equal([0, 0])
  })

  for (const flavour of FLAVOURS) {
    it(`${flavour}, stopped: the next one settles it`, async () => {
      const transfer = await underWay(flavour)
      await worker.stop()
      expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'unknown', left: 'own' })
      await stage.b.settled()
      // As the real server gives one where an earlier attempt has written.
      stage.server.before = () => undefined
      stage.start({ settleMs: SETTLE_MS })
      stage.server.enqueue({ ...transfer, fence: 2, kind: 'settle' })
      const settled = await stage.server.outcomeOfFence(transfer.transfer, 2)
      const expected = { dcache: 'absent', storm: 'done' } as const
      expect(settled.result).to.equal(flavour in expected ? expected[flavour as keyof typeof expected] : 'failed')
      expect(await lies()).to.deep.equal(flavour === 'storm' ? CONTENT : undefined)
    })
  }
})
