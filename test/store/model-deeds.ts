import fc from 'fast-check'

export const STORAGES = ['A', 'B', 'C', 'D']
const ACCOUNTS = ['someone', 'other']
const EXPRESSIONS = ['A', 'B', 'C', 'A|B', 'B|C', 'C|D', 'B|C|D', 'A|B|C|D']

const which = fc.nat(60)
const rse = fc.constantFrom(...STORAGES)
const expression = fc.constantFrom(...EXPRESSIONS)
const account = fc.constantFrom(...ACCOUNTS)

/** What people, workers and storages do. Numbers pick one of what there is. */
const deed = fc.oneof(
  fc.record({ do: fc.constant('make' as const), at: rse, files: fc.nat(3), parent: fc.option(which) }),
  { weight: 4, arbitrary: fc.record({ do: fc.constant('attach' as const), parent: which, child: which }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('detach' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('register' as const), file: which, at: rse }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('rule' as const),
      did: which,
      account,
      expression,
      copies: fc.constantFrom(1, 1, 2, 3),
      grouping: fc.constantFrom('ALL' as const, 'DATASET' as const, 'NONE' as const),
      lifetime: fc.option(fc.constantFrom(60, 30_000), { freq: 3 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('remove' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('reduce' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('move' as const), which, expression }) },
  fc.record({ do: fc.constant('lifetime' as const), which, seconds: fc.constantFrom(null, 0, 60, 30_000) }),
  { weight: 2, arbitrary: fc.record({ do: fc.constant('suspend' as const), which, suspended: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lock' as const), which, locked: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('limit' as const),
      account: fc.option(account, { freq: 3 }),
      expression,
      bytes: fc.constantFrom('none', 'without', 0, 40, 100, 300),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('write' as const), at: rse, open: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('claim' as const), limit: fc.integer({ min: 1, max: 9 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('report' as const),
      result: fc.constantFrom('done' as const, 'done' as const, 'failed' as const, 'again' as const),
      share: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('condemn' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lose' as const), which }) },
  fc.record({ do: fc.constant('repair' as const), which }),
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 61, 4000) }) },
)
export type Deed = typeof deed extends fc.Arbitrary<infer T> ? T : never

/** What background work does after it: nothing, so many transactions before it is cut off, or all that there is. */
const then = fc.oneof(
  { weight: 1, arbitrary: fc.constant('nothing' as const) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 6 }) },
  { weight: 4, arbitrary: fc.constant('all' as const) },
)
export const action = fc.record({ deed, then })
export type Action = typeof action extends fc.Arbitrary<infer T> ? T : never
