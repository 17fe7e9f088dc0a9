import { expect } from 'chai'
import { registerFiles } from '../../server/catalogue/register.ts'
import type { Context } from '../../server/context.ts'
import { updateRule } from '../../server/rules/life.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { updateRse } from '../../server/storages/store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const DAY_MS = 86_400_000

for (const { name, open } of databases) {
  describe(`files that come to rules that are stuck for want of them, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      session = await world.openSession(DAY_MS)
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    const now = (): number => world.clock.now()
    /** A rule at B whose files nobody has any more. */
    async function stuckFor(files: number): Promise<number> {
      await world.dataset('d', files, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.change("UPDATE transfers SET state = 'FAILED'")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE'")
      await world.change("UPDATE locks SET state = 'STUCK'")
      await world.change(`UPDATE rules SET state = 'STUCK', locks_stuck = ${files}, locks_replicating = 0`)
      return rule
    }
    /** As `World.dataset` made it. */
    async function bringTo(at: string, file: number): Promise<void> {
      const files = [{ did: `s:d.f${file}`, bytes: 100 + file }]
      const { accountId } = world
      const common = { rse: await world.rse(at), accountId, dataset: undefined, files, state: 'AVAILABLE' } as const
      await test.db.write(executor => registerFiles(executor, { ...common, now: now() }))
    }
    const queued = (): Promise<{ file: string; state: string }[]> =>
      world.rows(
        `SELECT dids.name AS file, transfers.state FROM transfers JOIN replicas ON replicas.id = replica_id
           JOIN dids ON dids.id = file_id WHERE transfers.state NOT IN ('FAILED', 'DONE') ORDER BY dids.id`,
      )
    const rule = async () => (await world.rows('SELECT state, locks_replicating, locks_stuck, repairs FROM rules'))[0]
    async function failAll(): Promise<void> {
      await world.grantAll()
      const ends = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: true, left: 'nothing' } as const
      const held = await world.claim(session, 100)
      const error = { ...FAILURE, retryable: false }
      const outcomes = held.map(({ id: transfer, fence }) => ({
        transfer,
        fence,
        result: 'failed' as const,
        error,
        ...ends,
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }

    it('are copied at once, each by itself', async () => {
      await stuckFor(3)
      await bringTo('C', 1)
      expect(await queued()).to.deep.equal([{ file: 'd.f1', state: 'QUEUED' }])
      expect(await rule()).to.deep.equal({ state: 'STUCK', locks_replicating: 1, locks_stuck: 2, repairs: 0 })
    })

    it('are copied though a repair of their rule has gone past them', async () => {
      await stuckFor(1_200)
      await world.change('UPDATE rules SET repairs = 8, repair_at = 0')
      let pages = 0
      const write: Context['db']['write'] = async work => {
        const done = await test.db.write(work)
        pages += 1
        if (pages === 1) await bringTo('C', 0)
        return done
      }
      await world.run(context => ruleRepairer({ ...context, db: { ...test.db, write } }))
      expect(pages).to.equal(2)
      expect(await queued()).to.deep.equal([{ file: 'd.f0', state: 'QUEUED' }])
    })

    it('count as no repair, and have nothing else tried again', async () => {
      await stuckFor(7)
      await bringTo('C', 0)
      await failAll()
      await world.run(ruleRepairer)
      const before = await world.rows('SELECT repairs, repair_at FROM rules')
      for (let file = 1; file < 7; file += 1) {
        await bringTo('C', file)
        expect(await queued()).to.deep.equal([{ file: `d.f${file}`, state: 'QUEUED' }])
        await failAll()
        await world.run(ruleRepairer)
        world.clock.advance(1_000)
      }
      expect(await world.rows('SELECT repairs, repair_at FROM rules')).to.deep.equal(before)
    })

    it('are not copied to a storage that is not written to', async () => {
      await stuckFor(1)
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { availabilityWrite: false }))
      await bringTo('C', 0)
      expect(await queued()).to.deep.equal([])
    })

    it('are not copied for a suspended rule', async () => {
      const id = await stuckFor(1)
      await test.db.write(executor => updateRule(executor, id, { suspended: true }, 'somebody', now()))
      await bringTo('C', 0)
      expect(await queued()).to.deep.equal([])
    })

    it('are not copied from where the rule does not take them', async () => {
      world.sources = 'A'
      await stuckFor(1)
      await bringTo('C', 0)
      expect(await queued()).to.deep.equal([])
      await bringTo('A', 0)
      expect(await queued()).to.deep.equal([{ file: 'd.f0', state: 'QUEUED' }])
    })

    it('are what was stuck itself, where it arrives', async () => {
      await stuckFor(2)
      await bringTo('B', 0)
      expect(await queued()).to.deep.equal([])
      expect(await rule()).to.deep.equal({ state: 'STUCK', locks_replicating: 0, locks_stuck: 1, repairs: 0 })
    })
  })
}
