import { expect } from 'chai'
import type { Context } from '../../server/context.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { updateRule } from '../../server/rules/life.ts'
import { postpone, rulesInWork } from '../../server/rules/step-store.ts'
import { deriveState } from '../../server/rules/store.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

for (const { name, open } of databases) {
  describe(`the turns of rules on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
    })
    afterEach(() => test.drop())

    const update = (rule: number, change: Parameters<typeof updateRule>[2]): Promise<void> =>
      test.db.write(executor => updateRule(executor, rule, change, 'somebody', world.clock.now()))

    /** Aligns, and has this happen between the look for what is to be aligned and the transaction. */
    async function alignWhile(work: () => Promise<void>): Promise<void> {
      let happened = false
      const write: Context['db']['write'] = async step => {
        if (!happened) {
          happened = true
          await work()
        }
        return test.db.write(step)
      }
      await world.run(context => ruleAligner({ ...context, db: { ...test.db, write } }))
      await world.run(ruleAligner)
    }

    const openTransfers = (): Promise<number> =>
      world.number("SELECT count(*) AS n FROM transfers WHERE state IN ('WAITING', 'QUEUED')")

    it('a rule that is suspended while its transfers follow a new priority has none of them copied', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { priority: 5 })
      await alignWhile(async () => {
        await world.evaluate()
        await update(rule, { suspended: true })
      })
      expect(await openTransfers()).to.equal(0)
    })

    it('nor one that is resumed and suspended again meanwhile', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { suspended: true })
      await alignWhile(async () => {
        await update(rule, { suspended: false })
        await world.evaluate()
        await update(rule, { suspended: true })
      })
      expect(await openTransfers()).to.equal(0)
    })

    it('a rule whose files arrive keeps its place among those that are expanded (rucio #8436)', async () => {
      for (const one of ['x', 'y']) await world.dataset(one, 1, 'A')
      const x = await world.addRule('x', 'B', 1)
      world.clock.advance(10)
      const y = await world.addRule('y', 'B', 1)
      world.clock.advance(10)
      // As an outcome of one of its transfers does.
      await test.db.write(executor => deriveState(executor, x, world.clock.now()))
      const inTurn = async (): Promise<number[]> => (await rulesInWork(test.db.read, 10)).map(rule => rule.id)
      expect(await inTurn()).to.deep.equal([x, y])
      await test.db.write(executor => postpone(executor, x, world.clock.now()))
      expect(await inTurn()).to.deep.equal([y, x])
    })
  })
}
