import { expect } from 'chai'
import { insertContents } from '../../server/catalogue/contents-store.ts'
import { findDids } from '../../server/catalogue/did-store.ts'
import { replicasArrived } from '../../server/catalogue/register.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`attaching while a rule is evaluated, on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
    })
    afterEach(() => test.drop())

    const container = async (): Promise<number> => {
      await world.change(
        `INSERT INTO dids (scope_id, name, type, bytes, files, is_open, account_id, created_at)
         SELECT scope_id, 'all', 'CONTAINER', 0, 0, true, account_id, 0 FROM dids LIMIT 1`,
      )
      return world.didId('all')
    }
    const put = async (parent: number, child: string): Promise<void> => {
      const childId = await world.didId(child)
      await test.db.write(async e => {
        await insertContents(e, parent, [childId])
        await reevaluateRules(e, { id: parent, type: 'CONTAINER' }, [childId])
      })
    }

    it('a dataset that comes between the look and the choice is not forgotten', async () => {
      await world.dataset('first', 2, 'A')
      await world.dataset('second', 3, 'A')
      const all = await container()
      await put(all, 'first')
      await world.addRule('all', 'B', 1)
      let attached = false
      const write: typeof test.db.write = async work => {
        if (!attached) {
          attached = true
          await put(all, 'second')
        }
        return test.db.write(work)
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      expect(await world.rows('SELECT locks_replicating, stage FROM rules')).to.deep.equal([
        { locks_replicating: 5, stage: 'EXPANDED' },
      ])
    })

    it('lets the pass that runs come to its end (rucio #8436)', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.change('DELETE FROM rule_parts')
      await world.change("UPDATE rules SET stage = 'EXPANDING', cursor_choice = 0, cursor_file = 2, updated_at = 7")
      const id = await world.didId('d')
      await test.db.write(e => reevaluateRules(e, { id, type: 'DATASET' }, []))
      expect(await world.rows('SELECT stage, cursor_file, updated_at FROM rules')).to.deep.equal([
        { stage: 'EXPANDING', cursor_file: 2, updated_at: 7 },
      ])
      await world.evaluate()
      expect(await world.rows('SELECT stage, locks_replicating FROM rules')).to.deep.equal([
        { stage: 'EXPANDED', locks_replicating: 3 },
      ])
      expect(await world.number('SELECT count(*) AS n FROM rule_parts')).to.equal(0)
    })

    it('looks at what was attached, and not at the whole rule once more', async () => {
      await world.dataset('old', 4, 'A')
      await world.dataset('young', 1, 'A')
      const all = await container()
      await put(all, 'old')
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      await world.attach('old', 'more', 'A')
      await put(all, 'young')
      const looked: string[] = []
      const write: typeof test.db.write = async work => {
        const answer = await test.db.write(work)
        looked.push(
          ...(
            await world.rows<{ name: string }>(
              'SELECT name FROM rule_choices JOIN dids ON dids.id = dataset_id WHERE todo',
            )
          ).map(row => row.name),
        )
        return answer
      }
      await world.evaluate()
      await world.attach('young', 'again', 'A')
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      expect(new Set(looked)).to.deep.equal(new Set(['young']))
      expect(await world.rows('SELECT stage, locks_replicating FROM rules')).to.deep.equal([
        { stage: 'EXPANDED', locks_replicating: 7 },
      ])
    })

    it('what arrives in another way ends the waiting transfers, and counts', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      const files = Array.from({ length: 3 }, (_, i) => ({ scope_id: 1, name: `d.f${i}` }))
      const ids = (await findDids(test.db.read, files)).map(row => row.id)
      const rse = await world.rse('B')
      expect(await test.db.write(e => replicasArrived(e, rse, ids, 'succeed', world.clock.now()))).to.equal(3)
      expect(await world.rows('SELECT state, locks_ok FROM rules')).to.deep.equal([{ state: 'OK', locks_ok: 3 }])
      expect(await world.rows('SELECT DISTINCT state FROM transfers')).to.deep.equal([{ state: 'CANCELLED' }])
    })
  })
}
