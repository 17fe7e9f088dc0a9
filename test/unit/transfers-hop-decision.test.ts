import { expect } from 'chai'
import {
  decideHop,
  decideStranded,
  HOP_MS,
  type HopFacts,
  MOST_TRIES,
  pathFinder,
  type Stranded,
  withoutCircles,
} from '../../server/transfers/hop-decision.ts'
import { linkKey, type NetworkLink } from '../../server/transfers/path.ts'

const [A, B, C, D] = [1, 2, 3, 4]
const NOW = 10 * HOP_MS

/** Over C, or farther over D. */
const LINKS: readonly NetworkLink[] = [
  { from: A, to: C, distance: 1, held: false },
  { from: C, to: B, distance: 1, held: false },
  { from: A, to: D, distance: 5, held: false },
  { from: D, to: B, distance: 5, held: false },
]
const STRANDED: Stranded = {
  destination: B,
  sources: [A],
  refused: false,
  tried: 0,
  failed: false,
  closed: [],
  pending: [],
}
const queued = (storage: number) => ({ storage, state: 'QUEUED' as const })
const AC = linkKey(A, C)
const AD = linkKey(A, D)

describe('how a transfer without a source gets on', () => {
  const held = LINKS.map(link => ({ ...link, held: link.to === C }))
  const allHeld = LINKS.map(link => ({ ...link, held: link.from === A }))
  const onlyD = LINKS.filter(link => link.to !== C)
  const over = (storage: number) => ({ type: 'hop', storage })
  const cases: readonly (readonly [string, Partial<Stranded>, object, (readonly NetworkLink[])?])[] = [
    ['over the nearest way', {}, over(C)],
    ['not over what fails now', {}, over(D), held],
    ['over what fails now rather than not at all', {}, over(C), allHeld],
    ['around a hop that failed', { failed: true, tried: 1, closed: [AC] }, over(D)],
    ['nowhere without a source', { sources: [] }, { type: 'none' }],
    ['nowhere without a way', {}, { type: 'none' }, []],
    [
      'never over a direct link: it was refused there',
      {},
      { type: 'none' },
      [{ from: A, to: B, distance: 1, held: false }],
    ],
    ['it waits for what is on its way', { tried: 1, pending: [queued(C)] }, { type: 'wait' }],
    ['it leaves a way that fails now', { tried: 1, pending: [queued(C)] }, over(D), held],
    ['it leaves a way that is closed', { tried: 1, pending: [queued(C)] }, over(D), onlyD],
    [
      'it waits for what is under way there',
      { tried: 1, pending: [{ storage: C, state: 'COPYING' }] },
      { type: 'wait' },
      onlyD,
    ],
    [
      'it waits for what is recalled from tape',
      { tried: 1, pending: [{ storage: C, state: 'STAGING' }] },
      { type: 'wait' },
      held,
    ],
    ['it leaves nothing for a way that fails too', { tried: 1, pending: [queued(C)] }, { type: 'wait' }, allHeld],
    ['it gives up what has no way any more', { tried: 1, pending: [queued(C)] }, { type: 'none' }, []],
    ['it fails when all ways have', { failed: true, tried: 2, closed: [AC, AD] }, { type: 'give-up' }],
    [
      'it asks a source that refused it when all ways have failed',
      { failed: true, refused: true, tried: 2, closed: [AC, AD] },
      { type: 'none' },
    ],
    ['it fails after many tries', { tried: MOST_TRIES }, { type: 'give-up' }],
    ['it asks a source that refused it after many tries', { tried: MOST_TRIES, refused: true }, { type: 'none' }],
    ['its last try is waited for', { tried: MOST_TRIES, pending: [queued(C)] }, { type: 'wait' }, held],
  ]
  for (const [name, facts, expected, links = LINKS] of cases) {
    it(name, () => {
      const network = { links, through: new Set([C, D]) }
      expect(decideStranded(network, pathFinder(network), { ...STRANDED, ...facts })).to.deep.equal(expected)
    })
  }
})

describe('who waits for whom', () => {
  const waits = (...pairs: readonly (readonly [transfer: number, carrier: number])[]) =>
    pairs.map(([transfer, carrier]) => ({ transfer, carrier }))
  const cases: readonly (readonly [string, ReturnType<typeof waits>, ReturnType<typeof waits>, number])[] = [
    ['anybody for what waits for nobody', waits([1, 2], [3, 2]), waits(), 2],
    ['of two that would for each other the first', waits([1, 2], [2, 1]), waits(), 1],
    ['nobody for what waits for him', waits([1, 2]), waits([2, 1]), 0],
    ['nor by way of others', waits([1, 2]), waits([2, 3], [2, 4], [4, 5], [5, 1]), 0],
    ['anybody for what waits for others', waits([1, 2]), waits([2, 3], [3, 4]), 1],
    ['nobody for himself', waits([1, 1]), waits(), 0],
  ]
  for (const [name, wanted, known, free] of cases) {
    it(name, () => expect(withoutCircles(wanted, known)).to.deep.equal(wanted.slice(0, free)))
  }
})

describe('how long an intermediate replica is locked', () => {
  const soon = NOW + 5
  const keep = (until: number) => ({ type: 'keep', expiresAt: until, lookAt: until })
  const release = { type: 'release' }
  const hop: HopFacts = { parent: 'WAITING', carrier: 'QUEUED', there: false, expiresAt: soon, lookAt: soon }
  const there = { ...hop, there: true, carrier: 'DONE' as const }
  const cases: readonly (readonly [string, HopFacts, object])[] = [
    ['while it is on its way', hop, keep(soon)],
    ['not longer than a day', { ...hop, expiresAt: NOW }, release],
    ['longer while it is being brought', { ...hop, carrier: 'COPYING', expiresAt: NOW }, keep(NOW + HOP_MS)],
    ['not when it was given up for another', { ...hop, expiresAt: 0, lookAt: 0 }, release],
    ['not when what brings it has failed', { ...hop, carrier: 'FAILED', lookAt: 0 }, release],
    ['not when what brings it was cancelled', { ...hop, carrier: 'CANCELLED', lookAt: 0 }, release],
    ['not when it was brought, and lost', { ...hop, carrier: 'DONE', lookAt: 0 }, release],
    ['for a day from its arrival', { ...there, lookAt: 0 }, keep(NOW + HOP_MS)],
    ['until then', there, keep(soon)],
    ['not longer for who only waits', { ...there, expiresAt: NOW }, release],
    ['as long as it is queued from there', { ...there, expiresAt: NOW, parent: 'QUEUED' }, keep(NOW + HOP_MS)],
    ['as long as it is copied from there', { ...there, expiresAt: NOW, parent: 'COPYING' }, keep(NOW + HOP_MS)],
    ...(['DONE', 'FAILED', 'CANCELLED'] as const).map(
      parent => [`not for what is ${parent}`, { ...there, parent, lookAt: 0 }, release] as const,
    ),
  ]
  for (const [name, facts, expected] of cases) {
    it(name, () => expect(decideHop(facts, NOW)).to.deep.equal(expected))
  }
})
