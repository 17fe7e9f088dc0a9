import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { grouped, type RuleStanding, ruleSentence } from '../../server/rules/why.ts'
import { why } from '../../server/transfers/why.ts'
import type {
  GrantFacts,
  HoldFacts,
  LinkFacts,
  ReplicaFacts,
  StorageFacts,
  WhyFacts,
} from '../../server/transfers/why-facts.ts'
import { WHY_CODES } from '../../shared/domain/why-codes.ts'
import { PROJECT } from './layers.ts'

const NOW = 1_000_000
const LATER = NOW + 60_000

const OPEN: Omit<StorageFacts, 'name'> = {
  isReadable: true,
  isWritable: true,
  inbound: 0,
  maxInbound: 5,
  outbound: 0,
  maxOutbound: 7,
}
const A: StorageFacts = { ...OPEN, name: 'A' }
const B: StorageFacts = { ...OPEN, name: 'B' }
const LINK: LinkFacts = { distance: 1, active: 0, limit: 60, maxActive: 60, hold: undefined }
const GRANT: GrantFacts = { id: 1, state: 'LIVE', error: null, notBefore: 0, isUsable: true, isLongLived: true }
const HOLD: HoldFacts = { since: 7, heldUntil: LATER, successes: 0, code: 'STORAGE_ERROR', message: '500' }
const FULL = { ...HOLD, code: 'DESTINATION_FULL', message: 'no space left', room: 0 }
const TAPE = { isAsked: true, since: 5, error: 'busy', next: LATER }
const HOLDER = { worker: 'node1', claimedAt: 5, isAlive: true }
const ERROR = { code: 'STORAGE_ERROR', message: '500' }

/** Queued, with nothing in its way. */
const FREE: WhyFacts = {
  sources: undefined,
  tape: undefined,
  way: undefined,
  now: NOW,
  state: 'QUEUED',
  attempts: 0,
  notBefore: 0,
  bytes: 100,
  bytesDone: 40,
  cancelRequested: false,
  updatedAt: 9,
  lastError: undefined,
  destination: B,
  source: A,
  link: LINK,
  destinationHold: undefined,
  grants: { source: GRANT, destination: { ...GRANT, id: 2 } },
  permit: undefined,
  replicas: {
    total: 1,
    some: [{ storage: 'A', state: 'AVAILABLE', isReadable: true, isLinked: true, isAllowed: true }],
  },
  queue: { counted: 100, urgent: 0, before: 0, isFarBack: false },
  workers: { alive: 3, drained: 1, serving: 2, busy: 12 },
  holder: undefined,
}
const WAITING: WhyFacts = { ...FREE, state: 'WAITING', source: undefined, link: undefined }
const NO_ONE = { alive: 0, drained: 0, serving: 0, busy: 0 }
const grant = (change: Partial<GrantFacts>) => ({ grants: { source: { ...GRANT, ...change }, destination: GRANT } })
const queue = (change: Partial<WhyFacts['queue']>) => ({ queue: { ...FREE.queue, ...change } })
const link = (change: Partial<LinkFacts>) => ({ link: { ...LINK, ...change } })

