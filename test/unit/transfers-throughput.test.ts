import { expect } from 'chai'
import {
  gainOf,
  type Level,
  type LinkWindow,
  lastingOf,
  levelOf,
  NO_EFFECT,
} from '../../server/transfers/throughput.ts'

const MB = 1_000_000

/** A minute with 40 at a time of files of 10 MB that take 2 s each: 20 a second. */
const minute: LinkWindow = {
  length: 60_000,
  files: 1_200,
  bytes: 12_000 * MB,
  milliseconds: 2_400_000,
  squaredSeconds: 4_800,
  failures: 0,
  active: 40,
  full: 0,
  queued: 1_000,
}

describe('throughput', () => {
  const levels = (...windows: LinkWindow[]): [Level, Level] => [
    levelOf(windows[0] ?? minute),
    levelOf(windows[1] ?? minute),
  ]

  it('is what runs over what one takes, also where little of it ended', () => {
    expect(Math.exp(levelOf({ ...minute, files: 3, milliseconds: 6_000 }).pace)).to.be.closeTo(20, 1e-9)
  })
  it('counts small files by their number, where it has learnt that size does not matter', () => {
    const [one, other] = levels(minute, { ...minute, bytes: minute.bytes * 2 })
    expect(gainOf(one, other, { squares: 10, products: 0 })).to.be.closeTo(0, 0.01)
  })
  it('counts large files by their bytes, where it has learnt that time is in proportion to size', () => {
    const [one, other] = levels(minute, { ...minute, files: 600, milliseconds: 2_400_000 })
    expect(gainOf(one, other, { squares: 10, products: 10 })).to.be.closeTo(0, 0.01)
  })
  it('is between them where it does not know', () => {
    const [one, other] = levels(minute, { ...minute, files: 600, milliseconds: 2_400_000 })
    expect(gainOf(one, other, NO_EFFECT)).to.be.closeTo(-Math.log(2) / 2, 0.01)
  })
  it('a failure counts twice', () => {
    const [one, other] = levels(minute, { ...minute, failures: 400 })
    expect(gainOf(one, other, NO_EFFECT)).to.be.closeTo(2 * Math.log(0.75), 1e-9)
  })
})

it('where one file in ten takes a hundred times as long, it is what lasts', () => {
  const unlike = { ...minute, files: 10, milliseconds: 9 * 1_000 + 100_000, squaredSeconds: 9 + 100 ** 2 }
  expect(lastingOf(unlike)).to.be.closeTo(91_826, 1)
  expect(lastingOf(minute)).to.equal(2_000)
})
