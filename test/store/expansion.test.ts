import { expect } from 'chai'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { deleteAttribute, putAttribute } from '../../server/storages/store.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { killedAt } from './killed.ts'
import { World } from './world.ts'

/** More than one step for each choice. */
const FILES = 1_200
const DATASETS = ['d0', 'd1', 'd2']

for (const { name, open } of databases) {
  describe(`the evaluation of rules on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
    })
    afterEach(() => test.drop())

    /** Locks, replicas and open transfers, by name: the same however the work was interrupted. */
    async function outcome(): Promise<unknown> {
      const replicas = await world.rows(
        `SELECT dids.name, rses.name AS rse, replicas.state, lock_count, directories.path,
                (SELECT count(*) FROM transfers WHERE replica_id = replicas.id) AS transfers,
                (SELECT min(rule_id || locks.state) FROM locks WHERE replica_id = replicas.id) AS lock
           FROM replicas JOIN dids ON dids.id = file_id JOIN rses ON rses.id = replicas.rse_id
           JOIN directories ON directories.id = directory_id ORDER BY dids.name, rses.name`,
      )
      return {
        replicas,
        rules: await world.rows('SELECT id, state, stage, locks_ok, locks_replicating FROM rules ORDER BY id'),
      }
    }

    for (const when of ['before', 'after'] as const) {
      it(`does nothing twice when it is killed ${when} each commit`, async function () {
        this.timeout(60_000)
        for (const dataset of DATASETS) await world.dataset(dataset, FILES, 'A')
        for (const dataset of DATASETS) await world.addRule(dataset, 'A|B|C', 2)
        let killed = 0
        while ((await world.rows("SELECT id FROM rules WHERE stage <> 'EXPANDED'")).length > 0) {
          if (when === 'before') await killedAt(world, 'before')
          await killedAt(world, 'after')
          killed += 1
          expect(await brokenInvariants(world)).to.deep.equal([])
        }
        // Each rule chooses, expands two choices in three steps each, and looks for a further one.
        expect(killed).to.equal(DATASETS.length * (1 + 2 * 3 + 1))
        const interrupted = await outcome()

        const other = await open()
        try {
          world = await World.make(other.db, { rses: ['A', 'B', 'C'] })
          for (const dataset of DATASETS) await world.dataset(dataset, FILES, 'A')
          for (const dataset of DATASETS) await world.addRule(dataset, 'A|B|C', 2)
          await world.evaluate()
          expect(interrupted).to.deep.equal(await outcome())
        } finally {
          await other.drop()
        }
      })
    }

    it('takes a removed rule away in steps that may be interrupted', async () => {
      await world.dataset('d', FILES, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      while ((await world.rows('SELECT id FROM rules')).length > 0) {
        await killedAt(world, 'after')
        expect(await brokenInvariants(world)).to.deep.equal([])
      }
      expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'CANCELLED'")).to.equal(FILES)
      expect(await world.number('SELECT count(*) AS n FROM replicas WHERE tombstone_at IS NOT NULL')).to.equal(FILES)
    })

    it('extends a rule when a file is attached, and changes nothing else', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B|C', 1)
      await world.evaluate()
      const [choice] = await world.rows<{ rse_id: number }>('SELECT rse_id FROM rule_choices')
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      const places = await world.rows<{ rse_id: number; n: number }>(
        "SELECT rse_id, count(*) AS n FROM replicas WHERE state = 'COPYING' GROUP BY rse_id",
      )
      expect(places).to.deep.equal([{ rse_id: choice?.rse_id, n: 4 }])
      expect(await world.number('SELECT locks_replicating AS n FROM rules')).to.equal(4)
    })

    it('of a rule whose storages are gone leaves a reason, and holds up no other rule', async () => {
      await world.dataset('lost', 2, 'A')
      await world.dataset('fine', 2, 'A')
      const lost = await world.addRule('lost', 'NOWHERE', 1)
      const fine = await world.addRule('fine', 'B', 1)
      await world.evaluate()
      const [first, second] = await world.rows<{ id: number; state: string; error: string | null }>(
        'SELECT id, state, error FROM rules ORDER BY id',
      )
      expect(first).to.deep.include({ id: lost, state: 'STUCK' })
      expect(first?.error).to.contain('RSE_EXPRESSION_UNKNOWN: no RSE and no attribute of one is called "NOWHERE"')
      expect(second).to.deep.equal({ id: fine, state: 'REPLICATING', error: null })
    })

    it('of a rule one of whose attributes has vanished leaves a reason, and goes on when it is back', async () => {
      const { id } = await world.rse('B')
      await world.db.write(executor => putAttribute(executor, id, 'disk', true))
      world.context.storages.forget()
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'C|disk', 2)
      await world.db.write(executor => deleteAttribute(executor, id, 'disk'))
      world.context.storages.forget()
      await world.evaluate()
      const rule = () => world.rows<{ state: string; error: string | null }>('SELECT state, error FROM rules')
      expect((await rule())[0]?.state).to.equal('STUCK')
      expect((await rule())[0]?.error).to.contain('called "disk" at position 3')
      await world.db.write(executor => putAttribute(executor, id, 'disk', true))
      world.context.storages.forget()
      await world.run(ruleRepairer)
      await world.clock.advance(60_000)
      await world.run(ruleRepairer)
      await world.evaluate()
      expect(await rule()).to.deep.equal([{ state: 'REPLICATING', error: null }])
    })

    it('of a rule that finds too few storages says so, and is never OK', async () => {
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'A|B', 2)
      await world.change("UPDATE rses SET availability_write = false WHERE name = 'B'")
      world.context.storages.forget()
      await world.evaluate()
      const [rule] = await world.rows<{ state: string; error: string | null }>('SELECT state, error FROM rules')
      expect(rule?.state).to.equal('STUCK')
      expect(rule?.error).to.contain('fewer copies than asked for')
      await world.change("UPDATE rses SET availability_write = true WHERE name = 'B'")
      world.context.storages.forget()
      await world.clock.advance(10_000)
      await world.run(ruleRepairer)
      await world.clock.advance(60_000)
      await world.run(ruleRepairer)
      await world.evaluate()
      const [later] = await world.rows<{ state: string; error: string | null }>('SELECT state, error FROM rules')
      expect(later).to.deep.equal({ state: 'REPLICATING', error: null })
    })
  })
}
