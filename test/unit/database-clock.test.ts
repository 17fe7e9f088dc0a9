import { expect } from 'chai'
import { clockKeeper, DatabaseClock } from '../../server/database/database-clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { ManualClock } from './http-manual-clock.ts'

const DATABASE_NOW = 1_700_000_000_000

describe("the database's clock", () => {
  it('goes by the database, whatever the time of this machine, and by the monotonic clock between two looks', async () => {
    const own = new ManualClock()
    let database = DATABASE_NOW
    const clock = await DatabaseClock.start(own, async () => database, silentLogger)
    expect(clock.now()).to.equal(DATABASE_NOW)
    await own.advance(1_234)
    expect(clock.now()).to.equal(DATABASE_NOW + 1_234)
    database += 1_000_000
    expect(clock.now()).to.equal(DATABASE_NOW + 1_234)
    await clock.look()
    expect(clock.now()).to.equal(DATABASE_NOW + 1_000_000)
  })

  it('takes half of the question to be its way there', async () => {
    const own = new ManualClock()
    const slow = async (): Promise<number> => {
      await own.advance(100)
      return DATABASE_NOW
    }
    expect((await DatabaseClock.start(own, slow, silentLogger)).now()).to.equal(DATABASE_NOW + 50)
  })

  it('is looked at again and again, and goes on while the database is away', async () => {
    const own = new ManualClock()
    const answers = [DATABASE_NOW, new Error('away'), DATABASE_NOW + 90_000]
    const ask = async (): Promise<number> => {
      const answer = answers.shift()
      if (typeof answer !== 'number') throw answer
      return answer
    }
    const clock = await DatabaseClock.start(own, ask, silentLogger)
    const keeper = clockKeeper(clock, silentLogger)
    await keeper.start()
    await own.untilSleeping()
    await own.advance(30_000)
    await own.untilSleeping()
    expect(clock.now()).to.equal(DATABASE_NOW + 30_000)
    await own.advance(30_000)
    await own.untilSleeping()
    expect(clock.now()).to.equal(DATABASE_NOW + 90_000)
    await keeper.stop()
  })
})
