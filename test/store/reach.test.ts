import { expect } from 'chai'
import { claimOnLink, claimToSettle, linksToServe } from '../../server/transfers/claim.ts'
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

    const claimed = async (reach: { voIds?: number[]; rseIds?: number[] }): Promise<number> => {
      // With the link that anybody would be given: the claiming statement itself refuses what is not in reach.
      const [link] = await linksToServe(test.db.read, {})
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
      expect(await linksToServe(test.db.read, { rseIds: [a] })).to.deep.equal([])
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
      expect(await settle({})).to.equal(2)
    })
  })
}
