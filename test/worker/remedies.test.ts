import { expect } from 'chai'
import type { Played } from '../../sandbox/main.ts'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { FLAVOURS, play } from './playing.ts'
import { Stage } from './stage.ts'

const CONTENT = 'x'.repeat(1000)
const LEAVES_NOTHING: Played = 'dcache'

/** The source refuses what the destination has begun with (facts/http-tpc.md section 5, Debris). */
describe('a COPY that left something, and is worth another', () => {
  let stage: Stage
  afterEach(() => stage.end())
  const begin = async (flavour: Played, refusal: { status: number; times: number }) => {
    stage = await Stage.create()
    for (const storage of [stage.a, stage.b]) play(storage, flavour)
    stage.a.refuse({ verb: 'GET', ...refusal })
    stage.start()
    const transfer = await stage.transfer('f', CONTENT)
    return { transfer, first: await run(transfer) }
  }
  const run = async (transfer: ClaimedTransfer) => {
    stage.server.enqueue(transfer)
    return stage.server.outcomeOfFence(transfer.transfer, transfer.fence)
  }

  for (const flavour of FLAVOURS.filter(name => name !== LEAVES_NOTHING)) {
    it(`${flavour}: a token that the source refuses is told as that, and the next attempt has another`, async () => {
      const { transfer, first } = await begin(flavour, { status: 401, times: 1 })
      expect(first.error).to.include({ code: 'TOKEN_REFUSED', scope: 'TOKEN', retryable: true })
      expect(first).to.include({ result: 'failed', cleaned: true })
      const renewals = stage.server.renewals.length
      expect(await run({ ...transfer, fence: 2 })).to.include({ result: 'done', mode: 'pull' })
      expect(stage.server.renewals.slice(renewals).map(({ step }) => step)).to.deep.equal(['refresh'])
    })

    it(`${flavour}: what the source does not support is told as that, and the next attempt is in another mode`, async () => {
      const { transfer, first } = await begin(flavour, { status: 405, times: 1 })
      expect(first.error).to.include({ code: 'NOT_SUPPORTED', scope: 'SOURCE', retryable: true })
      expect(first).to.include({ result: 'failed', cleaned: true, mode: 'pull' })
      expect(await run({ ...transfer, fence: 2 })).to.include({ result: 'done', mode: 'push' })
    })
  }

  for (const [status, mode] of [
    [401, 'pull'],
    [405, 'push'],
  ] as const) {
    it(`${LEAVES_NOTHING}: is sent at once after a ${status}, by ${mode}`, async () => {
      const { first } = await begin(LEAVES_NOTHING, { status, times: 1 })
      expect(first).to.include({ result: 'done', mode })
    })
  }
})
