import { expect } from 'chai'
import fc from 'fast-check'
import { type Limit, Quota, type Usage } from '../../server/accounts/quota.ts'

const RSES = [
  { id: 1, name: 'A', attributes: { tier: 1 } },
  { id: 2, name: 'B', attributes: { tier: 1 } },
  { id: 3, name: 'C', attributes: { tier: 2 } },
]
const own = (expression: string, bytes: number | null): Limit => ({ own: true, expression, bytes })
const common = (expression: string, bytes: number | null): Limit => ({ own: false, expression, bytes })

const TABLE: readonly { what: string; limits: Limit[]; usage?: Usage[]; left: readonly number[] }[] = [
  { what: 'nothing is limited where nobody says so', limits: [], left: [Infinity, Infinity, Infinity] },
  { what: 'a limit of one storage', limits: [own('A', 10)], left: [10, Infinity, Infinity] },
  {
    what: 'what is locked and what is reserved count',
    limits: [own('A', 10)],
    usage: [{ rse_id: 1, bytes: 3, reserved: 4 }],
    left: [3, Infinity, Infinity],
  },
  {
    what: 'a global limit is of all that its expression names together',
    limits: [own('tier=1', 10)],
    usage: [
      { rse_id: 1, bytes: 3, reserved: 0 },
      { rse_id: 2, bytes: 4, reserved: 0 },
      { rse_id: 3, bytes: 100, reserved: 0 },
    ],
    left: [3, 3, Infinity],
  },
  {
    what: 'of several limits the least counts',
    limits: [own('tier=1', 10), own('A', 2), own('*', 1000)],
    left: [2, 10, 1000],
  },
  {
    what: 'below 0, where a limit came after the locks',
    limits: [own('A', 10)],
    usage: [{ rse_id: 1, bytes: 30, reserved: 0 }],
    left: [-20, Infinity, Infinity],
  },
  { what: 'no limit of its own means 0, where the VO says so', limits: [common('*', 0), own('B', 5)], left: [0, 5, 0] },
  {
    what: 'a limit of its own that is none opens what the VO has closed',
    limits: [common('*', 0), own('B', null)],
    left: [0, Infinity, 0],
  },
  {
    what: 'what the VO gives everybody leaves out what the account has limits of its own for',
    limits: [common('*', 10), own('B', null)],
    usage: [{ rse_id: 2, bytes: 100, reserved: 0 }],
    left: [10, Infinity, 10],
  },
  {
    what: 'a limit of which all storages are gone holds nowhere',
    limits: [own('GONE', 1)],
    left: [Infinity, Infinity, Infinity],
  },
  {
    what: 'a limit of which one storage is gone holds at the others',
    limits: [own('A|GONE', 1), own('tier=1\\GONE', 5)],
    left: [1, 5, Infinity],
  },
]

describe('what an account may lock (facts/rules.md, "Quota")', () => {
  for (const { what, limits, usage = [], left } of TABLE) {
    it(what, () => {
      const quota = new Quota(limits, usage, RSES)
      expect(RSES.map(({ id }) => quota.left(id))).to.deep.equal(left)
    })
  }

  it('is what going through all limits says', () => {
    const ids = RSES.map(({ id }) => id)
    const limit = fc.record({
      own: fc.constant(true),
      expression: fc.constantFrom('A', 'B', 'A|B', 'tier=1', '*', 'C|A'),
      bytes: fc.integer({ min: 0, max: 20 }),
    })
    const uses = fc.tuple(
      ...ids.map(rse_id => fc.record({ rse_id: fc.constant(rse_id), bytes: fc.nat(9), reserved: fc.nat(3) })),
    )
    fc.assert(
      fc.property(
        fc.array(limit, { maxLength: 4 }),
        uses,
        fc.nat(8),
        fc.subarray(ids),
        (limits, usage, bytes, some) => {
          const quota = new Quota(limits, usage, RSES)
          const alone = limits.map(each => new Quota([each], usage, RSES))
          const least = ids.map(id => Math.min(Infinity, ...alone.map(one => one.left(id))))
          expect(ids.map(id => quota.left(id))).to.deep.equal(least)
          expect(quota.allows(some, bytes)).to.equal(alone.every(one => one.allows(some, bytes)))
          expect(quota.most(some, bytes)).to.be.at.most(Math.min(Infinity, ...alone.map(one => one.most(some, bytes))))
        },
      ),
    )
  })

  it('is less for all that a global limit names, once something is taken', () => {
    const quota = new Quota([own('tier=1', 10), own('A', 8)], [], RSES)
    quota.take(2, 4)
    expect([quota.left(1), quota.left(2)]).to.deep.equal([6, 6])
    quota.take(1, 6)
    expect([quota.left(1), quota.left(2)]).to.deep.equal([0, 0])
  })
})
