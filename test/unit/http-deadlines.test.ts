import { expect } from 'chai'
import { Deadlines } from '../../shared/http/deadlines.ts'
import { ManualClock } from './http-manual-clock.ts'

describe('deadlines', () => {
  function start() {
    const clock = new ManualClock()
    const expired: string[] = []
    return { clock, expired, deadlines: new Deadlines<string>(clock, name => expired.push(name)) }
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
    expect(clock.sleepers).to.equal(0)
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
