import { expect } from 'chai'
import { registerFiles } from '../../server/catalogue/register.ts'
import { condemnReplicas, FOUND } from '../../server/faults/store.ts'
import { shownProblems } from '../../server/rules/routes.ts'
import { addToRules } from '../../server/rules/store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { whyOf } from '../../server/transfers/why-gather.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

const MINUTE_MS = 60_000
/** So often the services look. Minutes. */
const STEP = 10
const FAULT = { ...FOUND, transfer_id: null, code: 'SOURCE_CHECKSUM', message: 'adler32 is 1, not 2' }

for (const { name, open } of databases) {
  describe(`files that nobody has any more, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let rule: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      await world.dataset('d', 2, 'A')
      rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await condemn()
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    /** The only replica of the first file is BAD, as the planning of its transfer finds. */
    async function condemn(): Promise<void> {
      const replica = await world.number("SELECT min(id) AS n FROM replicas WHERE state = 'AVAILABLE'")
      await test.db.write(async executor => {
        await addToRules(executor, await condemnReplicas(executor, [{ ...FAULT, replica_id: replica }], 0), 0)
      })
      await world.change("UPDATE transfers SET state = 'WAITING', not_before = 0 WHERE source_replica_id = :replica", {
        replica,
      })
    }

    async function pass(minutes: number): Promise<void> {
      for (let minute = 0; minute < minutes; minute += STEP) {
        await world.clock.advance(STEP * MINUTE_MS)
        await world.run(transferReleaser)
        await world.run(ruleRepairer)
      }
    }

    async function states(): Promise<{ rule: string; transfers: string[] }> {
      const [row] = await world.rows<{ state: string }>('SELECT state FROM rules')
      const transfers = await world.rows<{ state: string; reason: string | null }>(
        'SELECT state, reason FROM transfers ORDER BY id',
      )
      return {
        rule: row?.state ?? '',
        transfers: transfers.map(({ state, reason }) => `${state} ${reason ?? ''}`.trim()),
      }
    }

    it('are waited for for an hour, then their rule is STUCK and says so', async () => {
      await pass(60)
      expect(await states()).to.deep.equal({ rule: 'REPLICATING', transfers: ['WAITING NO_SOURCE', 'QUEUED'] })
      await pass(20)
      expect(await states()).to.deep.equal({ rule: 'STUCK', transfers: ['FAILED NO_SOURCE', 'QUEUED'] })
      const message = 'no storage has a good replica of the file, and nobody is bringing one'
      expect(
        await shownProblems(test.db.read, world.context.storages, { id: rule, vo_id: world.voId, expression: 'B' }),
      ).to.deep.equal([{ did: 's:d.f0', rse: 'B', code: 'NO_SOURCE', message }])
      const [failed] = await world.rows<{ id: number }>("SELECT id FROM transfers WHERE state = 'FAILED'")
      const [said] = await whyOf(
        test.db.read,
        { pools: [], rses: await world.context.storages.all() },
        [failed?.id ?? 0],
        100,
        world.clock.now(),
      )
      expect(said?.sentence).to.equal(
        `it failed (NO_SOURCE: ${message}): it is copied as soon as it is somewhere again`,
      )
    })

    it('do not make their rule go to and fro (rucio #8743), and are copied as soon as they are somewhere again', async () => {
      await pass(80)
      for (let hour = 0; hour < 24; hour += 1) {
        await pass(60)
        expect(await states()).to.deep.equal({ rule: 'STUCK', transfers: ['FAILED NO_SOURCE', 'QUEUED'] })
      }
      const rse = await world.rse('C')
      const registration = {
        rse,
        accountId: world.accountId,
        dataset: undefined,
        files: [{ did: 's:d.f0', bytes: 100 }],
        state: 'AVAILABLE' as const,
      }
      await test.db.write(executor => registerFiles(executor, { ...registration, now: world.clock.now() }))
      await world.run(ruleRepairer)
      await world.run(transferReleaser)
      expect(await states()).to.deep.equal({ rule: 'REPLICATING', transfers: ['FAILED NO_SOURCE', 'QUEUED', 'QUEUED'] })
    })

    it('do not keep the repair of a rule from those that can be had', async () => {
      await pass(80)
      await world.change("UPDATE locks SET state = 'STUCK'")
      await world.change("UPDATE transfers SET state = 'FAILED' WHERE state = 'QUEUED'")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'COPYING'")
      await world.change('UPDATE rules SET locks_stuck = 2, locks_replicating = 0, repair_at = 0')
      await pass(10)
      expect(await states()).to.deep.equal({ rule: 'STUCK', transfers: ['FAILED NO_SOURCE', 'FAILED', 'QUEUED'] })
    })

    it('are waited for as long as a storage that has them is closed, or somebody uploads them', async () => {
      await world.change("UPDATE replicas SET state = 'TEMPORARY_UNAVAILABLE' WHERE state = 'BAD'")
      await pass(120)
      expect((await states()).transfers[0]).to.equal('WAITING NO_SOURCE')
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'TEMPORARY_UNAVAILABLE'")
      await world.change(
        `INSERT INTO uploads (replica_id, account_id, until)
         SELECT id, :account, :until FROM replicas WHERE state = 'UNAVAILABLE'`,
        { account: world.accountId, until: world.clock.now() + 3 * 60 * MINUTE_MS },
      )
      await pass(120)
      expect((await states()).transfers[0]).to.equal('WAITING NO_SOURCE')
      await pass(80)
      expect((await states()).transfers[0]).to.equal('FAILED NO_SOURCE')
    })
  })
}
