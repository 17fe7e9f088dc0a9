import { expect } from 'chai'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { Secret } from '../../shared/domain/secret.ts'
import { createLogger } from '../../shared/runtime/logger.ts'
import { transferFailure } from '../../shared/storage/classify.ts'
import { StorageError } from '../../shared/storage/types.ts'
import type { StorageAccess } from '../../worker/access.ts'
import { Macaroons, mayBeStale, type Passive } from '../../worker/macaroons.ts'
import { manualClock } from '../unit/oidc-manual-clock.ts'
import { Stage, type StageOptions } from './stage.ts'

const CONTENT = 'content'
const PULL: StageOptions = { source: { macaroons: true } }
const PUSH: StageOptions = { destination: { macaroons: true, canPull: false } }

describe('a copy that shows the other side a macaroon', () => {
  let stage: Stage
  let lines: string[]
  afterEach(() => stage.end())

  async function begin(options: StageOptions, issues = true): Promise<void> {
    stage = await Stage.create(options)
    stage.a.behaviour.macaroons = issues
    stage.b.behaviour.macaroons = issues
    lines = []
    stage.start({ log: createLogger('test', 'debug', { write: line => void lines.push(line) }) })
  }
  const run = async (transfer: ClaimedTransfer) => {
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }
  /** Under the grants of the first. */
  const alike = (first: ClaimedTransfer, transfer: ClaimedTransfer): ClaimedTransfer => ({
    ...transfer,
    source: { ...transfer.source, grant: first.source.grant },
    destination: { ...transfer.destination, grant: first.destination.grant },
  })
  const asked = () => stage.a.requests.get('POST') ?? 0

  it('pulls: the issuer`s token for the source goes to the source only', async () => {
    await begin(PULL)
    expect(await run(await stage.transfer('f', CONTENT))).to.include({ result: 'done', mode: 'pull' })
    expect(Object.fromEntries(stage.a.shown)).to.deep.equal({ 'HEAD token': 1, 'POST token': 1, 'GET macaroon': 1 })
    expect(stage.b.shown.get('COPY token')).to.equal(1)
  })

  it('pushes: the issuer`s token for the destination goes to the destination only', async () => {
    await begin(PUSH)
    expect(await run(await stage.transfer('new/f', CONTENT))).to.include({ result: 'done', mode: 'push' })
    const { shown } = stage.b
    expect([shown.get('POST token'), shown.get('HEAD macaroon'), shown.get('PUT macaroon')]).to.deep.equal([1, 1, 1])
    expect(shown.get('PUT token'), 'of the other storage').to.equal(undefined)
    expect(stage.a.shown.get('COPY token')).to.equal(1)
  })

  it('is as ever where the storage is not said to issue any', async () => {
    await begin({})
    expect(await run(await stage.transfer('f', CONTENT))).to.include({ result: 'done' })
    expect(stage.a.shown.get('GET token')).to.equal(1)
    expect(asked()).to.equal(0)
  })

  it('needs none when the bytes pass through the worker', async () => {
    await begin({ source: { macaroons: true, canPush: false }, destination: { macaroons: true, canPull: false } })
    expect(await run(await stage.transfer('f', CONTENT))).to.include({ result: 'done', mode: 'stream' })
    expect(asked() + (stage.b.requests.get('POST') ?? 0)).to.equal(0)
  })

  it('shows one for all files of a directory under a grant, and another for another directory', async () => {
    await begin(PULL)
    const first = await stage.transfer('one/f', CONTENT)
    const names = [
      ...Array.from({ length: 10 }, (_, i) => `one/f${i}`),
      ...Array.from({ length: 10 }, (_, i) => `two/f${i}`),
    ]
    const others = await Promise.all(names.map(async name => alike(first, await stage.transfer(name, CONTENT))))
    const all = [first, ...others]
    stage.server.enqueue(...all)
    const ends = await Promise.all(all.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    expect(ends.filter(({ result }) => result !== 'done')).to.deep.equal([])
    expect(stage.a.shown.get('GET macaroon')).to.equal(21)
    expect(asked()).to.equal(2)
  })

  it('asks again when the one it showed is refused, and spares the issuer', async () => {
    await begin(PULL)
    const first = await stage.transfer('f', CONTENT)
    await run(first)
    const renewals = stage.server.renewals.length
    stage.a.refuse({ verb: 'GET', status: 401, times: 1 })
    expect(await run(alike(first, await stage.transfer('g', CONTENT)))).to.include({ result: 'done' })
    expect(asked()).to.equal(2)
    expect(stage.server.renewals).to.have.length(renewals)
  })

  it('fails when a second is refused, which is not shown again', async () => {
    await begin(PULL)
    const first = await stage.transfer('f', CONTENT)
    stage.a.refuse({ verb: 'GET', status: 401, times: 2 })
    const { error } = await run(first)
    expect(error).to.include({ code: 'TOKEN_REFUSED', scope: 'TOKEN', retryable: true })
    expect([stage.a.requests.get('GET'), asked()]).to.deep.equal([2, 2])
    expect(await run(alike(first, await stage.transfer('g', CONTENT)))).to.include({ result: 'done' })
    expect(asked()).to.equal(3)
  })

  it('takes a 403 to one that was shown before for one about the macaroon', async () => {
    await begin(PULL)
    const first = await stage.transfer('f', CONTENT)
    stage.a.refuse({ verb: 'GET', status: 403, times: 2 })
    expect((await run(first)).error).to.include({ code: 'PERMISSION_DENIED', scope: 'SOURCE', retryable: false })
    const again = await run(alike(first, await stage.transfer('g', CONTENT)))
    expect(again.error).to.include({ code: 'PERMISSION_DENIED', scope: 'SOURCE', retryable: true })
    expect(asked()).to.equal(1)
    expect(await run(alike(first, await stage.transfer('h', CONTENT)))).to.include({ result: 'done' })
    expect(asked()).to.equal(2)
  })

  for (const [mode, options, scope, passive] of [
    ['pull', PULL, 'SOURCE', 'a'],
    ['push', PUSH, 'DESTINATION', 'b'],
  ] as const) {
    it(`never falls back to the issuer's token where a ${mode} finds that there are no macaroons`, async () => {
      await begin(options, false)
      const { result, error } = await run(await stage.transfer('f', CONTENT))
      expect(result).to.equal('failed')
      expect(error).to.include({ code: 'NOT_SUPPORTED', scope, retryable: false })
      expect(error?.message).to.match(/^no macaroon: POST answered 405/)
      expect((stage.a.requests.get('COPY') ?? 0) + (stage.b.requests.get('COPY') ?? 0)).to.equal(0)
      expect(stage[passive].requests.get('POST')).to.equal(1)
    })
  }

  it('asks with another token when the first is refused', async () => {
    await begin(PULL)
    stage.a.refuse({ verb: 'POST', status: 401, times: 1 })
    expect(await run(await stage.transfer('f', CONTENT))).to.include({ result: 'done' })
    expect(asked()).to.equal(2)
    expect(stage.server.renewals.filter(({ step }) => step === 'refresh')).to.have.length(1)
  })

  it('works with macaroons that end soon, as they do with the token that asked', async () => {
    stage = await Stage.create({ ...PULL, tokenLifetime: 10 })
    stage.a.behaviour.macaroons = true
    stage.start()
    expect(await run(await stage.transfer('f', CONTENT))).to.include({ result: 'done' })
    expect(stage.a.shown.get('GET macaroon')).to.equal(1)
  })

  for (const quoting of ['a', 'b'] as const) {
    it(`never tells it, when the ${quoting === 'a' ? 'source' : 'destination'} quotes what it was shown`, async () => {
      await begin(PULL)
      stage[quoting].behaviour.quoteTokens = true
      stage[quoting].refuse({ verb: quoting === 'a' ? 'GET' : 'COPY', status: 500, times: 1 })
      const { error } = await run(await stage.transfer('f', CONTENT))
      expect(error?.message).to.contain('[secret]')
      for (const told of [JSON.stringify(stage.server.outcomes), ...lines]) {
        expect(told).not.to.match(/\bMDA|eyJ/)
      }
    })
  }
})

describe('the macaroons that a worker holds', () => {
  const clock = manualClock()
  const lives: number[] = []
  const urls: string[] = []
  let given = 0
  let lifeSeconds: number | undefined
  let refusal: StorageError | undefined
  let macaroons: Macaroons

  const storage = {
    macaroon: async (url: string, _token: Secret | undefined, options: { lifeSeconds: number }) => {
      urls.push(url)
      lives.push(options.lifeSeconds)
      if (refusal !== undefined) throw refusal
      given += 1
      return { token: new Secret(`macaroon-${given}`), lifeSeconds: lifeSeconds ?? options.lifeSeconds }
    },
  }
  const access = { use: (_place: unknown, run: (token: Secret) => unknown) => run(new Secret('token')) }
  beforeEach(() => {
    lives.length = 0
    urls.length = 0
    given = 0
    lifeSeconds = undefined
    refusal = undefined
    const { signal } = new AbortController()
    macaroons = new Macaroons({ access: access as unknown as StorageAccess, clock, signal })
  })
  const passive = (url: string, grant = 1, activity: 'DOWNLOAD' | 'UPLOAD' = 'DOWNLOAD') =>
    ({ place: { url: `https://a.example.org${url}`, grant, scope: 'SOURCE', storage }, activity }) as unknown as Passive
  const shown = async (at: Passive, copyMs = 600_000) => (await macaroons.tokenFor(at, copyMs)).token.reveal()

  it('live as long as the copy may take and ten minutes more, and are shown in these', async () => {
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-1')
    expect([urls, lives]).to.deep.equal([['https://a.example.org/ds/'], [1200]])
    clock.advance(599_000)
    expect(await macaroons.tokenFor(passive('/ds/g'), 600_000)).to.include({ reused: true })
    clock.advance(1_000)
    expect(await shown(passive('/ds/h'))).to.equal('macaroon-2')
  })

  it('live longer for a larger file, a day at most', async () => {
    await shown(passive('/ds/f'))
    expect(await shown(passive('/ds/large'), 7_200_000)).to.equal('macaroon-2')
    expect(await shown(passive('/ds/larger'), 1e9)).to.equal('macaroon-3')
    expect(await shown(passive('/ds/f')), 'the latest').to.equal('macaroon-3')
    clock.advance(599_000)
    expect(await shown(passive('/ds/larger'), 1e9)).to.equal('macaroon-3')
    expect(lives).to.deep.equal([1200, 7800, 86_400])
  })

  it('are shown until half their life is over, where the storage gave less than was asked for', async () => {
    lifeSeconds = 60
    await shown(passive('/ds/f'))
    clock.advance(29_000)
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-1')
    clock.advance(1_000)
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-2')
  })

  it('are one for each grant, activity and directory', async () => {
    const places = [
      passive('/ds/f'),
      passive('/ds/f', 2),
      passive('/ds/f', 1, 'UPLOAD'),
      passive('/dsx/f'),
      passive('/ds/x/f'),
    ]
    for (const place of [...places, ...places]) await shown(place)
    expect(given).to.equal(5)
  })

  it('are asked for once by all who want one', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, (_, i) => shown(passive(`/ds/f${i}`))))
    expect(new Set(all)).to.deep.equal(new Set(['macaroon-1']))
  })

  it('are asked for again after a refusal', async () => {
    refusal = new StorageError(transferFailure('STORAGE_BUSY', 'SOURCE', 'PREPARATION', 'words'))
    const [one, two] = await Promise.allSettled([shown(passive('/ds/f')), shown(passive('/ds/g'))])
    expect([one.status, two.status]).to.deep.equal(['rejected', 'rejected'])
    refusal = undefined
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-1')
    expect(urls).to.have.length(2)
  })

  it('are forgotten one by one, and no newer one with an older', async () => {
    const { token } = await macaroons.tokenFor(passive('/ds/f'), 600_000)
    macaroons.forget(passive('/ds/g'), token)
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-2')
    macaroons.forget(passive('/ds/g'), token)
    expect(await shown(passive('/ds/f'))).to.equal('macaroon-2')
  })

  it('are a thousand at most', async () => {
    for (let i = 0; i <= 1000; i += 1) await shown(passive(`/ds${i}/f`))
    expect(await shown(passive('/ds1/f'))).to.equal('macaroon-2')
    expect(await shown(passive('/ds0/f'))).to.equal('macaroon-1002')
  })

  for (const [code, side, reused, stale] of [
    ['TOKEN_REFUSED', 'SOURCE', false, true],
    ['TOKEN_REFUSED', 'DESTINATION', true, false],
    ['TOKEN_REFUSED', undefined, true, false],
    ['PERMISSION_DENIED', 'SOURCE', true, true],
    ['PERMISSION_DENIED', 'SOURCE', false, false],
    ['SOURCE_MISSING', 'SOURCE', true, false],
  ] as const) {
    it(`${code} of ${side ?? 'nobody'} to ${reused ? 'a used' : 'a new'} one is ${stale ? '' : 'not '}about it`, () => {
      const failure = transferFailure(code, 'TOKEN', 'TRANSFER', 'words', { side })
      expect(mayBeStale(failure, passive('/ds/f'), reused)).to.equal(stale)
    })
  }
})
