import { expect } from 'chai'
import { clockKeeper, DatabaseClock } from '../../server/database/database-clock.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import { LeapingClock } from '../house/leaping-clock.ts'
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

  it('goes by its own time of day while that passes more: after the machine was suspended', async () => {
    const own = new LeapingClock()
    const began = systemClock.now()
    const clock = await DatabaseClock.start(own, async () => systemClock.now(), silentLogger)
    own.leap(300_000)
    expect(clock.now()).to.be.within(began + 300_000, began + 310_000)
  })

  it('does not believe an answer that came late', async () => {
    const own = new ManualClock()
    let answer: (now: number) => void = () => undefined
    const late = new Promise<number>(resolve => {
      answer = resolve
    })
    const answers = [Promise.resolve(DATABASE_NOW), late]
    const clock = await DatabaseClock.start(own, () => answers.shift() ?? Promise.reject(), silentLogger)
    const looking = clock.look()
    await own.advance(1_001)
    answer(DATABASE_NOW + 900_000)
    await looking
    expect(clock.now()).to.equal(DATABASE_NOW + 1_001)
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
