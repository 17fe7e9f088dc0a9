import { expect } from 'chai'
import { shownProblems } from '../../server/rules/routes.ts'
import { repairAt } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { updateRse } from '../../server/storages/store.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { whyOf } from '../../server/transfers/why-gather.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

const HOUR_MS = 3_600_000

for (const { name, open } of databases) {
  describe(`rules whose storage is closed, on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    async function write(rse: string, availabilityWrite: boolean): Promise<void> {
      const { id } = await world.rse(rse)
      await test.db.write(async executor => {
        await updateRse(executor, id, { availabilityWrite })
        if (availabilityWrite) await repairAt(executor, id, world.clock.now())
      })
      world.context.storages.forget()
    }
    async function wait(hours: number): Promise<void> {
      for (let i = 0; i < hours * 4; i += 1) {
        await world.run(transferReleaser)
        await world.run(ruleRepairer)
        await world.evaluate()
        await world.clock.advance(HOUR_MS / 4)
      }
    }
    const states = (): Promise<{ state: string }[]> => world.rows('SELECT state FROM rules')
    const transfers = (): Promise<{ rse: string; state: string; n: number }[]> =>
      world.rows(
        `SELECT rses.name AS rse, state, count(*) AS n FROM transfers JOIN rses ON rses.id = destination_rse_id
          GROUP BY rses.name, state ORDER BY rse, state`,
      )
    async function problems(rule: number): Promise<string[]> {
      const [row] = await world.rows<Parameters<typeof shownProblems>[2]>(`SELECT * FROM rules WHERE id = ${rule}`)
      const shown = row === undefined ? [] : await shownProblems(test.db.read, world.context.storages, row)
      return shown.map(({ code }) => code)
    }

    it('are STUCK after an hour, and say so', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await write('B', false)
      await wait(0.75)
      expect(await states(), 'a downtime may end').to.deep.equal([{ state: 'REPLICATING' }])
      await wait(1)
      expect(await states()).to.deep.equal([{ state: 'STUCK' }])
      expect(await problems(rule)).to.deep.equal(['RSE_READ_ONLY', 'RSE_READ_ONLY'])
      const [why] = await whyOf(test.db.read, { pools: [], rses: [] }, [1], 10, world.clock.now())
      expect(why?.figures).to.deep.include({ error: 'DESTINATION_CLOSED' })
    })

    it('stay STUCK as long as it is closed, and go on as soon as it is open', async () => {
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await write('B', false)
      await wait(24)
      expect(await transfers()).to.deep.equal([{ rse: 'B', state: 'FAILED', n: 2 }])
      await write('B', true)
      await world.run(ruleRepairer)
      expect(await states()).to.deep.equal([{ state: 'REPLICATING' }])
      expect(await transfers()).to.deep.equal([
        { rse: 'B', state: 'FAILED', n: 2 },
        { rse: 'B', state: 'QUEUED', n: 2 },
      ])
    })

    it('have their files elsewhere with grouping NONE, and where it was closed when that is', async () => {
      await world.dataset('d', 2, 'A')
      world.grouping = 'NONE'
      await write('C', false)
      await world.addRule('d', 'B|C', 1)
      await world.evaluate()
      await write('B', false)
      await write('C', true)
      await wait(3)
      expect(await states()).to.deep.equal([{ state: 'REPLICATING' }])
      expect(await transfers()).to.deep.equal([
        { rse: 'B', state: 'FAILED', n: 2 },
        { rse: 'C', state: 'QUEUED', n: 2 },
      ])
      await write('C', false)
      await write('B', true)
      await wait(3)
      expect((await transfers()).find(({ rse, state }) => rse === 'B' && state === 'QUEUED')?.n).to.equal(2)
    })
  })
}
