import { expect } from 'chai'
import { sumByLink } from '../../server/transfers/pace.ts'
import { type LinkPace, SLOW, slowLinks, slowPairs } from '../../server/transfers/slow.ts'

/** A link into storage 9 that has copied files of `bytes` in `seconds` each. */
function link(id: number, files: number, seconds: number, bytes = 1_000_000): LinkPace {
  return { id, destinationId: 9, files, bytes: files * bytes, milliseconds: files * seconds * 1_000, atOnce: 10 }
}

describe('links that are much slower than another', () => {
  const cases: [string, LinkPace[], [number, number][]][] = [
    ['four times, with files alike', [link(1, 100, 8), link(2, 100, 2)], [[1, 2]]],
    ['not three times', [link(1, 100, 6), link(2, 100, 2)], []],
    ['not when its files are larger', [link(1, 100, 80, 80_000_000), link(2, 100, 2)], []],
    ['not when its files are small, with the same overhead', [link(1, 100, 2, 1_000), link(2, 100, 2)], []],
    ['not on the word of a few files', [link(1, SLOW.files - 1, 80), link(2, 100, 2)], []],
    ['not when the other leads elsewhere', [link(1, 100, 80), { ...link(2, 100, 2), destinationId: 8 }], []],
    ['not when nothing is known of the other', [link(1, 100, 60), link(2, 0, 0)], []],
    ['empty files', [link(1, 100, 8, 0), link(2, 100, 2, 0)], [[1, 2]]],
  ]
  for (const [what, links, expected] of cases) {
    it(what, () => expect(slowPairs(links).map(({ slow, other }) => [slow.id, other.id])).to.deep.equal(expected))
  }
})

describe('what leaves a slow link', () => {
  const pairs = slowPairs([link(1, 100, 8), link(2, 100, 2)])
  const moves = (of: typeof pairs, ...queued: [number, number][]): [number, number, number][] =>
    slowLinks(of, new Map(queued)).flatMap(({ id, to }) =>
      to.map((target): [number, number, number] => [id, target.id, target.most]),
    )

  it('as much as makes both end at the same time', () => expect(moves(pairs, [1, 1_000])).to.deep.equal([[1, 2, 800]]))
  it('less when the fast one has work of its own', () =>
    expect(moves(pairs, [1, 1_000], [2, 2_000])).to.deep.equal([[1, 2, 400]]))
  it('nothing when the fast one has too much', () => expect(moves(pairs, [1, 100], [2, 400])).to.deep.equal([]))
  it('nothing when the fast one has more than is counted', () =>
    expect(moves(pairs, [1, SLOW.counted], [2, SLOW.counted])).to.deep.equal([]))
  it('nothing when nothing is queued', () => expect(moves(pairs)).to.deep.equal([]))
  it('little when the fast one does little at a time', () => {
    const narrow = slowPairs([
      { ...link(1, 100, 8), atOnce: 60 },
      { ...link(2, 100, 2), atOnce: 2 },
    ])
    // 7.5 files a second and 1.
    expect(moves(narrow, [1, 1_000])).to.deep.equal([[1, 2, 117]])
  })
  it('once only, with two that are faster, and from two that are slower', () => {
    const two = slowPairs([link(1, 100, 8), link(2, 100, 2), link(3, 100, 2)])
    expect(moves(two, [1, 1_000])).to.deep.equal([
      [1, 2, 800],
      [1, 3, 160],
    ])
    const both = slowPairs([link(1, 100, 8), link(2, 100, 8), link(3, 100, 2)])
    expect(moves(both, [1, 1_000], [2, 1_000])).to.deep.equal([
      [1, 3, 800],
      [2, 3, 640],
    ])
  })
  it('until both are even: then nothing moves any more', () => {
    const queued = new Map([
      [1, 1_000],
      [2, 0],
    ])
    for (let round = 0; round < 3; round += 1) {
      for (const { id, to } of slowLinks(pairs, queued)) {
        for (const target of to) {
          queued.set(id, (queued.get(id) ?? 0) - target.most)
          queued.set(target.id, (queued.get(target.id) ?? 0) + target.most)
        }
      }
    }
    expect([...queued.values()]).to.deep.equal([200, 800])
  })
})

it('the pace of links is the sum of their copies', () => {
  const copy = { linkId: 7, mode: 'pull', done: true, bytes: 100, milliseconds: 500 } as const
  const failed = { ...copy, done: false }
  expect(sumByLink([copy, { ...copy, milliseconds: 0 }, failed, { ...copy, linkId: 8 }])).to.deep.equal([
    { linkId: 7, mode: 'pull', files: 2, bytes: 200, milliseconds: 501, squaredSeconds: 0.250001, failures: 1 },
    { linkId: 8, mode: 'pull', files: 1, bytes: 100, milliseconds: 500, squaredSeconds: 0.25, failures: 0 },
  ])
})
