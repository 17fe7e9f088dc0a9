import { expect } from 'chai'
import type { Misbehaviour } from '../../sandbox/main.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, placeDataset, someFiles, transfersOf, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, type HouseOptions, startHouse } from '../house/house.ts'
import { LeapingClock } from '../house/leaping-clock.ts'
import { until } from '../house/until.ts'

const MINT = 'client_credentials'
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const REFRESH = 'refresh_token'

type Grant = Awaited<ReturnType<House['client']['listGrants']>>['items'][number]

async function grantsOf(house: House, dataset: string): Promise<Grant[]> {
  const { items } = await house.client.listGrants({ query: { limit: 1000 } })
  return items.filter(grant => grant.scopes.every(scope => scope.endsWith(`:/exp/exp/${dataset}`)))
}

const asked = (house: House, grantType: string): number => house.issuer.requests.get(grantType) ?? 0

/** Requests that storages got, of any kind. */
function sentToStorages(house: House): number {
  return [...house.storages.values()].flatMap(storage => [...storage.requests.values()]).reduce((a, b) => a + b, 0)
}

const refusals = (house: House): number =>
  [...house.storages.values()].reduce((sum, storage) => sum + (storage.answers.get(401) ?? 0), 0)

async function startedHouse(options: HouseOptions, workers = 1): Promise<House> {
  const house = await startHouse(options)
  await house.addStorages()
  for (let i = 1; i <= workers; i++) await house.startWorker(`worker-${i}`)
  return house
}

/** Outlasts what a test leaps: a session that ends by it has its worker begin anew in the middle of things. */
const LONG_LEASE = { sessionLeaseSeconds: 3_600 }

const beginEarly: (() => void)[] = []

describe('tokens: one grant for many files and the whole fleet', () => {
  before(() => {
    for (const begin of beginEarly) begin()
  })

  const autonomous = { autonomySeconds: 7200 }
  const cases: [string, HouseOptions, { exchanged: number; refreshRequests: number }][] = [
    ['always, refresh token beside', { exchange: 'always' }, { exchanged: 1, refreshRequests: 0 }],
    [
      'always, refresh token in place of the access token',
      { exchange: 'always', issuer: { exchangeShape: 'refresh_token' } },
      { exchanged: 1, refreshRequests: 2 },
    ],
    ['when needed, and it is', { exchange: 'when-needed', server: autonomous }, { exchanged: 1, refreshRequests: 0 }],
    ['when needed, and it is not', { exchange: 'when-needed' }, { exchanged: 0, refreshRequests: 0 }],
    ['never', { exchange: 'never', server: autonomous }, { exchanged: 0, refreshRequests: 0 }],
  ]
  for (const [mode, options, expected] of cases) {
    it(`exchange ${mode}`, async () => {
      const house = await startedHouse(options, 2)
      try {
        const files = someFiles(60)
        await placeDataset(house, 'SITE-A', 'run1', files)
        await untilRule(house, await askCopy(house, 'run1', 'SITE-B'), 'OK')
        expect(await wrongFiles(house, 'SITE-B', 'run1', files)).to.deep.equal([])
        const grants = await grantsOf(house, 'run1')
        const { exchanged, refreshRequests } = expected
        expect(
          grants.map(({ rse, minted, exchanged, refreshed }) => [rse, minted, exchanged, refreshed]),
        ).to.deep.equal([
          ['SITE-A', 1, exchanged, 0],
          ['SITE-B', 1, exchanged, 0],
        ])
        // Two grants, and a token for the API for the manager and each worker.
        expect([asked(house, MINT), asked(house, EXCHANGE), asked(house, REFRESH)]).to.deep.equal([
          2 + 3,
          2 * exchanged,
          refreshRequests,
        ])
      } finally {
        await house.stop()
      }
    })
  }
})