type Row = [code: string, facts: WhyFacts, figures: object, words: string, again?: number]
const CASES: readonly Row[] = [
  ['FINISHED', { ...FREE, state: 'DONE' }, { since: 9, attempts: 0, bytes: 100 }, 'it is done'],
  ['FAILED', { ...FREE, state: 'FAILED', lastError: ERROR }, { error: 'STORAGE_ERROR' }, '(STORAGE_ERROR: 500)'],
  ['CANCELLED', { ...FREE, state: 'CANCELLED' }, { since: 9 }, 'nobody wants it'],
  ['MULTIHOP', { ...WAITING, way: { via: 'C', hop: 7 } }, { via: 'C', hop: 7 }, 'it goes over C: transfer 7 brings'],
  ['CLAIMED', { ...FREE, state: 'CLAIMED', holder: HOLDER }, { worker: 'node1', since: 5 }, 'node1 has it and begins'],
  ['COPYING', { ...FREE, state: 'COPYING', holder: HOLDER }, { bytes: 100, bytesDone: 40 }, 'node1 has it and copies'],
  [
    'COPYING',
    { ...FREE, state: 'COPYING', holder: { ...HOLDER, isAlive: false }, cancelRequested: true },
    { worker: 'node1' },
    'has not been heard of: it is taken from it within seconds; somebody asked to cancel it',
  ],
  ['STAGING', { ...FREE, state: 'STAGING' }, { source: 'A' }, 'is asked anew'],
  [
    'STAGING',
    { ...FREE, state: 'STAGING', tape: { ...TAPE, isAsked: false } },
    { source: 'A' },
    'will be asked',
    LATER,
  ],
  [
    'STAGING',
    { ...FREE, state: 'STAGING', tape: TAPE },
    { source: 'A', since: 5 },
    'was asked to bring it from tape (its last answer: busy)',
    LATER,
  ],
  ['ARCHIVING', { ...FREE, state: 'ARCHIVING', tape: TAPE }, { destination: 'B', since: 9 }, 'to tape', LATER],
  [
    'SETTLING',
    { ...FREE, state: 'SETTLING', holder: HOLDER },
    { worker: 'node1' },
    'nobody saw how it ended: the worker',
  ],
  ['SETTLING', { ...FREE, state: 'SETTLING', notBefore: LATER, lastError: ERROR }, {}, 'is unknown (STORAGE', LATER],
  ['SETTLING', { ...FREE, state: 'SETTLING' }, { destination: 'B' }, 'B is looked at before', NOW],
  ['NO_WORKER', { ...FREE, state: 'SETTLING', workers: NO_ONE }, { alive: 0 }, 'nobody can look: no worker that'],
  [
    'TOKEN_AWAITED',
    { ...FREE, state: 'SETTLING', grants: { source: undefined, destination: undefined } },
    { side: 'source' },
    'nobody can look: no token',
  ],

  ['DESTINATION_CLOSED', { ...WAITING, destination: { ...B, isWritable: false } }, {}, 'written to B: it waits', NOW],
  ['DESTINATION_CLOSED', { ...FREE, destination: { ...B, isWritable: false } }, {}, 'leaves the queue', NOW],
  ['SOURCE_CLOSED', { ...FREE, source: { ...A, isReadable: false } }, { source: 'A' }, 'A may not be read', NOW],
  ['LINK_CLOSED', { ...FREE, ...link({ distance: 0 }) }, { source: 'A', destination: 'B' }, 'no link from A to B', NOW],

  ['NO_SOURCE', { ...WAITING, notBefore: LATER, replicas: { total: 0, some: [] } }, { replicas: 0 }, 'no other', LATER],
  [
    'NO_SOURCE',
    {
      ...WAITING,
      replicas: {
        total: 9,
        some: [
          { storage: 'C', state: 'BAD', isReadable: true, isLinked: true, isAllowed: true },
          { storage: 'D', state: 'AVAILABLE', isReadable: false, isLinked: true, isAllowed: true },
          { storage: 'E', state: 'AVAILABLE', isReadable: true, isLinked: false, isAllowed: true },
        ],
      },
    },
    { replicas: 9 },
    'at C it is BAD; D may not be read; E has no link to B; and 6 more',
    NOW,
  ],
  [
    'NO_ALLOWED_SOURCE',
    {
      ...WAITING,
      sources: 'C|D',
      replicas: {
        total: 2,
        some: [
          { storage: 'C', state: 'BAD', isReadable: true, isLinked: true, isAllowed: true },
          { storage: 'E', state: 'AVAILABLE', isReadable: true, isLinked: true, isAllowed: false },
        ],
      },
    },
    { replicas: 2, sources: 'C|D' },
    'none of the storages that its rule names as sources (C|D) can give it: at C it is BAD; E has one, and is none of them',
    NOW,
  ],
  [
    'BACKOFF',
    { ...WAITING, notBefore: LATER, attempts: 2, lastError: ERROR },
    { attempts: 2, error: 'STORAGE_ERROR' },
    'failed (STORAGE_ERROR: 500)',
    LATER,
  ],
  ['BACKOFF', { ...WAITING, notBefore: LATER }, { attempts: 0 }, 'it has a source again', LATER],
  ['UNPLANNED', WAITING, { replicas: 1 }, 'within seconds', NOW],

  ['NO_WORKER', { ...FREE, workers: NO_ONE }, { alive: 0 }, 'no worker that serves its VO is there'],
  [
    'NO_WORKER',
    { ...FREE, workers: { ...NO_ONE, alive: 2, drained: 2 } },
    { drained: 2 },
    'all workers that serve its VO are drained',
  ],
  ['NO_WORKER', { ...FREE, workers: { ...NO_ONE, alive: 3, drained: 1 } }, { serving: 0 }, 'none of the 2 workers'],

  ['STORAGE_FULL', { ...FREE, destinationHold: FULL }, { storage: 'B', since: 7 }, 'B is full (no space left)', LATER],
  ['ENDPOINT_HELD', { ...FREE, destinationHold: { ...HOLD, room: 0 } }, { storage: 'B' }, 'B fails (STORAGE', LATER],
  ['ENDPOINT_HELD', { ...FREE, ...link({ hold: HOLD, limit: 0 }) }, { storage: 'A' }, 'A fails', LATER],

  [
    'TOKEN_REFUSED',
    { ...FREE, ...grant({ state: 'HELD', error: 'no', notBefore: LATER }) },
    { grant: 1 },
    '(no)',
    LATER,
  ],
  ['TOKEN_REFUSED', { ...FREE, ...grant({ state: 'REVOKED' }) }, { side: 'source', storage: 'A' }, 'A is revoked'],
  [
    'TOKEN_AWAITED',
    { ...FREE, grants: { source: GRANT, destination: undefined } },
    { side: 'destination' },
    'asked for',
  ],
  [
    'TOKEN_AWAITED',
    { ...FREE, ...grant({ state: 'WANTED', isUsable: false, error: 'ISSUER_BUSY: 503', notBefore: LATER }) },
    { state: 'WANTED' },
    'from the issuer (ISSUER_BUSY: 503)',
    LATER,
  ],
  ['TOKEN_AWAITED', { ...FREE, ...grant({ state: 'RENEWING', isUsable: false }) }, {}, 'waits for a worker'],
  ['TOKEN_AWAITED', { ...FREE, ...grant({ isLongLived: false }) }, {}, 'ends soon'],

  [
    'PATH_BEING_CLEANED',
    { ...FREE, permit: { until: LATER, isPersons: false } },
    { destination: 'B' },
    'a worker may still remove',
    LATER,
  ],
  ['PATH_RESERVED', { ...FREE, permit: { until: LATER, isPersons: true } }, {}, 'somebody has leave', LATER],

  [
    'ON_TRIAL',
    { ...FREE, destinationHold: { ...FULL, heldUntil: NOW, successes: 3 } },
    { storage: 'B', done: 3 },
    'tried by a few files',
  ],
  [
    'ON_TRIAL',
    { ...FREE, ...link({ hold: { ...HOLD, heldUntil: NOW }, limit: 1, active: 1 }) },
    { storage: 'A', active: 1 },
    'A has failed',
  ],
  ['LOWER_PRIORITY', { ...FREE, ...queue({ urgent: 100 }) }, { urgent: 100 }, '100 or more of a higher priority are'],
  ['LOWER_PRIORITY', { ...FREE, ...queue({ urgent: 1 }) }, { urgent: 1 }, '1 of a higher priority is'],
  [
    'STORAGE_LIMIT_IN',
    { ...FREE, destination: { ...B, inbound: 5 }, ...queue({ before: 3 }) },
    { active: 5, limit: 5, before: 3 },
    'B takes 5 now, and 5 at most: it waits until one of them ends, with 3 before it',
  ],
  ['STORAGE_LIMIT_OUT', { ...FREE, source: { ...A, outbound: 7 } }, { active: 7, limit: 7 }, 'A gives 7 now'],
  ['LINK_LIMIT', { ...FREE, ...link({ active: 60 }) }, { active: 60, limit: 60, before: 0 }, 'its link carries 60 now'],
  ['LINK_LIMIT', { ...FREE, ...link({ limit: 0, maxActive: 0 }) }, { limit: 0 }, 'its limit is 0'],
  [
    'QUEUE_POSITION',
    { ...FREE, ...queue({ before: 1 }) },
    { before: 1, limit: 60 },
    '1 of the same priority is before',
  ],
  ['CLAIMABLE', FREE, { workers: 2, busy: 12 }, 'nothing is in its way'],
]

