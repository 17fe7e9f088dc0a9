import { expect } from 'chai'
import { type ActivityLoad, byPriority, shareOut } from '../../server/transfers/shares.ts'

interface Row {
  readonly what: string
  readonly places: number
  /** Weight, active, served at. */
  readonly work: readonly (readonly [weight: number, active: number, servedAt: number])[]
  /** Of each of the work, in its order. */
  readonly gives: readonly number[]
}

const ROWS: readonly Row[] = [
  { what: 'all to the only one', places: 7, work: [[1, 100, 9]], gives: [7] },
  {
    what: 'halves to equals',
    places: 6,
    work: [
      [1, 0, 1],
      [1, 0, 1],
    ],
    gives: [3, 3],
  },
  {
    what: 'by weight',
    places: 8,
    work: [
      [3, 0, 1],
      [1, 0, 1],
    ],
    gives: [6, 2],
  },
  {
    what: 'what was missing first',
    places: 6,
    work: [
      [1, 10, 1],
      [1, 6, 1],
    ],
    gives: [1, 5],
  },
  {
    what: 'nothing to who is far ahead',
    places: 5,
    work: [
      [1, 50, 1],
      [1, 0, 1],
    ],
    gives: [0, 5],
  },
  {
    what: 'a large share against a small one',
    places: 10,
    work: [
      [9, 900, 1],
      [1, 95, 1],
    ],
    gives: [4, 6],
  },
  {
    what: 'the only place to the smallest share, whatever its active',
    places: 1,
    work: [
      [10, 5, 1],
      [1, 1, 0],
    ],
    gives: [1, 0],
  },
  {
    what: 'the only place to the longest unserved of equals',
    places: 1,
    work: [
      [1, 2, 7],
      [1, 2, 5],
      [1, 2, 6],
    ],
    gives: [0, 1, 0],
  },
  { what: 'nothing where nothing is free', places: 0, work: [[1, 0, 1]], gives: [0] },
  { what: 'nothing where nobody wants any', places: 5, work: [], gives: [] },
]

function loadsOf(work: Row['work']): ActivityLoad[] {
  return work.map(([weight, active, servedAt], i) => ({
    voId: 1,
    activity: `a${i}`,
    priority: 3,
    weight,
    active,
    servedAt,
  }))
}

describe('the places of a claim are shared between activities', () => {
  for (const { what, places, work, gives } of ROWS) {
    it(what, () => {
      const loads = loadsOf(work)
      const given = new Map(shareOut(places, loads).map(({ load, places: its }) => [load, its]))
      expect(loads.map(load => given.get(load) ?? 0)).to.deep.equal(gives)
    })
  }

  it('in the order of who is next, for a claim may not come to the last', () => {
    const [behind, ahead] = loadsOf([
      [1, 9, 2],
      [1, 8, 1],
    ]).reverse()
    expect(
      shareOut(
        5,
        [ahead, behind].flatMap(load => load ?? []),
      ).map(({ load }) => load),
    ).to.deep.equal([behind, ahead])
  })

  it('and so in the long run everybody has a share of its weight, claim by claim', () => {
    const active = [0, 0, 0]
    const weights = [5, 3, 2]
    for (let claim = 0; claim < 100; claim += 1) {
      const loads = loadsOf(weights.map((weight, i) => [weight, active[i] ?? 0, 0]))
      for (const { load, places } of shareOut(1 + (claim % 3), loads)) {
        const i = loads.indexOf(load)
        active[i] = (active[i] ?? 0) + places
      }
    }
    const all = active.reduce((sum, each) => sum + each, 0)
    for (const [i, weight] of weights.entries()) expect(active[i]).to.be.closeTo((all * weight) / 10, 1)
  })

  it('after all work of a higher priority', () => {
    const [a, b, c] = loadsOf([
      [1, 0, 0],
      [1, 0, 0],
      [1, 0, 0],
    ])
    if (a === undefined || b === undefined || c === undefined) throw new Error('three were made')
    const work = [a, { ...b, priority: 5 }, { ...c, priority: 5 }]
    expect(byPriority(work)).to.deep.equal([[work[1], work[2]], [work[0]]])
  })
})
