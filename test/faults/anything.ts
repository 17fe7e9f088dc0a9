import fc from 'fast-check'
import type { Behaviour, Played } from '../../sandbox/main.ts'
import { CALLS } from './troubled-line.ts'

/** What may happen, in any order. Numbers pick one of what there is; times are in seconds of the time that is made. */

const storage = fc.constantFrom('SITE-A', 'SITE-B', 'SITE-C')
const dataset = fc.nat(4)
const file = fc.nat(2)
const worker = fc.nat(2)
const seconds = fc.constantFrom(1, 2, 4, 8, 30, 70)

/** Single faults on top of what is played. */
const FAULTS = {
  'withholds outcomes': { withholdOutcome: true },
  'breaks GETs off': { breaksOff: { verb: 'GET', afterBytes: 700, by: 'closing' } },
  'stalls GETs': { breaksOff: { verb: 'GET', afterBytes: 700, by: 'stalling' } },
  'breaks PUTs off': { breaksOff: { verb: 'PUT', afterBytes: 700, by: 'closing' } },
  'is full': { full: 'at-open' },
  'fills up': { full: 'while-writing' },
  'tells other checksums': { strayChecksums: 3 },
  'answers late': { lateHeaders: true },
  'goes on alone': { afterDisconnect: 'go-on' },
  'is slow': { bytesPerSecond: 100 },
  'is slow and goes on': { bytesPerSecond: 100, afterDisconnect: 'go-on', lateHeaders: true },
  'leaves debris': { debris: true, inPlace: true },
  'talks nonsense': { nonsense: true },
  'cannot pull': { pull: false },
  'cannot push': { push: false },
  'has no checksums': { checksums: [] },
  'sends elsewhere': { redirect: { verbs: ['COPY', 'GET'], origin: 'https://elsewhere.example.org' } },
} satisfies Record<string, Partial<Behaviour>>
export type Fault = keyof typeof FAULTS
export const faultOf = (fault: Fault): Partial<Behaviour> => FAULTS[fault]

const PLAYED = ['xrootd5', 'xrootd6', 'dcache', 'storm', 'eos'] as const satisfies readonly Played[]
const WAYS = ['lost', 'other bytes', 'cut short'] as const

const step = <N extends string, T>(name: N, fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record({ do: fc.constant(name), ...fields }) as fc.Arbitrary<{ readonly do: N } & T>

const action = fc.oneof(
  {
    weight: 14,
    arbitrary: step('rule', {
      dataset,
      at: fc.constantFrom('SITE-B', 'SITE-C', 'SITE-B|SITE-C', '2 of SITE-B|SITE-C'),
      priority: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 4, arbitrary: step('remove', { which: fc.nat(5) }) },
  { weight: 2, arbitrary: step('play', { storage, plays: fc.constantFrom(...PLAYED) }) },
  { weight: 9, arbitrary: step('fault', { storage, fault: fc.constantFrom(...(Object.keys(FAULTS) as Fault[])) }) },
  {
    weight: 6,
    arbitrary: step('refuse', {
      storage,
      verb: fc.constantFrom('COPY', 'GET', 'HEAD', 'PUT', 'DELETE'),
      status: fc.constantFrom(401, 403, 404, 409, 412, 429, 500, 503, 507),
      times: fc.integer({ min: 1, max: 4 }),
      retryAfter: fc.option(fc.constantFrom(2, 20), { nil: undefined }),
    }),
  },
  { weight: 2, arbitrary: step('heal', { storage }) },
  {
    weight: 2,
    arbitrary: step('foreign', { dataset, file, at: fc.constantFrom('SITE-B', 'SITE-C'), long: fc.boolean() }),
  },
  {
    weight: 4,
    arbitrary: step('spoil', {
      storage: fc.constantFrom('SITE-A', 'SITE-A', 'SITE-B', 'SITE-C'),
      dataset,
      file,
      how: fc.constantFrom(...WAYS),
    }),
  },
  { weight: 4, arbitrary: step('kill', { worker }) },
  { weight: 3, arbitrary: step('start', {}) },
  { weight: 1, arbitrary: step('stop', { worker }) },
  { weight: 2, arbitrary: step('part', { worker, seconds }) },
  {
    weight: 5,
    arbitrary: step('befall', {
      worker,
      call: fc.oneof(
        { weight: 2, arbitrary: fc.constantFrom('reportOutcomes' as const, 'askPermit' as const, 'claim' as const) },
        { weight: 1, arbitrary: fc.constantFrom(...CALLS) },
      ),
      mishap: fc.constantFrom('never-sent', 'answer-lost', 'twice', 'late'),
      seconds,
    }),
  },
  { weight: 4, arbitrary: step('hold deletes', { worker, seconds: fc.constantFrom(5, 29, 31, 65) }) },
  // Less than the server's margin for it (server/transfers/permits.ts).
  { weight: 3, arbitrary: step('delay deletes', { worker, seconds: fc.constantFrom(5, 15, 25) }) },
  { weight: 1, arbitrary: step('restart the server', {}) },
  { weight: 10, arbitrary: step('wait', { seconds }) },
)

export type Action = typeof action extends fc.Arbitrary<infer T> ? T : never

/** A part is left, its DELETE is late, and whoever sent it is lost meanwhile: by chance alone that takes hundreds of runs. */
const lateDelete = fc
  .record({
    dataset,
    at: fc.constantFrom('SITE-B' as const, 'SITE-C' as const),
    worker,
    heal: fc.constantFrom(1, 4, 8),
  })
  .map(({ dataset, at, worker, heal }): Action[] => [
    { do: 'heal', storage: at },
    { do: 'fault', storage: at, fault: 'leaves debris' },
    { do: 'fault', storage: 'SITE-A', fault: 'breaks GETs off' },
    { do: 'delay deletes', worker, seconds: 25 },
    { do: 'rule', dataset, at, priority: 5 },
    { do: 'wait', seconds: heal },
    { do: 'heal', storage: 'SITE-A' },
    { do: 'kill', worker },
    { do: 'start' },
    { do: 'wait', seconds: 30 },
  ])

export const actions = fc
  .array(
    fc.oneof({ weight: 30, arbitrary: action.map((one): Action[] => [one]) }, { weight: 1, arbitrary: lateDelete }),
    { minLength: 15, maxLength: 40, size: 'max' },
  )
  .map(parts => parts.flat())
