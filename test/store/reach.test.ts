import { expect } from 'chai'
import { reachesGrant, type WorkerReach } from '../../server/accounts/reach.ts'
import { grantsToRenew } from '../../server/tokens/grant-store.ts'
import { claimOnLink, claimToSettle, isToSettle, linksToServe } from '../../server/transfers/claim.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

for (const { name, open } of databases) {
  describe(`what a worker may serve, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      session = await world.openSession()
    })
    afterEach(() => test.drop())

    const claimed = async (reach: WorkerReach): Promise<number> => {
      // With the link that anybody would be given: the claiming statement itself refuses what is not in reach.
      const [link] = await linksToServe(test.db.read, {}, world.clock.now())
      if (link === undefined) throw new Error('there is no work')
      const claimant = { ...reach, sessionId: session, fenceBase: FENCE_BASE }
      return (await test.db.write(e => claimOnLink(e, link, claimant, 10, world.clock.now()))).length
    }

    it('is never claimed by one that may not serve the VO, or either storage', async () => {
      const a = (await world.rse('A')).id
      const b = (await world.rse('B')).id
      expect(await claimed({ voIds: [world.voId + 1] })).to.equal(0)
      expect(await claimed({ rseIds: [a] })).to.equal(0)
      expect(await claimed({ rseIds: [b] })).to.equal(0)
      expect(await linksToServe(test.db.read, { rseIds: [a] }, world.clock.now())).to.deep.equal([])
      expect(await claimed({ voIds: [world.voId], rseIds: [a, b] })).to.equal(2)
    })

    it('is never settled by one that may not', async () => {
      const b = (await world.rse('B')).id
      expect(await claimed({})).to.equal(2)
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      const next = { sessionId: await world.openSession(), fenceBase: FENCE_BASE }
      const settle = async (reach: object): Promise<number> =>
        (await test.db.write(e => claimToSettle(e, { ...next, ...reach }, 10, world.clock.now()))).length
      expect(await settle({ voIds: [world.voId + 1] })).to.equal(0)
      expect(await settle({ rseIds: [b] })).to.equal(0)
      const a = (await world.rse('A')).id
      for (const reach of [{ activities: ['other'] }, { links: [{ source: b, destination: a }] }]) {
        expect(await isToSettle(test.db.read, reach, world.clock.now())).to.equal(false)
        expect(await settle(reach)).to.equal(0)
      }
      expect(await settle({ activities: ['test'], links: [{ source: a, destination: b }] })).to.equal(2)
    })

    it('is never claimed by one that is confined to another activity, or another link', async () => {
      const [a, b] = [(await world.rse('A')).id, (await world.rse('B')).id]
      const [there, back] = [
        { source: a, destination: b },
        { source: b, destination: a },
      ]
      for (const reach of [{ activities: [] }, { activities: ['other', 'tes'] }, { links: [] }, { links: [back] }]) {
        expect(await claimed(reach)).to.equal(0)
        expect(await linksToServe(test.db.read, reach, world.clock.now())).to.deep.equal([])
      }
      expect(await linksToServe(test.db.read, { activities: ['test'] }, world.clock.now())).to.have.length(1)
      expect(await linksToServe(test.db.read, { links: [back, there] }, world.clock.now())).to.have.length(1)
      expect(await claimed({ activities: ['other', 'test'], links: [back, there] })).to.equal(2)
    })

    it('is not hidden behind more of another activity, and hides none itself', async () => {
      // More bundles than a claim draws from, all of them more urgent.
      for (let i = 0; i < 25; i++) {
        await world.dataset(`urgent${i}`, 1, 'A')
        await world.addRule(`urgent${i}`, 'B', 1, 5, 'urgent')
      }
      await world.evaluate()
      await world.grantAll()
      expect(await claimed({ activities: ['test'] })).to.equal(2)
      expect(await claimed({ activities: ['test'] })).to.equal(0)
      expect(await claimed({ activities: ['urgent'] })).to.equal(10)
      expect(await claimed({})).to.equal(10)
    })

    it('and its grants are those of the ends of its links that it uses', async () => {
      const [a, b] = [(await world.rse('A')).id, (await world.rse('B')).id]
      const [there, back] = [
        { source: a, destination: b },
        { source: b, destination: a },
      ]
      await world.change("UPDATE grants SET state = 'RENEWING', exchanged = false, not_before = 0, lease_until = 0")
      const rows = await world.rows<{ id: number; vo_id: number; rse_id: number; purpose: 'read' | 'write' }>(
        'SELECT id, vo_id, rse_id, purpose FROM grants ORDER BY id',
      )
      const renewable = async (reach: WorkerReach): Promise<string[]> => {
        const ids = await grantsToRenew(test.db.read, reach, world.clock.now(), 10)
        const reached = rows.filter(row => reachesGrant(reach, row))
        expect(reached.map(({ id }) => id)).to.have.members(ids)
        return reached.map(({ purpose }) => purpose)
      }
      expect(await renewable({})).to.have.members(['read', 'write'])
      expect(await renewable({ activities: ['other'] })).to.have.members(['read', 'write'])
      expect(await renewable({ links: [there] })).to.have.members(['read', 'write'])
      expect(await renewable({ links: [back] })).to.deep.equal([])
      expect(await renewable({ links: [there], rseIds: [b] })).to.deep.equal(['write'])
      let before = 'read'
      for (const purpose of ['list', 'stage', 'delete'] as const) {
        await world.change('UPDATE grants SET purpose = :purpose WHERE purpose = :before', { purpose, before })
        before = purpose
        for (const reach of [{ activities: ['test'] }, { links: [there] }]) {
          expect(await grantsToRenew(test.db.read, reach, world.clock.now(), 10), purpose).to.have.length(1)
          expect(reachesGrant(reach, { vo_id: world.voId, rse_id: a, purpose }), purpose).to.equal(false)
        }
      }
    })
  })
}
