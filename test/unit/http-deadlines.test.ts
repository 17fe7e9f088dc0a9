import { setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { Deadlines, DeadlineTimer } from '../../shared/http/deadlines.ts'
import { ManualClock } from './http-manual-clock.ts'

describe('deadlines', () => {
  function start() {
    const clock = new ManualClock()
    const expired: string[] = []
    const timer = new DeadlineTimer(clock)
    return { clock, timer, expired, deadlines: new Deadlines<string>(timer, name => expired.push(name)) }
  }

  it('fires the first that is due, and only that one', async () => {
    const { clock, expired, deadlines } = start()
    deadlines.set('late', 2000)
    deadlines.set('early', 1000)
    await clock.advance(999)
    expect(expired).to.deep.equal([])
    await clock.advance(1)
    expect(expired).to.deep.equal(['early'])
    await clock.advance(10_000)
    expect(expired).to.deep.equal(['early'])
    await turn()
    expect(clock.sleepers).to.equal(0)
  })

  it('counts from the last set', async () => {
    const { clock, expired, deadlines } = start()
    deadlines.set('idle', 1000)
    await clock.advance(900)
    deadlines.set('idle', 1000)
    await clock.advance(999)
    expect(expired).to.deep.equal([])
    await clock.advance(1)
    expect(expired).to.deep.equal(['idle'])
  })

  it('forgets what is cleared, and everything when closed', async () => {
    const { clock, expired, deadlines } = start()
    deadlines.set('cleared', 1000)
    deadlines.set('kept', 3000)
    deadlines.clear('cleared')
    await clock.advance(2000)
    expect(expired).to.deep.equal([])
    deadlines.close()
    deadlines.set('after', 10)
    await clock.advance(5000)
    expect(expired).to.deep.equal([])
    await turn()
    expect(clock.sleepers).to.equal(0)
  })

  it('shares one sleep among many exchanges', async () => {
    const { clock, timer, expired, deadlines } = start()
    const others = [3000, 1000, 2000].map(ms => {
      const other = new Deadlines<string>(timer, name => expired.push(name))
      other.set(`after ${ms}`, ms)
      return other
    })
    deadlines.set('long', 10_000)
    expect(clock.sleepers).to.equal(1)
    others[2]?.close()
    await clock.advance(3000)
    expect(expired).to.deep.equal(['after 1000', 'after 3000'])
    expect(clock.sleepers).to.equal(1)
    await clock.advance(7000)
    expect(expired.at(-1)).to.equal('long')
  })

  it('can be set again by what expired', async () => {
    const { clock, timer, expired } = start()
    const next = new Deadlines<string>(timer, name => expired.push(name))
    new Deadlines<string>(timer, () => next.set('next', 500)).set('first', 1000)
    await clock.advance(1499)
    expect(expired).to.deep.equal([])
    await clock.advance(1)
    expect(expired).to.deep.equal(['next'])
  })

  it('bears a deadline longer than a timer can be', async () => {
    const { clock, expired, deadlines } = start()
    deadlines.set('months', 2 ** 32)
    await clock.advance(2 ** 32 - 1)
    expect(expired).to.deep.equal([])
    await clock.advance(1)
    expect(expired).to.deep.equal(['months'])
  })
})