describe('tokens other than those asked for', () => {
  const clock = new LeapingClock()
  let house: House
  const rules = new Map<string, number>()

  before(async () => {
    house = await startedHouse({ exchange: 'always', clock, server: LONG_LEASE })
  })
  after(() => house.stop())

  const kinds: [Exclude<Misbehaviour['kind'], 'status'>, string][] = [
    ['wider', 'TOKEN_WIDER'],
    ['narrower', 'TOKEN_NARROWER'],
    ['opaque', 'TOKEN_OPAQUE'],
    ['wrong-audience', 'TOKEN_AUDIENCE'],
  ]
  for (const [step, grantType] of [
    ['mint', MINT],
    ['exchange', EXCHANGE],
  ] as const) {
    for (const [kind, code] of kinds) {
      it(`${kind} by ${step}: the grants are held, the transfers say so, no storage sees the token`, async () => {
        const dataset = `${step}-${kind}`
        await placeDataset(house, 'SITE-A', dataset, someFiles(3))
        const before = sentToStorages(house)
        house.issuer.misbehave({ kind, grantType })
        const rule = await askCopy(house, dataset, 'SITE-B')
        const grants = await until(
          () => grantsOf(house, dataset),
          found => found.length === 2 && found.every(grant => grant.state === 'HELD'),
        )
        house.issuer.misbehave(undefined)
        rules.set(dataset, rule)
        for (const { error, minted, exchanged } of grants) {
          expect(error).to.match(new RegExp(`^${code}: the token that the issuer gave `))
          expect([minted, exchanged]).to.deep.equal([step === 'mint' ? 0 : 1, 0])
        }
        const transfers = await transfersOf(house, rule)
        expect(transfers).to.have.length(3)
        for (const { state, reason, attempts } of transfers) {
          expect([state, attempts]).to.deep.equal(['QUEUED', 0])
          expect(reason).to.match(new RegExp(`^TOKEN_REFUSED \\(${code}: `))
        }
        expect(sentToStorages(house)).to.equal(before)
      })
    }
  }

  it('are tried again after a while, and the rules go on', async () => {
    clock.leap(5 * 60_000)
    for (const [dataset, rule] of rules) {
      await untilRule(house, rule, 'OK')
      expect(await wrongFiles(house, 'SITE-B', dataset, someFiles(3))).to.deep.equal([])
    }
  })
})

