import { expect } from 'chai'
import type { Context } from '../../server/context.ts'
import { query } from '../../server/database/sql.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { ruleReplacer } from '../../server/rules/history.ts'
import { ruleExpirer, ruleRepairer } from '../../server/rules/upkeep.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

/** As many as a round takes. */
const FAILING = 100

for (const { name, open } of databases) {
  describe(`rules whose work fails hold up no other (rucio #8699), on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let last: number

    /** Rules that are alike but for their copies; all but the last will fail. */
    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', 1, 'A')
      for (let copies = 1; copies <= FAILING + 1; copies += 1) last = await world.addRule('d', 'B', copies)
      await world.change("UPDATE rules SET stage = 'EXPANDED'")
    })
    afterEach(() => test.drop())

    /** The service; a transaction after which one of the failing rules is so fails. */
    async function run(service: (context: Context) => Service, done: string): Promise<void> {
      const write: Context['db']['write'] = work =>
        test.db.write(async executor => {
          const answer = await work(executor)
          const [row] = await query(executor, `SELECT 1 FROM rules WHERE id <> ${last} AND ${done}`)
          if (row !== undefined) throw new Error('as if')
          return answer
        })
      // What it logs.
      await world.run(context => service({ ...context, db: { ...test.db, write } })).catch(() => undefined)
    }

    it('where their lifetime is over', async () => {
      await world.change('UPDATE rules SET expires_at = 1')
      await run(ruleExpirer, "stage = 'REMOVING'")
      expect(await world.rows("SELECT id FROM rules WHERE stage = 'REMOVING'")).to.deep.equal([{ id: last }])
    })

    it('where their transfers follow', async () => {
      await world.change('UPDATE rules SET align_cursor = 0')
      await run(ruleAligner, 'align_cursor IS NULL')
      expect(await world.rows('SELECT id FROM rules WHERE align_cursor IS NULL')).to.deep.equal([{ id: last }])
    })

    it('where they take the place of others', async () => {
      await world.change("UPDATE rules SET replaces = 1000000, state = 'OK'")
      await run(ruleReplacer, 'replaces IS NULL')
      expect(await world.rows('SELECT id FROM rules WHERE replaces IS NULL')).to.deep.equal([{ id: last }])
    })

    it('where they are repaired', async () => {
      await world.change("UPDATE rules SET state = 'STUCK', error = 'NO', repair_at = id")
      for (let rounds = 0; rounds < 2; rounds += 1) await run(ruleRepairer, 'repairs > 0')
      expect(await world.rows('SELECT id FROM rules WHERE repairs > 0')).to.deep.equal([{ id: last }])
      const again = await world.number('SELECT count(*) AS n FROM rules WHERE repair_at <= :now', {
        now: world.clock.now(),
      })
      expect(again, 'what failed is tried again in a minute').to.equal(0)
    })
  })
}
