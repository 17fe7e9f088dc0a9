import { expect } from 'chai'
import { until } from '../house/until.ts'
import { Stage } from './stage.ts'

const CONTENT = 'x'.repeat(1000)

describe('tokens at storages', () => {
  let stage: Stage
  afterEach(() => stage.end())

  it('one canary for many copies of a grant', async () => {
    stage = await Stage.create()
    const first = await stage.transfer('f0', CONTENT)
    const others = await Promise.all(Array.from({ length: 7 }, (_, i) => stage.transfer(`f${i + 1}`, CONTENT)))
    const same = others.map(transfer => ({
      ...transfer,
      source: { ...transfer.source, grant: first.source.grant },
      destination: { ...transfer.destination, grant: first.destination.grant },
    }))
    stage.start()
    stage.server.enqueue(first, ...same)
    for (const { transfer } of [first, ...same]) {
      expect(await stage.server.outcomeOf(transfer)).to.include({ result: 'done' })
    }
    expect(stage.a.requests.get('HEAD'), 'at the source').to.equal(1)
    expect(stage.b.requests.get('HEAD'), 'at the destination: one canary, eight verifications').to.equal(9)
    expect(stage.issuer.requests.get('urn:ietf:params:oauth:grant-type:token-exchange')).to.equal(2)
  })

  it('a refused canary is sent once more with the token anew', async () => {
    stage = await Stage.create()
    stage.a.refuse({ verb: 'HEAD', status: 401, times: 1 })
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    stage.server.enqueue(transfer)
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
    expect(stage.a.requests.get('HEAD')).to.equal(2)
    const renewals = [...stage.server.renewals].map(({ step }) => step)
    expect(renewals.sort(), 'the source’s token is another one').to.deep.equal(['exchange', 'exchange', 'refresh'])
  })

  it('a canary refused twice holds the grant: nothing more is sent, and no attempt is lost', async () => {
    stage = await Stage.create()
    stage.a.refuse({ verb: 'HEAD', status: 401, times: 1000 })
    stage.start()
    const first = await stage.transfer('f1', CONTENT)
    const second = await stage.transfer('f2', CONTENT)
    const same = { ...second, source: { ...second.source, grant: first.source.grant } }
    stage.server.enqueue(first, same)
    for (const { transfer } of [first, same]) {
      const outcome = await stage.server.outcomeOf(transfer)
      expect(outcome).to.include({ result: 'handed-back' })
      expect(outcome.error).to.include({ code: 'STORAGE_REFUSED_TOKEN', scope: 'TOKEN', retryable: true })
      expect(outcome.error?.message).to.match(/^HEAD answered 401/)
    }
    expect(stage.a.requests.get('HEAD')).to.equal(2)
    expect(stage.issuer.requests.get('refresh_token')).to.equal(1)
    expect(stage.b.requests.get('COPY') ?? 0).to.equal(0)
  })

  for (const status of [429, 502, 503, 504]) {
    it(`a canary answered ${status} proves nothing: the next is another one`, async () => {
      stage = await Stage.create()
      const transfers = await Promise.all(Array.from({ length: 16 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
      const grant = transfers[0]?.source.grant ?? 0
      const all = transfers.map(one => ({ ...one, source: { ...one.source, grant } }))
      const given = stage.server.grants.get(grant)
      if (given === undefined) throw new Error('no grant')
      stage.server.grants.set(grant, { ...given, audience: 'https://other.example.org' })
      stage.a.refuse({ verb: 'HEAD', status, times: 1, retryAfterSeconds: 7 })
      stage.start()
      stage.server.enqueue(...all)
      const outcomes = await Promise.all(all.map(({ transfer }) => stage.server.outcomeOf(transfer)))
      const told = outcomes.flatMap(({ error }) => (error?.code === 'STORAGE_REFUSED_TOKEN' ? [] : [error]))
      expect(told).not.to.deep.equal([])
      for (const error of told) expect(error).to.include({ scope: 'SOURCE', retryAfterSeconds: 7 })
      expect(stage.a.answers.get(401) ?? 0).to.be.below(3)
      expect(stage.b.requests.get('COPY') ?? 0).to.equal(0)
    })
  }

  it('a first COPY whose refusal cannot be told from a file that is there stays the only one', async () => {
    stage = await Stage.create()
    const transfers = await Promise.all(Array.from({ length: 8 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    const all = transfers.map(one => ({ ...one, destination: { ...one.destination, grant } }))
    stage.b.refuse({ verb: 'HEAD', status: 404, times: 1 })
    stage.b.refuse({ verb: 'HEAD', status: 503, times: 1000 })
    stage.b.refuse({ verb: 'COPY', status: 401, times: 1000 })
    stage.start()
    stage.server.enqueue(...all)
    for (const { transfer } of all) {
      expect(await stage.server.outcomeOf(transfer)).to.include({ result: 'failed', left: 'unknown' })
    }
    expect(stage.b.requests.get('COPY')).to.equal(1)
  })

  it('a first COPY refused where a file is there already says nothing of the token: the next one goes alone, too', async () => {
    stage = await Stage.create()
    stage.b.refuse({ verb: 'COPY', status: 401, times: 1000 })
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 8 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    await stage.write('SITE-B', 'f0', CONTENT)
    stage.server.enqueue(...transfers.map(one => ({ ...one, destination: { ...one.destination, grant } })))
    const outcomes = await Promise.all(transfers.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    expect(outcomes[0]).to.include({ result: 'done', bytes: 0 })
    expect(stage.b.answers.get(401)).to.equal(3)
  })

  it('a first COPY answered 429 says nothing of the token: the next one goes alone, too', async () => {
    stage = await Stage.create()
    const transfers = await Promise.all(Array.from({ length: 8 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    const all = transfers.map(one => ({ ...one, destination: { ...one.destination, grant } }))
    stage.b.refuse({ verb: 'COPY', status: 429, times: 1 })
    stage.b.refuse({ verb: 'COPY', status: 401, times: 1000 })
    stage.start()
    stage.server.enqueue(...all)
    await Promise.all(all.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    expect(stage.b.answers.get(401)).to.equal(2)
  })

  it('who waits for a first COPY to be taken can be cancelled', async () => {
    stage = await Stage.create()
    stage.server.heartbeatSeconds = 0.05
    stage.a.behaviour.bytesPerSecond = 1_000
    Object.assign(stage.b.behaviour, { lateHeaders: true, markerSeconds: 60 })
    stage.start({ shutdownMs: 50 })
    const first = await stage.transfer('f1', CONTENT.repeat(100))
    const second = await stage.transfer('f2', CONTENT)
    const { grant } = first.destination
    stage.server.enqueue(first)
    await until(
      async () => stage.b.requests.get('COPY'),
      copies => copies === 1,
    )
    stage.server.enqueue({ ...second, destination: { ...second.destination, grant } })
    stage.server.cancelled.add(second.transfer)
    const { error } = await stage.server.outcomeOf(second.transfer)
    expect(error).to.include({ code: 'CANCELLED' })
    expect(stage.server.outcomes, 'the first goes on').to.have.length(1)
    expect(stage.b.requests.get('COPY')).to.equal(1)
  })

  it('a COPY refused with 401 is sent once more', async () => {
    stage = await Stage.create()
    stage.b.refuse({ verb: 'COPY', status: 401, times: 1 })
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    stage.server.enqueue(transfer)
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
    expect(stage.b.requests.get('COPY')).to.equal(2)
  })

  it('a first COPY refused twice holds the grant, and no other is sent: dCache blocks after the third', async () => {
    stage = await Stage.create()
    stage.b.refuse({ verb: 'COPY', status: 401, times: 1000 })
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 8 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    stage.server.enqueue(...transfers.map(one => ({ ...one, destination: { ...one.destination, grant } })))
    const outcomes = await Promise.all(transfers.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    const codes = outcomes.map(({ error }) => error?.code)
    expect(codes.filter(code => code !== 'STORAGE_REFUSED_TOKEN').length, codes.join()).to.be.below(2)
    expect(stage.b.requests.get('COPY')).to.equal(2)
    expect(stage.issuer.requests.get('refresh_token')).to.equal(1)
  })

  it('a first COPY that is denied (403) is sent once more, with another token', async () => {
    stage = await Stage.create()
    stage.b.refuse({ verb: 'COPY', status: 403, times: 1 })
    stage.start()
    const transfer = await stage.transfer('f1', CONTENT)
    stage.server.enqueue(transfer)
    expect(await stage.server.outcomeOf(transfer.transfer)).to.include({ result: 'done' })
    expect(stage.b.requests.get('COPY')).to.equal(2)
    expect(stage.issuer.requests.get('refresh_token')).to.equal(1)
  })

  it('COPYs that are all denied hold the grant after the second file: the rest is not tried', async () => {
    stage = await Stage.create()
    stage.b.refuse({ verb: 'COPY', status: 403, times: 1000 })
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 8 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    stage.server.enqueue(...transfers.map(one => ({ ...one, destination: { ...one.destination, grant } })))
    const outcomes = await Promise.all(transfers.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    const codes = outcomes.map(({ error }) => error?.code)
    expect(codes.filter(code => code === 'PERMISSION_DENIED').length, codes.join()).to.equal(2)
    expect(codes.filter(code => code === 'STORAGE_REFUSED_TOKEN').length, codes.join()).to.equal(6)
    expect(stage.b.requests.get('COPY')).to.equal(3)
    expect(stage.issuer.requests.get('refresh_token')).to.equal(1)
  })

  it('a source that believes the HEADs and refuses the other storage holds its grant, and no more is copied', async () => {
    stage = await Stage.create()
    stage.a.refuse({ verb: 'GET', status: 401, times: 1000 })
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 16 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.source.grant ?? 0
    const all = transfers.map(one => ({ ...one, source: { ...one.source, grant } }))
    const run = async (some: typeof all) => {
      stage.server.enqueue(...some)
      return Promise.all(some.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    }
    for (const { error } of await run(all.slice(0, 8))) expect(error).to.include({ code: 'TOKEN_REFUSED' })
    const refusals = stage.a.answers.get(401)
    for (const { error, result } of await run(all.slice(8))) {
      expect(`${result} ${error?.code}`).to.equal('handed-back STORAGE_REFUSED_TOKEN')
    }
    expect(stage.a.answers.get(401)).to.equal(refusals)
  })

  it('a file that a source refuses to the other storage by itself holds nothing', async () => {
    stage = await Stage.create()
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 6 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.source.grant ?? 0
    for (const [i, one] of transfers.entries()) {
      if (i % 2 === 0) stage.a.refuse({ verb: 'GET', status: 401, times: 2 })
      stage.server.enqueue({ ...one, source: { ...one.source, grant } })
      const { error, result } = await stage.server.outcomeOf(one.transfer)
      expect(error?.code ?? result).to.equal(i % 2 === 0 ? 'TOKEN_REFUSED' : 'done')
    }
  })

  it('a file that is denied by itself, after others were taken, holds nothing', async () => {
    stage = await Stage.create()
    stage.start()
    const transfers = await Promise.all(Array.from({ length: 6 }, (_, i) => stage.transfer(`f${i}`, CONTENT)))
    const grant = transfers[0]?.destination.grant ?? 0
    const [first, ...others] = transfers.map(one => ({ ...one, destination: { ...one.destination, grant } }))
    if (first === undefined) throw new Error('there are six')
    stage.server.enqueue(first)
    await stage.server.outcomeOf(first.transfer)
    stage.b.refuse({ verb: 'COPY', status: 403, times: 3 })
    stage.server.enqueue(...others)
    const outcomes = await Promise.all(others.map(({ transfer }) => stage.server.outcomeOf(transfer)))
    const codes = outcomes.map(({ error, result }) => error?.code ?? result)
    expect(codes.sort()).to.deep.equal(['PERMISSION_DENIED', 'PERMISSION_DENIED', 'PERMISSION_DENIED', 'done', 'done'])
    expect(stage.issuer.requests.get('refresh_token')).to.equal(undefined)
  })

  it('tokens of 2 s: refreshed before an operation, and a copy may last longer than its token', async () => {
    stage = await Stage.create({ tokenLifetime: 2 })
    stage.a.behaviour.bytesPerSecond = 50_000
    stage.start()
    const transfer = await stage.transfer('slow', Buffer.alloc(150_000, 1))
    stage.server.enqueue(transfer)
    const outcome = await stage.server.outcomeOf(transfer.transfer)
    expect(outcome).to.include({ result: 'done' })
    expect(outcome.durationMs).to.be.above(2_000)
    expect(stage.server.renewals.map(({ step }) => step)).to.include.members(['exchange', 'refresh'])
    const { accessToken } = Object(stage.server.renewals.find(({ step }) => step === 'refresh')?.result)
    expect(accessToken).to.be.a('string')
  })
})
