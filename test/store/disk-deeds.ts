import fc from 'fast-check'

export const STORAGES = ['A', 'B', 'C']
const which = fc.nat(40)
const rse = fc.constantFrom(...STORAGES)

/** What people, workers and storages do. Numbers pick one of what there is. */
export const deed = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('register' as const), at: rse, which: fc.option(which) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('rule' as const),
      which,
      expression: fc.constantFrom('A', 'B', 'C', 'A|B', 'B|C', 'A|B|C'),
      copies: fc.constantFrom(1, 1, 2),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('remove' as const), which }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('release' as const), which }) },
  // A worker finds that a good file is not what it should be: it has become so, or the storage errs.
  { weight: 3, arbitrary: fc.record({ do: fc.constant('find' as const), which, truly: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('lose' as const), which }) },
  // A person says so, of what is so.
  { weight: 2, arbitrary: fc.record({ do: fc.constant('declare' as const), which }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('copy' as const), works: fc.boolean() }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('claim' as const) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('tell' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 61, 4_000, 30_000) }),
  },
)
export type DiskDeed = typeof deed extends fc.Arbitrary<infer T> ? T : never
