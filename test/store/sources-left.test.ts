import { expect } from 'chai'
import { updateRse } from '../../server/storages/store.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`files that a rule with sources lets go of, on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'D'] })
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    it('come from where the rules that are left say', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('d', 1, 'D')
      await world.dataset('e', 1, 'A')
      await world.put('e', 'd.f0')
      const { id } = await world.rse('D')
      await test.db.write(executor => updateRse(executor, id, { availabilityRead: false }))
      world.context.storages.forget()
      world.sources = 'D'
      await world.addRule('e', 'B', 1)
      await world.evaluate()
      world.sources = 'A'
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.detach('e', 'd.f0')
      await world.evaluate()
      await world.run(transferReleaser)
      const transfers = await world.rows(
        `SELECT transfers.state, expression AS sources FROM transfers JOIN source_sets ON source_sets.id = source_set_id
           JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id WHERE dids.name = 'd.f0'`,
      )
      expect(transfers).to.deep.equal([{ state: 'QUEUED', sources: 'A' }])
    })
  })
}
