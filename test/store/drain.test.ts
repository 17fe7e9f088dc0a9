import { expect } from 'chai'
import { EVERYTHING } from '../../server/accounts/sight.ts'
import { claimImports } from '../../server/imports/store.ts'
import { claimOnLink, claimToSettle, linksToServe } from '../../server/transfers/claim.ts'
import type { Claimant } from '../../server/transfers/claim-places.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { stateOf } from '../../server/transfers/fleet-routes.ts'
import { insertSession } from '../../server/transfers/session-store.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { drain, listWorkers, resume, workersNamed } from '../../server/transfers/worker-store.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const POOL = { issuer: 'https://issuer.example.org', client: 'pool' }
const KEY = { ...POOL, worker: 'w' }

for (const { name, open } of databases) {
  describe(`a worker that is drained, on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', 10, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
    })
    afterEach(() => test.drop())

    const session = (worker: string): Promise<number> => {
      const opened = { worker, version: '1.2.3', publicJwk: '{}', expiresAt: world.clock.now() + 20_000 }
      return test.db.write(e => insertSession(e, POOL, opened, world.clock.now()))
    }
    const claimant = (sessionId: number): Claimant => ({ sessionId, fenceBase: FENCE_BASE })
    const work = async (sessionId: number, limit = 1): Promise<number> =>
      (await claimWork(world.context, claimant(sessionId), limit)).length
    const drainIt = (key = KEY): Promise<void> => test.db.write(e => drain(e, key, world.clock.now()))
    const all = () => listWorkers(test.db.read, EVERYTHING, undefined, world.clock.now())
    const states = async () => Object.fromEntries((await all()).map(row => [row.worker, stateOf(row)]))

    it('gets no transfer, nothing to settle and no import, and no others are kept from them', async () => {
      const lost = await session('lost')
      expect(await work(lost, 2)).to.equal(2)
      await test.db.write(e => endSession(e, lost, world.clock.now(), world.clock.now()))
      await world.change(
        `INSERT INTO imports (vo_id, rse_id, directory_id, dataset_id, account_id, state, fence, part, files, bytes, created_at, updated_at)
         SELECT :voId, rse_id, id, (SELECT min(id) FROM dids WHERE type = 'DATASET'), :accountId, 'QUEUED', 0, 0, 0, 0, 0, 0
           FROM directories LIMIT 1`,
        { voId: world.voId, accountId: world.accountId },
      )
      const [own, other] = [await session('w'), await session('other')]
      await drainIt()
      const [link] = await linksToServe(test.db.read, {}, world.clock.now())
      if (link === undefined) throw new Error('there is no work')
      const now = world.clock.now()
      const claims = (id: number): (() => Promise<unknown[]>)[] => [
        () => test.db.write(e => claimOnLink(e, link, claimant(id), 1, now)),
        () => test.db.write(e => claimToSettle(e, claimant(id), 1, now)),
        () => test.db.write(e => claimImports(e, { sessionId: id }, 1, now)),
      ]
      for (const claim of claims(own)) {
        const error: unknown = await claim().catch((reason: unknown) => reason)
        expect(error).to.be.instanceOf(WaybillError).with.property('code', 'WORKER_DRAINED')
      }
      expect(await work(own, 10)).to.equal(0)
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE session_id = :own', { own })).to.equal(0)
      for (const claim of claims(other)) expect(await claim()).to.have.length(1)
    })

    it('stays so in its next session, and gets work again when it is resumed', async () => {
      const first = await session('w')
      await drainIt()
      await test.db.write(e => endSession(e, first, world.clock.now(), world.clock.now()))
      const next = await session('w')
      expect(await work(next)).to.equal(0)
      await test.db.write(e => resume(e, KEY))
      expect(await work(next)).to.equal(1)
    })

    it('gets nothing of a claim that began before it and was not over', async () => {
      const own = await session('w')
      const [link] = await linksToServe(test.db.read, {}, world.clock.now())
      if (link === undefined) throw new Error('there is no work')
      let finish: () => void = () => undefined
      const mayEnd = new Promise<void>(resolve => {
        finish = resolve
      })
      let gave: () => void = () => undefined
      const given = new Promise<void>(resolve => {
        gave = resolve
      })
      const claiming = test.db.write(async e => {
        const rows = await claimOnLink(e, link, claimant(own), 1, world.clock.now())
        gave()
        await mayEnd
        return rows
      })
      await given
      let drained = false
      const draining = drainIt().then(() => {
        drained = true
      })
      await systemClock.sleep(100)
      // It is over only when nothing more can come: who waits for the end counts what was given until now.
      expect(drained).to.equal(false)
      finish()
      expect(await claiming).to.have.length(1)
      await draining
      expect(await states()).to.deep.equal({ w: 'draining' })
      expect(await work(own)).to.equal(0)
    })

    it('is draining until it has no transfer, no import and no grant to renew', async () => {
      const own = await session('w')
      await session('other')
      expect(await work(own, 3)).to.equal(3)
      expect(await states()).to.deep.equal({ other: 'working', w: 'working' })
      await drainIt()
      await world.clock.advance(5_000)
      await drainIt()
      const [, row] = await all()
      const shown = { worker: 'w', active: 3, imports: 0, version: '1.2.3', drained_at: world.clock.now() - 5_000 }
      expect(row).to.deep.include(shown)
      expect(await states()).to.deep.equal({ other: 'working', w: 'draining' })

      await world.change("UPDATE transfers SET state = 'DONE', session_id = NULL WHERE session_id = :own", { own })
      expect(await states()).to.deep.equal({ other: 'working', w: 'drained' })
      const until = world.clock.now() + 60_000
      await world.change(
        'UPDATE grants SET lease_session_id = :own, lease_until = :until WHERE id = (SELECT min(id) FROM grants)',
        { own, until },
      )
      expect(await states()).to.deep.equal({ other: 'working', w: 'draining' })
      await world.clock.advance(60_000)
      expect(await states()).to.deep.equal({ other: 'working', w: 'drained' })
    })

    it('is listed without a session, and one that is neither drained nor has one is not', async () => {
      for (const worker of ['w', 'other']) {
        const id = await session(worker)
        await test.db.write(e => endSession(e, id, world.clock.now(), world.clock.now()))
      }
      await drainIt()
      expect(await all()).to.have.length(1)
      expect((await all())[0]).to.deep.include({ worker: 'w', started_at: null, active: 0, busy: 0 })
      await test.db.write(e => resume(e, KEY))
      expect(await all()).to.deep.equal([])
      expect(await workersNamed(test.db.read, 'w', {})).to.deep.equal([KEY])
    })

    it('is one of its own pool: another of that name goes on', async () => {
      const [own, namesake] = [await session('w'), { ...POOL, client: 'other-pool' }]
      const opened = { worker: 'w', publicJwk: '{}', expiresAt: world.clock.now() + 20_000 }
      const theirs = await test.db.write(e => insertSession(e, namesake, opened, world.clock.now()))
      await drainIt()
      expect([await work(own), await work(theirs)]).to.deep.equal([0, 1])
      expect(await workersNamed(test.db.read, 'w', {})).to.have.length(2)
      expect(await workersNamed(test.db.read, 'w', { client: 'pool' })).to.deep.equal([KEY])
      const seen = await listWorkers(test.db.read, { voIds: [] }, [namesake], world.clock.now())
      expect(seen.map(row => [row.client, row.active, row.busy])).to.deep.equal([['other-pool', 0, 1]])
    })
  })
}
