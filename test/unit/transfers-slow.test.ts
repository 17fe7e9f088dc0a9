import { expect } from 'chai'
import { type LinkPace, SLOW, slowLinks, slowPairs } from '../../server/transfers/slow.ts'

/** A link into storage 9 that has copied files of `bytes` in `seconds` each. */
function link(id: number, files: number, seconds: number, bytes = 1_000_000): LinkPace {
  return { id, destinationId: 9, files, bytes: files * bytes, milliseconds: files * seconds * 1_000 }
}

describe('links that are much slower than another', () => {
  const cases: [string, LinkPace[], [number, number][]][] = [
    ['four times, with files alike', [link(1, 100, 8), link(2, 100, 2)], [[1, 2]]],
    ['not three times', [link(1, 100, 6), link(2, 100, 2)], []],
    ['not when its files are larger', [link(1, 100, 80, 80_000_000), link(2, 100, 2)], []],
    ['not when its files are small, with the same overhead', [link(1, 100, 2, 1_000), link(2, 100, 2)], []],
    ['not on the word of a few files', [link(1, SLOW.files - 1, 80), link(2, 100, 2)], []],
    ['not when the other leads elsewhere', [link(1, 100, 80), { ...link(2, 100, 2), destinationId: 8 }], []],
    ['when the other was never used, only if it is worth a try', [link(1, 100, 59), link(2, 0, 0)], []],
    ['of minutes for a file: what was not measured is tried', [link(1, 100, 60), link(2, 0, 0)], [[1, 2]]],
    ['empty files', [link(1, 100, 8, 0), link(2, 100, 2, 0)], [[1, 2]]],
  ]
  for (const [what, links, expected] of cases) {
    it(what, () => expect(slowPairs(links).map(({ slow, other }) => [slow.id, other.id])).to.deep.equal(expected))
  }
})

describe('what leaves a slow link', () => {
  const measured = slowPairs([link(1, 100, 8), link(2, 100, 2)])
  const unknown = slowPairs([link(1, 100, 60), link(2, 4, 1)])
  const moves = (pairs: typeof measured, queued: [number, number][]): unknown =>
    slowLinks(pairs, new Map(queued)).map(({ id, to }) => ({ id, to }))

  it('as much as makes both end at the same time', () =>
    expect(moves(measured, [[1, 1_000]])).to.deep.equal([{ id: 1, to: [{ id: 2, most: 800 }] }]))
  it('less when the fast one has work of its own', () =>
    expect(
      moves(measured, [
        [1, 1_000],
        [2, 2_000],
      ]),
    ).to.deep.equal([{ id: 1, to: [{ id: 2, most: 400 }] }]))
  it('nothing when the fast one has too much', () =>
    expect(
      moves(measured, [
        [1, 100],
        [2, 400],
      ]),
    ).to.deep.equal([]))
  it('nothing when nothing is queued', () => expect(moves(measured, [])).to.deep.equal([]))
  it('a few to measure another by, with what is on its way', () =>
    expect(
      moves(unknown, [
        [1, 1_000],
        [2, 1],
      ]),
    ).to.deep.equal([{ id: 1, to: [{ id: 2, most: SLOW.trial - 5 }] }]))
  it('no more than there are', () =>
    expect(moves(unknown, [[1, 2]])).to.deep.equal([{ id: 1, to: [{ id: 2, most: 2 }] }]))
  it('until both are even: then nothing moves any more', () => {
    const queued = new Map([
      [1, 1_000],
      [2, 0],
    ])
    for (let round = 0; round < 3; round += 1) {
      for (const { id, to } of slowLinks(measured, queued)) {
        for (const target of to) {
          queued.set(id, (queued.get(id) ?? 0) - target.most)
          queued.set(target.id, (queued.get(target.id) ?? 0) + target.most)
        }
      }
    }
    expect([...queued.values()]).to.deep.equal([200, 800])
  })
})
