import { expect } from 'chai'
import { ApiError } from '../../shared/contract/client.ts'
import { WORKER_CONTRACT } from '../../shared/contract/worker-contract.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import type { Random } from '../../shared/runtime/random.ts'
import type { WorkOptions } from '../../worker/loop.ts'
import { pauseAfter, workUntil } from '../../worker/sessions.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

const refusal = (code: string): ApiError => new ApiError(code, 'update the worker', { status: 409 })

describe('a worker of another contract than the server', () => {
  it('says which it speaks, logs what is to be done, and asks again now and then', async () => {
    const clock = new ManualClock()
    const stopping = new AbortController()
    const spoken: unknown[] = []
    const logged: unknown[] = []
    const api = {
      openSession: async ({ body }: { body: { contract?: number | undefined } }) => {
        spoken.push(body.contract)
        throw refusal('CONTRACT_TOO_OLD')
      },
    }
    const log = {
      ...silentLogger,
      error: (fields: object, message: string) => void logged.push({ ...fields, message }),
    }
    const random: Pick<Random, 'fraction'> = { fraction: () => 0.5 }
    const options = { api, clock, random, log, metrics: {} } as unknown as WorkOptions
    const working = workUntil(stopping.signal, 'w', options)
    for (let asked = 1; asked <= 3; asked++) {
      await clock.untilSleeping()
      expect(spoken).to.deep.equal(Array(asked).fill(WORKER_CONTRACT))
      expect(logged).to.have.length(asked)
      await clock.advance(44_999)
      expect(spoken).to.have.length(asked)
      await clock.advance(1)
    }
    const message = 'worker and server do not fit together: nothing is done until one is updated'
    expect(logged[0]).to.deep.equal({ code: 'CONTRACT_TOO_OLD', why: 'update the worker', seconds: 45, message })
    await clock.untilSleeping()
    stopping.abort()
    await working
  })

  it('waits half a minute to a minute, however often it was refused', () => {
    for (const code of ['CONTRACT_TOO_OLD', 'CONTRACT_TOO_NEW']) {
      for (const failures of [1, 100]) {
        expect([pauseAfter(refusal(code), failures, 0), pauseAfter(refusal(code), failures, 1)]).to.deep.equal([
          30_000, 60_000,
        ])
      }
    }
    expect(pauseAfter(refusal('FORBIDDEN'), 1, 1)).to.equal(250)
  })
})
