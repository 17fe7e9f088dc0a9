import { expect } from 'chai'
import { type LinkLoad, type Sharer, type StorageLoad, schedule } from '../../server/transfers/schedule.ts'

const BASE: LinkLoad = { id: 1, sourceId: 1, destinationId: 9, weight: 1, maxActive: 1_000, active: 0, servedAt: 0 }
const WIDE: StorageLoad = { outbound: 0, maxOutbound: 1_000, inbound: 0, maxInbound: 1_000 }

/** Links from sources of their own into one storage, unless they say otherwise. */
function linksOf(...changes: readonly Partial<LinkLoad>[]): LinkLoad[] {
  return changes.map((change, i) => ({ ...BASE, id: i + 1, sourceId: i + 1, ...change }))
}

function scheduled(links: readonly LinkLoad[], target: Partial<StorageLoad> = {}, sharers: readonly Sharer[] = links) {
  const storages = new Map(links.map(({ sourceId }) => [sourceId, WIDE]))
  storages.set(9, { ...WIDE, ...target })
  return schedule(links, storages, sharers).map(({ id, most }) => [id, most])
}

describe('the links to be served', () => {
  it('come by their active-to-weight share, and by the longest unserved on ties', () => {
    const links = linksOf(
      { active: 3 },
      { active: 6, weight: 3 },
      { active: 2, servedAt: 8 },
      { active: 2, servedAt: 7 },
    )
    expect(scheduled(links).map(([id]) => id)).to.deep.equal([2, 4, 3, 1])
  })

  it('are those with room', () => {
    expect(scheduled(linksOf({ active: 5, maxActive: 5 }, {})).map(([id]) => id)).to.deep.equal([2])
    expect(scheduled(linksOf({}, {}), { inbound: 1_000 })).to.deep.equal([])
  })

  for (const { what, links, target, most } of [
    { what: 'all places alone', links: linksOf({}), target: { maxInbound: 12 }, most: [12] },
    { what: 'its half beside another', links: linksOf({}, {}), target: { maxInbound: 12 }, most: [6, 6] },
    { what: 'its weight', links: linksOf({ weight: 3 }, {}), target: { maxInbound: 12 }, most: [9, 3] },
    {
      what: 'what its share lacks',
      links: linksOf({ active: 5 }, {}),
      target: { maxInbound: 12, inbound: 11 },
      most: [1, 6],
    },
    {
      what: 'its share of what others leave',
      links: linksOf({ active: 6 }, {}),
      target: { maxInbound: 12, inbound: 6 },
      most: [3, 6],
    },
    {
      what: 'one at least',
      links: linksOf({ active: 11 }, { active: 1, maxActive: 1 }),
      target: { maxInbound: 14, inbound: 12 },
      most: [1],
    },
    {
      what: 'no less for links elsewhere',
      links: linksOf({}, { destinationId: 8 }),
      target: { maxInbound: 12 },
      most: [12],
    },
  ] as const) {
    it(`of a shared storage a claim takes ${what}`, () => {
      const found = new Map(scheduled(links, target).map(([id = 0, count = 0]) => [id, count]))
      expect(links.flatMap(({ id }) => found.get(id) ?? [])).to.deep.equal(most)
    })
  }

  it('share the source as well', () => {
    const links = linksOf({}, { sourceId: 1, destinationId: 8 })
    const storages = new Map([
      [1, { ...WIDE, maxOutbound: 10 }],
      [8, WIDE],
      [9, WIDE],
    ])
    expect(schedule(links, storages, links).map(({ most }) => most)).to.deep.equal([5, 5])
  })

  it('share with those that another worker serves', () => {
    const [own, other] = linksOf({}, {})
    if (own === undefined || other === undefined) throw new Error('two were made')
    expect(scheduled([own], { maxInbound: 10 }, [own, other])).to.deep.equal([[1, 5]])
  })
})