describe('an issuer in trouble', () => {
  let house: House

  before(async () => {
    house = await startedHouse({ exchange: 'always' })
  })
  after(() => house.stop())

  for (const [step, grantType] of [
    ['mint', MINT],
    ['exchange', EXCHANGE],
  ] as const) {
    it(`answers 500 to ${step}: transfers wait, say why, and go on by themselves`, async () => {
      const dataset = `${step}-500`
      await placeDataset(house, 'SITE-A', dataset, someFiles(3))
      const before = sentToStorages(house)
      house.issuer.misbehave({ kind: 'status', status: 500, grantType })
      const rule = await askCopy(house, dataset, 'SITE-B')
      const waiting = await until(
        () => transfersOf(house, rule),
        transfers =>
          transfers.length === 3 &&
          transfers.every(({ reason }) => reason?.startsWith('TOKEN_AWAITED (ISSUER_UNREACHABLE: ') ?? false),
      )
      expect(waiting.map(({ state, attempts }) => [state, attempts])).to.deep.equal(Array(3).fill(['QUEUED', 0]))
      expect(sentToStorages(house)).to.equal(before)
      house.issuer.misbehave(undefined)
      await untilRule(house, rule, 'OK')
    })

    it(`answers 429 and Retry-After to ${step}: nobody asks before that`, async () => {
      const dataset = `${step}-429`
      await placeDataset(house, 'SITE-A', dataset, someFiles(3))
      const earlier = asked(house, grantType)
      house.issuer.misbehave({ kind: 'status', status: 429, retryAfterSeconds: 2, grantType, times: 2 })
      const rule = await askCopy(house, dataset, 'SITE-B')
      await until(
        async () => asked(house, grantType),
        count => count === earlier + 2,
      )
      const refused = systemClock.monotonic()
      await until(
        async () => asked(house, grantType),
        count => count > earlier + 2,
      )
      expect(systemClock.monotonic() - refused).to.be.above(1_900)
      await untilRule(house, rule, 'OK')
      expect(asked(house, grantType)).to.equal(earlier + 4)
    })
  }

  it('refuses a client: the grants are held with the words of the issuer', async () => {
    await placeDataset(house, 'SITE-A', 'refused', someFiles(1))
    house.issuer.misbehave({ kind: 'status', status: 400, grantType: MINT })
    const rule = await askCopy(house, 'refused', 'SITE-B')
    await until(
      () => transfersOf(house, rule),
      ([transfer]) => /^TOKEN_REFUSED \(TOKEN_REFUSED: .*the issuer was told to misbehave/.test(transfer?.reason ?? ''),
    )
    house.issuer.misbehave(undefined)
  })
})

describe('a storage that refuses tokens', () => {
  const clock = new LeapingClock()
  const MINUTES = 60_000
  let house: House
  after(() => house.stop())

  const refuse = (times: number): void => house.storages.get('SITE-A')?.refuse({ verb: 'HEAD', status: 401, times })
  const held = async (rule: number): Promise<void> => {
    await until(
      () => transfersOf(house, rule),
      transfers =>
        transfers.length === 20 &&
        transfers.every(({ reason }) => /^TOKEN_REFUSED \(STORAGE_REFUSED_TOKEN: HEAD answered 401/.test(reason ?? '')),
    )
  }
  /** That the grants of source and destination had. */
  const tokens = async (): Promise<number[]> =>
    (await grantsOf(house, 'run1')).map(({ minted, refreshed }) => minted + refreshed)

  for (const exchange of ['never', 'always'] as const) {
    it(`costs no attempt, and one token in five minutes (exchange ${exchange})`, async () => {
      if (house !== undefined) await house.stop()
      house = await startedHouse({ exchange, clock, server: LONG_LEASE })
      await placeDataset(house, 'SITE-A', 'run1', someFiles(20))
      refuse(2)
      const rule = await askCopy(house, 'run1', 'SITE-B')
      await held(rule)
      expect(refusals(house)).to.equal(2)
      expect(await tokens()).to.deep.equal([2, 1])
      // The hold ends: the grant gets one token, which is refused by the canary, and none for that.
      for (const round of [1, 2]) {
        refuse(1)
        clock.leap(5 * MINUTES + 1)
        await until(
          async () => refusals(house),
          count => count === 2 + round,
        )
        await held(rule)
        expect((await grantsOf(house, 'run1')).map(({ state }) => state)).to.include('HELD')
      }
      const transfers = await transfersOf(house, rule)
      expect(transfers.map(({ state, attempts }) => [state, attempts])).to.deep.equal(Array(20).fill(['QUEUED', 0]))
      clock.leap(5 * MINUTES + 1)
      await untilRule(house, rule, 'OK')
    })
  }
})

describe('tokens that live for 10 s, in a run that takes longer', () => {
  /** Six files of 4 s each, two at a time: the last ones end when the first tokens have ended. */
  const files = someFiles(6, 40_000)
  const slow = { behaviour: { bytesPerSecond: 10_000 } }
  const cases: [string, HouseOptions & { trouble?: Misbehaviour }, (grant: Grant) => boolean][] = [
    ['are refreshed before a storage sees them too old', { exchange: 'always' }, ({ refreshed }) => refreshed > 0],
    ['are minted again where nothing is exchanged', { exchange: 'never' }, ({ minted }) => minted > 1],
    [
      'are minted and exchanged again when the refresh token has ended',
      { exchange: 'always', issuer: { refreshTokenSeconds: 1 } },
      ({ minted, exchanged, refreshed }) => minted > 1 && exchanged > 1 && refreshed === 0,
    ],
    [
      'cost no attempt while the issuer is down',
      { exchange: 'always', trouble: { kind: 'status', status: 500, grantType: REFRESH, times: 3 } },
      ({ refreshed }) => refreshed > 0,
    ],
  ]
  const houses = new Map<string, Promise<{ house: House; rule: number }>>()

  after(async () => {
    for (const begun of houses.values()) await (await begun).house.stop()
  })

  // Begun before the other tests of this file, all at once: they mostly wait.
  beginEarly.push(() => {
    for (const [what, options] of cases) houses.set(what, run(options))
  })

  async function run(options: HouseOptions & { trouble?: Misbehaviour }): Promise<{ house: House; rule: number }> {
    const issuer = { ...options.issuer, tokenLifetime: 10 }
    const house = await startedHouse({ ...options, issuer, storages: { 'SITE-A': slow } })
    house.issuer.misbehave(options.trouble)
    await house.client.setDistance({
      params: { source: 'SITE-A', destination: 'SITE-B' },
      body: { maxActive: 2, optimize: false },
    })
    await placeDataset(house, 'SITE-A', 'run1', files)
    return { house, rule: await askCopy(house, 'run1', 'SITE-B') }
  }

  for (const [what, , renewed] of cases) {
    it(what, async () => {
      const begun = await houses.get(what)
      if (begun === undefined) throw new Error(`${what} was not begun`)
      const { house, rule } = begun
      await untilRule(house, rule, 'OK', 40_000)
      const transfers = await transfersOf(house, rule)
      expect(transfers.map(({ state, attempts }) => [state, attempts])).to.deep.equal(files.map(() => ['DONE', 1]))
      const ends = transfers.flatMap(({ attemptList }) => attemptList.map(attempt => attempt.endedAt))
      const starts = transfers.flatMap(({ attemptList }) => attemptList.map(attempt => attempt.startedAt))
      expect(Math.max(...ends) - Math.min(...starts)).to.be.above(10_000)
      for (const grant of await grantsOf(house, 'run1')) expect(grant).to.satisfy(renewed)
      expect(refusals(house)).to.equal(0)
    })
  }
})