describe('why a transfer waits', () => {
  for (const [code, facts, figures, words, again] of CASES) {
    it(`${code}: ... ${words} ...`, () => {
      const answer = why(facts)
      expect(answer.code).to.equal(code)
      expect(answer.sentence).to.contain(words)
      expect(answer.figures).to.deep.include(figures)
      expect(answer.again).to.equal(again)
    })
  }

  it('every code is said by one of these cases', () => {
    expect(new Set(CASES.map(([code]) => code))).to.deep.equal(new Set(Object.keys(WHY_CODES)))
  })

  it('every code stands in the manual, with what it means', () => {
    const manual = readFileSync(`${PROJECT}docs/operations.md`, 'utf8').replace(/ +/g, ' ')
    for (const [code, meaning] of Object.entries(WHY_CODES)) expect(manual).to.contain(`| \`${code}\` | ${meaning} |`)
  })
})

describe('of several things in the way', () => {
  /** Each is in the way by itself; together the first of those that are left is named. */
  const ways: [code: string, change: Partial<WhyFacts>][] = [
    ['DESTINATION_CLOSED', { destination: { ...B, isWritable: false, inbound: 5 } }],
    ['SOURCE_CLOSED', { source: { ...A, isReadable: false } }],
    ['NO_WORKER', { workers: NO_ONE }],
    ['STORAGE_FULL', { destinationHold: FULL }],
    ['TOKEN_REFUSED', grant({ state: 'HELD' })],
    ['PATH_BEING_CLEANED', { permit: { until: LATER, isPersons: false } }],
    ['LOWER_PRIORITY', queue({ urgent: 4, before: 9 })],
    ['LINK_LIMIT', link({ active: 60 })],
  ]
  ways.forEach(([code], i) => {
    it(`${code} comes before what follows`, () => {
      const facts: WhyFacts = Object.assign({}, FREE, ...ways.slice(i).map(([, change]) => change))
      expect(why(facts).code).to.equal(code)
    })
  })

  const waiting: [string, Partial<WhyFacts>][] = [
    ['DESTINATION_CLOSED', { destination: { ...B, isWritable: false } }],
    ['NO_SOURCE', { replicas: { total: 0, some: [] } }],
    ['STORAGE_FULL', { destinationHold: { ...FULL, heldUntil: LATER + 1 } }],
    ['BACKOFF', { notBefore: LATER }],
  ]
  waiting.forEach(([code], i) => {
    it(`before it is queued ${code} comes before what follows`, () => {
      const facts: WhyFacts = Object.assign({}, WAITING, ...waiting.slice(i).map(([, change]) => change))
      expect(why(facts).code).to.equal(code)
    })
  })

  it('a hold that ends before the backoff is none of its business', () =>
    expect(why({ ...WAITING, notBefore: LATER, destinationHold: FULL }).code).to.equal('BACKOFF'))

  const AFTER = LATER + 1
  const held = { state: 'HELD', notBefore: AFTER } as const
  const refusing = { source: GRANT, destination: { ...GRANT, ...held } }
  const twoSources = {
    total: 2,
    some: ['A', 'C'].map(storage => ({ ...FREE.replicas.some[0], storage })) as ReplicaFacts[],
  }
  const outlasting: [string, Partial<WhyFacts>, string, number | undefined][] = [
    ['a refused token', { grants: refusing }, 'TOKEN_REFUSED', AFTER],
    [
      'not one whose hold ends before',
      { grants: { ...refusing, destination: { ...GRANT, state: 'HELD', notBefore: LATER } } },
      'BACKOFF',
      LATER,
    ],
    [
      'an issuer that fails',
      { grants: { source: GRANT, destination: { ...GRANT, state: 'WANTED', isUsable: false, notBefore: AFTER } } },
      'TOKEN_AWAITED',
      AFTER,
    ],
    ['what may still be removed there', { permit: { until: AFTER, isPersons: false } }, 'PATH_BEING_CLEANED', AFTER],
    ['that no worker is there', { workers: NO_ONE }, 'NO_WORKER', undefined],
    ['its only source that fails', { ...link({ hold: { ...HOLD, heldUntil: AFTER } }) }, 'ENDPOINT_HELD', AFTER],
    ['the refused token for it', grant(held), 'TOKEN_REFUSED', AFTER],
    [
      'not those of a source beside which there is another',
      { replicas: twoSources, ...grant(held), ...link({ hold: { ...HOLD, heldUntil: AFTER } }) },
      'BACKOFF',
      LATER,
    ],
    ['but the destination’s', { replicas: twoSources, grants: refusing }, 'TOKEN_REFUSED', AFTER],
  ]
  for (const [what, change, code, again] of outlasting) {
    it(`what outlasts the backoff is named: ${what}`, () => {
      const answer = why({ ...FREE, state: 'WAITING', notBefore: LATER, attempts: 1, ...change })
      expect([answer.code, answer.again]).to.deep.equal([code, again])
    })
  }

  it('where so much is ready that no token is asked for yet, the queue is what it waits for', () => {
    const grants = { source: undefined, destination: undefined }
    expect(why({ ...FREE, grants, ...queue({ before: 100, isFarBack: true }) }).code).to.equal('QUEUE_POSITION')
  })
  it('also when all of that was served after it came', () => {
    const answer = why({
      ...FREE,
      grants: { source: undefined, destination: undefined },
      ...queue({ isFarBack: true }),
    })
    expect(answer.code).to.equal('QUEUE_POSITION')
    expect(answer.sentence).to.contain('none were asked for it yet')
  })
  it('a link that is at its own limit is not on trial, though its source was', () =>
    expect(why({ ...FREE, ...link({ hold: { ...HOLD, heldUntil: NOW }, active: 60 }) }).code).to.equal('LINK_LIMIT'))
})

