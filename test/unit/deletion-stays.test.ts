import { expect } from 'chai'
import { type StaysCode, staysFor, type UnlockedFacts } from '../../server/deletion/stays.ts'

/** A copy that a rule brought, with another one elsewhere. */
const FREE: UnlockedFacts = {
  state: 'AVAILABLE',
  kept: false,
  goodElsewhere: true,
  expendable: false,
  unconfirmed: false,
  asked: false,
  undecided: false,
  wanting: false,
  copying: false,
  uploading: false,
  inTask: false,
}
const LAST = { ...FREE, goodElsewhere: false }
const BAD = { ...FREE, state: 'BAD' } as const
const ONLY_BAD = { ...BAD, goodElsewhere: false }
const NOWHERE = { ...LAST, state: 'UNAVAILABLE' } as const

describe('a replica that no lock holds', () => {
  const cases: [string, UnlockedFacts, StaysCode | undefined][] = [
    ['that a rule brought goes', FREE, undefined],
    ['goes, though a rule asks for the file elsewhere', { ...FREE, asked: true }, undefined],
    ['goes, though it is the last one, when no rule asks for the file', LAST, undefined],
    ['is the last good copy of what a rule asks for', { ...LAST, asked: true }, 'LAST_COPY'],
    ['was registered there', { ...FREE, kept: true }, 'KEPT'],
    ['stays while a lock elsewhere is not OK', { ...FREE, asked: true, wanting: true }, 'WANTING'],
    ['stays while a rule on the file is worked out', { ...FREE, asked: true, undecided: true }, 'WANTING'],
    ['stays while the file is copied somewhere', { ...FREE, copying: true }, 'COPYING'],
    ['stays while somebody may be putting the file there', { ...NOWHERE, uploading: true }, 'UPLOADING'],
    ['stays while a worker is at it', { ...BAD, inTask: true }, 'IN_TASK'],
    ['and is BAD goes, when there is a good copy', { ...BAD, kept: true, asked: true, wanting: true }, undefined],
    ['and is BAD goes with the last rule', ONLY_BAD, undefined],
    ['and is BAD, as a worker found, goes where a rule brought it', { ...BAD, unconfirmed: true }, undefined],
    [
      'and is BAD, as a worker found, waits for a person where it was registered',
      { ...BAD, kept: true, unconfirmed: true },
      'UNCONFIRMED',
    ],
    [
      'and is BAD, as a worker found, goes when somebody says that it may',
      { ...BAD, kept: true, unconfirmed: true, expendable: true },
      undefined,
    ],
    ['and is BAD stays without a good copy while a rule asks', { ...ONLY_BAD, asked: true }, 'ONLY_BAD'],
    ['and is BAD stays without a good copy where it was registered', { ...ONLY_BAD, kept: true }, 'ONLY_BAD'],
    ['and is BAD goes when somebody says so', { ...ONLY_BAD, kept: true, asked: true, expendable: true }, undefined],
    ['and where nothing lies goes', { ...NOWHERE, asked: true, wanting: true }, undefined],
    [
      'and was registered, and lost, goes when there is a good copy',
      { ...NOWHERE, kept: true, goodElsewhere: true },
      undefined,
    ],
    ['and was registered, and lost with the last good copy, is not forgotten', { ...NOWHERE, kept: true }, 'ONLY_LOST'],
  ]
  for (const [what, facts, code] of cases) it(what, () => expect(staysFor(facts)).to.equal(code))
})
