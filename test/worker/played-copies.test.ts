import { expect } from 'chai'
import { type Played, type RunningStorage, startStorage } from '../../sandbox/main.ts'
import type { ClaimedTransfer } from '../../shared/contract/routes/worker.ts'
import { FLAVOURS, play } from './playing.ts'
import { Stage } from './stage.ts'
import type { ReportedOutcome } from './stand-in-server.ts'

const CONTENT = Buffer.from('some content of a file\n'.repeat(100))

/** What facts/http-tpc.md sections 1 to 5 say of each, where the worker is to succeed in spite of it. */
describe('a worker between storages that are played', () => {
  let stage: Stage
  let c: RunningStorage
  before(async () => {
    stage = await Stage.create()
    c = await startStorage(stage.sandbox, 'SITE-C', { aliases: [stage.storage('SITE-B').audience] })
    stage.start()
  })
  after(async () => {
    await c.stop()
    await stage.end()
  })

  let files = 0
  const nameOf = () => `f${files}`
  const prepare = async (modes: { canPull?: boolean; canPush?: boolean } = {}, checksum = 'adler32' as const) => {
    const more = { canPull: true, canPush: true, ...modes, checksum }
    for (const storage of stage.server.storages.values()) {
      stage.server.storages.set(storage.rse, { ...storage, ...more })
    }
    files += 1
    return stage.transfer(nameOf(), CONTENT)
  }
  const run = async (transfer: ClaimedTransfer): Promise<ReportedOutcome> => {
    stage.server.enqueue(transfer)
    return stage.server.outcomeOf(transfer.transfer)
  }
  const both = (flavour: Played, more: Parameters<typeof play>[2] = {}) => {
    for (const storage of [stage.a, stage.b]) play(storage, flavour, more)
  }
  const MODES = { pull: {}, push: { canPull: false }, stream: { canPull: false, canPush: false } } as const

  for (const flavour of FLAVOURS) {
    for (const [mode, modes] of Object.entries(MODES)) {
      it(`${flavour}: ${mode}`, async () => {
        both(flavour)
        const outcome = await run(await prepare(modes))
        expect(outcome.error?.message).to.equal(undefined)
        expect(outcome).to.include({ result: 'done', mode, bytes: CONTENT.length })
        expect(await stage.read('SITE-B', nameOf())).to.deep.equal(CONTENT)
        expect(await stage.read('SITE-A', nameOf())).to.deep.equal(CONTENT)
      })

      it(`${flavour}: ${mode} into directories that are not there yet`, async () => {
        both(flavour)
        const transfer = await prepare(modes)
        await stage.write('SITE-A', `${mode}/${flavour}/f`, CONTENT)
        const at = (place: ClaimedTransfer['source']) => ({
          ...place,
          url: new URL(`${mode}/${flavour}/f`, place.url).href,
        })
        const outcome = await run({ ...transfer, source: at(transfer.source), destination: at(transfer.destination) })
        expect(outcome.error?.message).to.equal(undefined)
        expect(outcome).to.include({ result: 'done', mode })
        expect(await stage.read('SITE-B', `${mode}/${flavour}/f`)).to.deep.equal(CONTENT)
      })
    }

    for (const status of [307, 302] as const) {
      it(`${flavour}: sent on by a ${status}, to a host that may be`, async () => {
        both(flavour)
        play(c, flavour)
        await stage.write('SITE-C', 'other', 'so that the directory is there')
        const verbs = ['COPY', 'HEAD', 'MKCOL', 'DELETE', 'PROPFIND']
        stage.b.behaviour.redirect = { verbs, origin: c.url, status }
        const outcome = await run(await prepare())
        expect(outcome.error?.message).to.equal(undefined)
        expect(outcome).to.include({ result: 'done', mode: 'pull' })
        expect(await stage.read('SITE-C', nameOf())).to.deep.equal(CONTENT)
        expect(await stage.read('SITE-B', nameOf())).to.equal(undefined)
      })

      it(`${flavour}: not sent on by a ${status} to a host that may not be, nor to http`, async () => {
        both(flavour)
        for (const origin of ['https://elsewhere.example.org', c.url.replace('https', 'http')]) {
          stage.b.behaviour.redirect = { verbs: ['COPY'], origin, status }
          const copies = c.requests.get('COPY') ?? 0
          const outcome = await run(await prepare())
          expect(outcome).to.include({ result: 'failed', cleaned: false })
          expect(outcome.error).to.include({ code: 'REDIRECT_REFUSED', scope: 'DESTINATION', retryable: false })
          expect(c.requests.get('COPY') ?? 0).to.equal(copies)
        }
      })
    }

    it(`${flavour}: a source that is sent on by a 307 within the copy`, async () => {
      both(flavour)
      play(c, flavour)
      const transfer = await prepare()
      await stage.write('SITE-C', nameOf(), CONTENT)
      const storage = stage.storage('SITE-B')
      const grant = stage.server.grants.get(transfer.source.grant)
      if (grant === undefined) throw new Error('no grant')
      // The one whose tokens the third storage takes is the source here.
      stage.server.grants.set(transfer.source.grant, { ...grant, audience: storage.audience })
      stage.b.behaviour.redirect = { verbs: ['GET'], origin: c.url }
      await stage.write('SITE-B', nameOf(), CONTENT)
      const swapped = { ...transfer, source: { ...transfer.source, rse: 'SITE-B', url: transfer.destination.url } }
      const destination = { ...transfer.destination, rse: 'SITE-A', url: `${transfer.source.url}.copy` }
      const right = stage.server.grants.get(transfer.destination.grant)
      if (right === undefined) throw new Error('no grant')
      stage.server.grants.set(transfer.destination.grant, { ...right, audience: stage.storage('SITE-A').audience })
      const outcome = await run({ ...swapped, destination })
      expect(outcome.error).to.equal(undefined)
      expect(outcome).to.include({ result: 'done', mode: 'pull' })
      expect(c.requests.get('GET') ?? 0).to.be.greaterThan(0)
    })
  }

  describe('dCache', () => {
    it('asks for no checksum of a source that has none: RequireChecksumVerification goes out as false', async () => {
      both('dcache')
      stage.a.behaviour.checksums = []
      expect(await run(await prepare())).to.include({ result: 'done', mode: 'pull' })
      stage.b.behaviour.checksums = []
      const pushed = await run(await prepare(MODES.push))
      expect(pushed).to.include({ result: 'unknown', mode: 'push' })
      expect(pushed.error).to.include({ code: 'CHECKSUM_UNAVAILABLE' })
      expect(await stage.read('SITE-B', nameOf()), 'and it is not removed').to.deep.equal(CONTENT)
    })

    it('does not block a worker for a grant that it refuses: two 401s, and no third', async () => {
      both('dcache')
      const refusals = stage.b.answers.get(401) ?? 0
      const works = [await prepare()]
      for (let more = 0; more < 7; more++) works.push(await prepare())
      const [first] = works
      if (first === undefined) throw new Error('nothing to do')
      const grant = stage.server.grants.get(first.destination.grant)
      if (grant === undefined) throw new Error('no grant')
      stage.server.grants.set(first.destination.grant, { ...grant, audience: 'https://other.example.org' })
      const shared = works.map(work => ({
        ...work,
        destination: { ...work.destination, grant: first.destination.grant },
      }))
      stage.server.enqueue(...shared)
      for (const work of shared) {
        const { result } = await stage.server.outcomeOf(work.transfer)
        expect(result).to.be.oneOf(['failed', 'handed-back'])
      }
      expect((stage.b.answers.get(401) ?? 0) - refusals).to.equal(2)
      expect(await run(await prepare()), 'others are heard').to.include({ result: 'done' })
    })

    it('is left alone while it blocks the worker: 429, with the time that it asks for', async () => {
      both('dcache', { blocks: { refusals: 1, seconds: 1 } })
      const transfer = await prepare()
      const grant = stage.server.grants.get(transfer.destination.grant)
      if (grant === undefined) throw new Error('no grant')
      stage.server.grants.set(transfer.destination.grant, { ...grant, scopes: ['storage.read:/exp/ds'] })
      const outcome = await run(transfer)
      expect(outcome).to.include({ result: 'failed', cleaned: false })
      const other = await run(await prepare())
      expect(other.error).to.include({ code: 'TOO_MANY_REQUESTS', retryable: true, retryAfterSeconds: 1 })
    })
  })

  describe('XRootD', () => {
    it('tells another checksum than it is asked for: it is not compared, and the other one is asked for', async () => {
      both('xrootd5', { checksums: ['md5'] })
      const { adler32: _, ...transfer } = await prepare()
      const md5 = 'ab7d8d4c0bc2d7be09f2b8a5ca5f0a1e'
      const wrong = await run({ ...transfer, md5 })
      expect(wrong.error).to.include({ code: 'SOURCE_CORRUPT' })
      const unproven = await run(await prepare())
      expect(unproven.error).to.include({ code: 'CHECKSUM_UNAVAILABLE' })
    })
  })
})