describe('how a rule stands', () => {
  const RULE: RuleStanding = {
    state: 'REPLICATING',
    stage: 'EXPANDED',
    locks_ok: 1,
    locks_replicating: 2,
    locks_stuck: 0,
    problems: 0,
    error: null,
  }
  const stuck = { ...RULE, state: 'STUCK' as const, locks_stuck: 3, problems: 4, error: 'too few' }
  const cases: [RuleStanding, string][] = [
    [RULE, '2 of 3 files are not there yet'],
    [{ ...RULE, stage: 'CHOOSING' }, 'its storages are being chosen'],
    [{ ...RULE, stage: 'EXPANDING' }, 'its files are still being locked: 2 of 3 files are not there yet'],
    [{ ...RULE, state: 'OK', locks_replicating: 0 }, 'all its 1 files are there'],
    [stuck, 'it is stuck: too few; 3 of 6 files could not be copied; 4 files can have no lock; 2 are on their way'],
    [
      { ...stuck, error: null, problems: 0, locks_replicating: 1 },
      'it is stuck: 3 of 5 files could not be copied; 1 is on its way',
    ],
    [{ ...RULE, state: 'SUSPENDED' }, 'it is suspended: nothing is done for it'],
    [{ ...RULE, state: 'WAITING_APPROVAL' }, 'it waits until somebody approves it'],
    [{ ...RULE, state: 'INJECT' }, 'it is being made'],
  ]
  for (const [rule, sentence] of cases) it(sentence, () => expect(ruleSentence(rule)).to.equal(sentence))

  it('tells of what is deleted before it is copied anew', () => {
    expect(ruleSentence(RULE, 2)).to.equal(
      '2 of 3 files are not there yet; at the places of 2 what lies there is deleted first',
    )
  })

  it('its files are counted by what they wait for, and on which way', () => {
    const file = (id: number, code: string, source: string | undefined, destination = 'B') => ({
      id,
      code,
      source,
      destination,
    })
    const files = [
      file(1, 'X', 'A'),
      file(2, 'Y', 'A'),
      file(3, 'Y', 'A'),
      file(4, 'X', undefined),
      file(5, 'X', 'A', 'C'),
    ]
    expect(grouped(files).map(({ example, count }) => [example.id, count])).to.deep.equal([
      [2, 2],
      [1, 1],
      [4, 1],
      [5, 1],
    ])
  })
})
