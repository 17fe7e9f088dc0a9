import { expect } from 'chai'
import { type Candidate, type Selection, selectRses } from '../../server/rules/select.ts'

/** A storage that can take anything. */
function rse(rseId: number, facts: Partial<Candidate> = {}): Candidate {
  const plain = { writable: true, bytesHeld: 0, bytesComing: 0, weight: 1, quotaLeft: Infinity, spaceLeft: Infinity }
  return { rseId, ...plain, ...facts }
}

const TABLE: readonly {
  what: string
  candidates: readonly Candidate[]
  chosen?: readonly number[]
  copies?: number
  expected: Selection
}[] = [
  { what: 'takes no more than asked for', candidates: [rse(1)], chosen: [1], expected: { added: [], leftOut: [] } },
  {
    what: 'keeps what was chosen before, and adds what is missing',
    candidates: [rse(1), rse(2, { bytesHeld: 100 })],
    chosen: [1],
    copies: 2,
    expected: { added: [2], leftOut: [] },
  },
  {
    what: 'prefers who holds most of the bytes',
    candidates: [rse(1, { bytesHeld: 10 }), rse(2, { bytesHeld: 60 }), rse(3, { bytesHeld: 30 })],
    copies: 3,
    expected: { added: [2, 3, 1], leftOut: [] },
  },
  {
    what: 'counts what is on its way there for another rule: bytes are moved once',
    candidates: [rse(1, { bytesHeld: 10 }), rse(2, { bytesComing: 100 })],
    expected: { added: [2], leftOut: [] },
  },
  {
    what: 'leaves out who cannot be written to',
    candidates: [rse(1, { writable: false }), rse(2)],
    copies: 2,
    expected: { added: [2], leftOut: [{ rseId: 1, why: 'NOT_WRITABLE' }] },
  },
  {
    what: 'lets who cannot be written to keep what it holds wholly, but not a part of it',
    candidates: [rse(1, { writable: false, bytesHeld: 100 }), rse(2, { writable: false, bytesHeld: 99 })],
    copies: 2,
    expected: { added: [1], leftOut: [{ rseId: 2, why: 'NOT_WRITABLE' }] },
  },
  {
    what: 'leaves out who has not got the weight that the rule names',
    candidates: [rse(1, { weight: 0 }), rse(2, { weight: -3 }), rse(3, { weight: 0.5 })],
    copies: 3,
    expected: {
      added: [3],
      leftOut: [
        { rseId: 1, why: 'NO_WEIGHT' },
        { rseId: 2, why: 'NO_WEIGHT' },
      ],
    },
  },
  {
    what: 'leaves out where the account may lock less, also of what is there already',
    candidates: [rse(1, { quotaLeft: 99 }), rse(2, { quotaLeft: 99, bytesHeld: 100 }), rse(3, { quotaLeft: 100 })],
    copies: 3,
    expected: {
      added: [3],
      leftOut: [
        { rseId: 1, why: 'QUOTA' },
        { rseId: 2, why: 'QUOTA' },
      ],
    },
  },
  {
    what: 'leaves out where there is no space for what would have to come',
    candidates: [
      rse(1, { spaceLeft: 99 }),
      rse(2, { spaceLeft: 40, bytesHeld: 60 }),
      rse(3, { spaceLeft: -5, bytesHeld: 100 }),
    ],
    copies: 3,
    expected: { added: [3, 2], leftOut: [{ rseId: 1, why: 'NO_SPACE' }] },
  },
  {
    what: 'names one reason for each: first what lies at the storage, then what lies at the account',
    candidates: [
      rse(1, { writable: false, weight: 0, quotaLeft: 0, spaceLeft: 0 }),
      rse(2, { quotaLeft: 0, spaceLeft: 0 }),
    ],
    expected: {
      added: [],
      leftOut: [
        { rseId: 1, why: 'NOT_WRITABLE' },
        { rseId: 2, why: 'QUOTA' },
      ],
    },
  },
]

describe('which storages a rule gets (facts/rules.md, "A rule")', () => {
  for (const { what, candidates, chosen = [], copies = 1, expected } of TABLE) {
    it(what, () => {
      expect(selectRses(candidates, new Set(chosen), { copies, bytes: 100 }, 'seed')).to.deep.equal(expected)
    })
  }

  const firstOf = (candidates: readonly Candidate[], seed: string): number | undefined =>
    selectRses(candidates, new Set(), { copies: 1, bytes: 100 }, seed).added[0]

  it('is the same for the same seed, in whatever order the storages are told', () => {
    const rses = Array.from({ length: 20 }, (_, i) => rse(i + 1))
    for (let seed = 0; seed < 100; seed += 1) {
      expect(firstOf([...rses].reverse(), `${seed}`)).to.equal(firstOf(rses, `${seed}`))
    }
  })

  it('is spread in proportion to the weights', () => {
    const rses = [rse(1, { weight: 1 }), rse(2, { weight: 2 }), rse(3, { weight: 7 })]
    const counts = [0, 0, 0]
    for (let seed = 0; seed < 10_000; seed += 1) {
      const index = (firstOf(rses, `${seed}`) ?? 0) - 1
      counts[index] = (counts[index] ?? 0) + 1
    }
    for (const [i, share] of [0.1, 0.2, 0.7].entries()) expect(counts[i]).to.be.closeTo(10_000 * share, 200)
  })

  it('moves no unit but those of a storage that goes', () => {
    const rses = Array.from({ length: 5 }, (_, i) => rse(i + 1))
    for (let seed = 0; seed < 1_000; seed += 1) {
      const before = firstOf(rses, `${seed}`)
      const after = firstOf(rses.slice(0, 4), `${seed}`)
      if (before !== 5) expect(after).to.equal(before)
    }
  })
})
