import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import { updateRule } from '../../server/rules/life.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { repairDelay, ruleExpirer, ruleRepairer } from '../../server/rules/upkeep.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`the upkeep of rules on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
    })
    afterEach(() => test.drop())

    const stuck = (): Promise<number> => world.number("SELECT count(*) AS n FROM locks WHERE state = 'STUCK'")

    it('repairs all stuck locks of a rule at once, then waits longer each time (rucio #8743)', async () => {
      await world.dataset('d', 1_200, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      const fail = async (): Promise<void> => {
        await world.change("UPDATE transfers SET state = 'FAILED'")
        await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'COPYING'")
        await world.change("UPDATE locks SET state = 'STUCK'")
        await world.change("UPDATE rules SET state = 'STUCK', locks_stuck = 1200, locks_replicating = 0")
      }
      await fail()
      await world.run(ruleRepairer)
      expect(await stuck()).to.equal(1_200)
      await world.clock.advance(60_000)
      await world.run(ruleRepairer)
      expect(await stuck()).to.equal(0)
      expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'QUEUED'")).to.equal(1_200)
      await fail()
      await world.clock.advance(repairDelay(1) - 1)
      await world.run(ruleRepairer)
      expect(await stuck()).to.equal(1_200)
      await world.clock.advance(1)
      await world.run(ruleRepairer)
      expect(await stuck()).to.equal(0)
      expect(await world.rows('SELECT state, locks_stuck FROM rules WHERE id = :rule', { rule })).to.deep.equal([
        { state: 'REPLICATING', locks_stuck: 0 },
      ])
    })

    it('does not end a rule that somebody prolongs just then', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      const prolong = (expiresAt: number) =>
        test.db.write(executor => updateRule(executor, rule, { expiresAt }, 'somebody', world.clock.now()))
      await prolong(world.clock.now())
      const write: Database['write'] = async work => {
        await prolong(world.clock.now() + 60_000)
        return test.db.write(work)
      }
      await world.run(context => ruleExpirer({ ...context, db: { ...test.db, write } }))
      expect(await world.rows('SELECT stage FROM rules')).to.deep.equal([{ stage: 'CHOOSING' }])
      expect(await world.number("SELECT count(*) AS n FROM rule_events WHERE event = 'expired'")).to.equal(0)
    })

    it('lets a rule be added again while its like is still being removed', async () => {
      await world.dataset('d', 3, 'A')
      const first = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await test.db.write(e => startRemoval(e, first, world.clock.now()))
      const second = await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await world.rows('SELECT id, locks_replicating FROM rules')).to.deep.equal([
        { id: second, locks_replicating: 3 },
      ])
      expect(await world.number('SELECT min(lock_count) AS n FROM replicas WHERE rse_id = 2')).to.equal(1)
    })

    it('removes rules whose lifetime is over, and their waiting transfers', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.change('UPDATE rules SET expires_at = :at', { at: world.clock.now() + 1_000 })
      await world.run(ruleExpirer)
      await world.evaluate()
      expect(await world.number('SELECT count(*) AS n FROM rules')).to.equal(1)
      await world.clock.advance(1_000)
      await world.run(ruleExpirer)
      await world.evaluate()
      expect(await world.number('SELECT count(*) AS n FROM rules')).to.equal(0)
      expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'CANCELLED'")).to.equal(3)
    })
  })
}
