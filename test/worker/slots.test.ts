import { expect } from 'chai'
import { gatherRoom } from '../../worker/loop.ts'
import { Slots } from '../../worker/slots.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

describe('the slots of a worker', () => {
  const never = new AbortController().signal

  it('are given in the order of asking', async () => {
    const slots = new Slots(1, new ManualClock())
    const given: string[] = []
    const ask = (name: string) => void slots.take(never).then(got => given.push(`${name} ${got}`))
    for (const name of ['first', 'second', 'third']) ask(name)
    expect([slots.free, slots.queued]).to.deep.equal([-2, 2])
    for (let i = 0; i < 3; i += 1) {
      await new Promise(setImmediate)
      slots.release()
    }
    await new Promise(setImmediate)
    expect(given).to.deep.equal(['first true', 'second true', 'third true'])
    expect([slots.free, slots.queued]).to.deep.equal([1, 0])
  })

  it('that are all taken by what lasts, while others wait, make no claim follow the other at once', async () => {
    const clock = new ManualClock()
    const slots = new Slots(1, clock)
    const { signal } = new AbortController()
    await slots.take(signal)
    void slots.take(signal)
    expect([slots.queued, slots.pace]).to.deep.equal([1, 0])
    let over = false
    void gatherRoom(slots, signal).then(() => {
      over = true
    })
    await new Promise(setImmediate)
    expect(over).to.equal(false)
    await clock.advance(250)
    expect(over).to.equal(true)
  })

  it('are not waited for longer than 5 s, nor by what is stopped', async () => {
    const clock = new ManualClock()
    const slots = new Slots(1, clock)
    await slots.take(never)
    const stopped = new AbortController()
    const [late, interrupted] = [slots.take(never), slots.take(stopped.signal)]
    stopped.abort()
    expect(await interrupted).to.equal(false)
    await clock.advance(5_000)
    expect(await late).to.equal(false)
    expect(await slots.take(stopped.signal)).to.equal(false)
    expect(slots.free).to.equal(0)
  })

  it('make room ahead for what ends in half a second, as long as it goes so', async () => {
    const clock = new ManualClock()
    const slots = new Slots(2, clock)
    expect(slots.room).to.equal(2)
    await clock.advance(1_000)
    for (let i = 0; i < 30; i += 1) {
      await slots.take(never)
      slots.release()
    }
    await Promise.all([slots.take(never), slots.take(never)])
    expect(slots.room).to.equal(30)
    void slots.take(never)
    expect(slots.room).to.equal(29)
    await clock.advance(500)
    expect(slots.room).to.equal(29)
    await clock.advance(500)
    expect(slots.room).to.equal(0)
  })

  it('are short of work when fewer wait than end before a report could bring more', async () => {
    const clock = new ManualClock()
    const slots = new Slots(2, clock)
    expect(slots.isShort(1)).to.equal(true)
    for (let i = 0; i < 100; i += 1) {
      await slots.take(never)
      slots.release()
    }
    await Promise.all([slots.take(never), slots.take(never)])
    for (const [ended, short] of [
      [9, false],
      [10, true],
    ] as const)
      expect(slots.isShort(ended), String(ended)).to.equal(short)
    for (let i = 0; i < 11; i += 1) void slots.take(never)
    expect(slots.isShort(100)).to.equal(false)
  })
})
