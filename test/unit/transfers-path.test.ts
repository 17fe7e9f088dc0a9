import { expect } from 'chai'
import fc from 'fast-check'
import { HOP_PENALTY, linkKey, MOST_LINKS, type NetworkLink, shortestPath } from '../../server/transfers/path.ts'

const [A, B, C, D, E, F, G] = [1, 2, 3, 4, 5, 6, 7]

function link(from: number, to: number, distance = 1, held = false): NetworkLink {
  return { from, to, distance, held }
}

describe('the way over other storages', () => {
  const cases: readonly {
    readonly name: string
    readonly links: readonly NetworkLink[]
    readonly through?: readonly number[]
    readonly sources?: readonly number[]
    readonly closed?: readonly string[]
    readonly expected: readonly number[] | undefined
  }[] = [
    { name: 'a direct link', links: [link(A, B)], expected: [A, B] },
    { name: 'one storage between', links: [link(A, C), link(C, B)], expected: [A, C, B] },
    { name: 'links go one way', links: [link(A, C), link(B, C)], expected: undefined },
    { name: 'only through storages that allow it', links: [link(A, C), link(C, B)], through: [D], expected: undefined },
    {
      name: 'a source need not allow it',
      links: [link(A, C), link(C, B)],
      through: [],
      sources: [C],
      expected: [C, B],
    },
    {
      name: 'the shortest by distance',
      links: [link(A, C, 5), link(C, B, 5), link(A, D, 4), link(D, B, 5)],
      expected: [A, D, B],
    },
    {
      name: 'from the nearest source',
      links: [link(A, C, 9), link(E, C, 1), link(C, B)],
      sources: [A, E],
      expected: [E, C, B],
    },
    {
      name: 'a hop is worth its penalty, not more',
      links: [link(A, B, HOP_PENALTY + 3), link(A, C), link(C, B)],
      expected: [A, C, B],
    },
    {
      name: 'of equally cheap ways that of fewer hops',
      links: [link(A, B, HOP_PENALTY + 2), link(A, C), link(C, B)],
      expected: [A, B],
    },
    {
      name: 'of two alike that of smaller keys, whatever the order of links',
      links: [link(D, B), link(A, D), link(C, B), link(A, C)],
      expected: [A, C, B],
    },
    {
      name: 'not on a link that is closed for it',
      links: [link(A, C), link(C, B), link(A, D, 9), link(D, B, 9)],
      closed: [linkKey(A, C)],
      expected: [A, D, B],
    },
    {
      name: 'on a held link only where there is no other way, however long',
      links: [link(A, C, 1, true), link(C, B), link(A, D, 1000), link(D, E, 1000), link(E, B, 1000)],
      expected: [A, D, E, B],
    },
    { name: 'on a held link rather than not', links: [link(A, C, 1, true), link(C, B)], expected: [A, C, B] },
    {
      name: `over at most ${MOST_LINKS} links`,
      links: [link(A, C), link(C, D), link(D, E), link(E, F), link(F, B)],
      expected: undefined,
    },
    {
      name: 'a longer way where the bound cuts off the cheapest',
      links: [link(A, C), link(C, D), link(D, E), link(E, F), link(F, B), link(A, G, 500), link(G, B, 500)],
      expected: [A, G, B],
    },
    { name: 'from nowhere', links: [link(A, B)], sources: [], expected: undefined },
  ]

  for (const { name, links, through = [C, D, E, F, G], sources = [A], closed = [], expected } of cases) {
    it(name, () => {
      const path = shortestPath({ links, through: new Set(through) }, sources, B, new Set(closed))
      expect(path?.storages).to.deep.equal(expected)
    })
  }

  it('tells what it costs, and whether something on it is held', () => {
    const network = { links: [link(A, C, 2, true), link(C, B, 3)], through: new Set([C]) }
    const path = shortestPath(network, [A], B)
    expect(path).to.include({ cost: 5 + HOP_PENALTY + 1_000_000, held: true })
  })

  it('is the best of all there are, whatever the order in which links are told', () => {
    const storage = fc.integer({ min: 1, max: 7 })
    const anyLink = fc.record({
      from: storage,
      to: storage,
      distance: fc.integer({ min: 1, max: 30 }),
      held: fc.boolean(),
    })
    const unique = (links: NetworkLink[]): NetworkLink[] => [
      ...new Map(links.filter(({ from, to }) => from !== to).map(one => [linkKey(one.from, one.to), one])).values(),
    ]
    fc.assert(
      fc.property(
        fc.array(anyLink, { maxLength: 30 }).map(unique),
        fc.uniqueArray(storage, { maxLength: 7 }),
        fc.uniqueArray(fc.constantFrom(A, C, D, E, F, G), { maxLength: 3 }),
        fc.array(fc.tuple(storage, storage), { maxLength: 4 }),
        (links, allowed, sources, shut) => {
          const through = new Set(allowed)
          const closed = new Set(shut.map(([from, to]) => linkKey(from, to)))
          const found = shortestPath({ links, through }, sources, B, closed)
          const open = links.filter(({ from, to }) => !closed.has(linkKey(from, to)))
          const all = sources.flatMap(source => waysFrom(open, through, [source]))
          const [best] = all.sort(compare)
          expect(found?.storages).to.deep.equal(best?.storages)
          expect(found?.cost).to.equal(best?.cost)
          const again = shortestPath({ links: [...links].reverse(), through }, [...sources].reverse(), B, closed)
          expect(again).to.deep.equal(found)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

interface Way {
  readonly storages: readonly number[]
  readonly cost: number
}

/** By trying: all ways without a circle. */
function waysFrom(
  links: readonly NetworkLink[],
  through: ReadonlySet<number>,
  storages: readonly number[],
  cost = 0,
): Way[] {
  const last = storages.at(-1)
  if (last === B) return [{ storages, cost }]
  if (storages.length > MOST_LINKS || (storages.length > 1 && !through.has(last ?? 0))) return []
  return links
    .filter(({ from, to }) => from === last && !storages.includes(to))
    .flatMap(({ to, distance, held }) => {
      const penalty = storages.length > 1 ? HOP_PENALTY : 0
      return waysFrom(links, through, [...storages, to], cost + distance + penalty + (held ? 1_000_000 : 0))
    })
}

function compare(a: Way, b: Way): number {
  if (a.cost !== b.cost) return a.cost - b.cost
  if (a.storages.length !== b.storages.length) return a.storages.length - b.storages.length
  const differs = a.storages.findIndex((storage, i) => storage !== b.storages[i])
  return (a.storages[differs] ?? 0) - (b.storages[differs] ?? 0)
}
