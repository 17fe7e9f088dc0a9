import { expect } from 'chai'
import { putLimit } from '../../server/accounts/limit-store.ts'
import { insertContents } from '../../server/catalogue/contents-store.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { repairQuota, startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { putAttribute, updateRse } from '../../server/storages/store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const HOUR_MS = 3_600_000

for (const { name, open } of databases) {
  describe(`what rules choose on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    /** Where the rule has locks: by dataset the storages' names. */
    async function places(rule: number): Promise<Record<string, string[]>> {
      const rows = await world.rows<{ dataset: string; rse: string }>(
        `SELECT DISTINCT datasets.name AS dataset, rses.name AS rse FROM locks JOIN replicas ON replicas.id = locks.replica_id
           JOIN rses ON rses.id = replicas.rse_id JOIN contents ON contents.child_id = replicas.file_id
           JOIN dids AS datasets ON datasets.id = contents.parent_id WHERE locks.rule_id = ${rule} ORDER BY 1, 2`,
      )
      const found: Record<string, string[]> = {}
      for (const { dataset, rse } of rows) found[dataset] = [...(found[dataset] ?? []), rse]
      return found
    }

    async function limit(expression: string, bytes: number | null, account: number | undefined = world.accountId) {
      const given = { voId: world.voId, accountId: account, expression, bytes }
      await test.db.write(executor => putLimit(executor, given, world.clock.now()))
    }

    /** The next repair of what is stuck is due, and done. */
    async function repaired(): Promise<void> {
      await world.run(ruleRepairer)
      world.clock.advance(HOUR_MS)
      await world.run(ruleRepairer)
      await world.evaluate()
    }

    /** Every transfer is claimed and fails for good at its destination. */
    async function failAll(): Promise<void> {
      await world.grantAll()
      const session = await world.openSession(365 * 24 * HOUR_MS)
      const held = await world.claim(session, 100)
      const error = { ...FAILURE, retryable: false }
      const told = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 0, cleaned: true, left: 'nothing' } as const
      await applyOutcomes(
        world.context,
        DEFAULT_RETRY_POLICY,
        session,
        held.map(({ id, fence }) => ({ transfer: id, fence, result: 'failed', error, ...told })),
      )
    }

    async function attachDataset(container: string, dataset: string): Promise<void> {
      const parent = { id: await world.didId(container), type: 'CONTAINER' }
      const child = await world.didId(dataset)
      await test.db.write(async executor => {
        await reevaluateRules(executor, parent, await insertContents(executor, parent.id, [child]))
      })
    }

    async function manyDatasets(count: number): Promise<void> {
      const names = Array.from({ length: count }, (_, i) => `d${i}`)
      for (const dataset of names) await world.dataset(dataset, 2, 'A')
      await world.container(
        'all',
        names.map(dataset => `s:${dataset}`),
      )
    }

    async function ruleRow(id: number): Promise<{ state: string; error: string | null; locks_replicating: number }> {
      const [row] = await world.rows<{ state: string; error: string | null; locks_replicating: number }>(
        `SELECT state, error, locks_replicating FROM rules WHERE id = ${id}`,
      )
      if (row === undefined) throw new Error(`rule ${id} is gone`)
      return row
    }

    it('with grouping DATASET each dataset has storages of its own', async () => {
      await manyDatasets(20)
      const rule = await world.addRule('all', 'B|C|D', 1)
      await world.evaluate()
      const found = Object.values(await places(rule))
      expect(found.map(rses => rses.length)).to.deep.equal(found.map(() => 1))
      expect(new Set(found.flat())).to.deep.equal(new Set(['B', 'C', 'D']))
    })

    it('with grouping ALL everything is at the same storages, what is attached later too', async () => {
      await manyDatasets(20)
      world.grouping = 'ALL'
      const rule = await world.addRule('all', 'B|C|D', 2)
      await world.evaluate()
      await world.dataset('late', 3, 'A')
      await attachDataset('all', 'late')
      await world.evaluate()
      const found = await places(rule)
      expect(Object.keys(found)).to.have.length(21)
      expect(new Set(Object.values(found).map(rses => rses.join()))).to.have.property('size', 1)
    })

    it('with grouping ALL it is where most of the bytes of all are, not of each', async () => {
      await world.dataset('small', 1, 'B')
      await world.dataset('large', 30, 'C')
      await world.container('all', ['s:small', 's:large'])
      world.grouping = 'ALL'
      const rule = await world.addRule('all', 'B|C|D', 1)
      await world.evaluate()
      expect(await places(rule)).to.deep.equal({ small: ['C'], large: ['C'] })
    })

    it('with grouping NONE each file is where it fits, and each in as many copies', async () => {
      await world.dataset('d', 60, 'A')
      world.grouping = 'NONE'
      const rule = await world.addRule('d', 'B|C|D', 2)
      await world.evaluate()
      const files = await world.rows<{ n: number }>(
        `SELECT count(*) AS n FROM locks JOIN replicas ON replicas.id = replica_id WHERE rule_id = ${rule} GROUP BY file_id`,
      )
      expect(files).to.deep.equal(Array.from({ length: 60 }, () => ({ n: 2 })))
      const storages = await world.rows<{ n: number }>(
        `SELECT count(*) AS n FROM locks JOIN replicas ON replicas.id = replica_id WHERE rule_id = ${rule} GROUP BY rse_id`,
      )
      expect(storages).to.have.length(3)
      for (const { n } of storages) expect(n).to.be.within(25, 55)
    })

    it('with grouping NONE what is there already stays there', async () => {
      await world.dataset('d', 10, 'B')
      await world.attach('d', 'other', 'C')
      world.grouping = 'NONE'
      const rule = await world.addRule('d', 'B|C|D', 1)
      await world.evaluate()
      expect(await ruleRow(rule)).to.deep.include({ state: 'OK', locks_replicating: 0 })
    })

    it('by weight: a storage without it gets nothing, and the rule says which and why when there are too few', async () => {
      for (const [rse, value] of [
        ['B', 1],
        ['C', 0],
      ] as const) {
        const { id } = await world.rse(rse)
        await test.db.write(executor => putAttribute(executor, id, 'share', value))
      }
      world.context.storages.forget()
      await world.dataset('d', 3, 'A')
      world.weight = 'share'
      const rule = await world.addRule('d', 'B|C|D', 2)
      await world.evaluate()
      expect(await places(rule)).to.deep.equal({ d: ['B'] })
      const { state, error } = await ruleRow(rule)
      expect(state).to.equal('STUCK')
      expect(error).to.equal(
        'COPIES_IMPOSSIBLE: 1 dataset has fewer copies than asked for; C, D: without the weight that the rule names',
      )
    })

    it('by quota: never above it, and more when there is more', async () => {
      await manyDatasets(10)
      // Each dataset has 201 bytes.
      await limit('B|C|D', 1000)
      const rule = await world.addRule('all', 'B|C|D', 1)
      await world.evaluate()
      expect(Object.keys(await places(rule))).to.have.length(4)
      expect((await ruleRow(rule)).error).to.equal(
        'QUOTA_EXCEEDED: 6 datasets have fewer copies than asked for; B, C, D: above the quota of the account',
      )
      await limit('B|C|D', 2010)
      await repaired()
      expect(Object.keys(await places(rule))).to.have.length(10)
      expect(await ruleRow(rule)).to.deep.include({ state: 'REPLICATING', error: null })
    })

    for (const grouping of ['ALL', 'DATASET', 'NONE'] as const) {
      it(`by a quota of several storages together: two copies count twice in it (grouping ${grouping})`, async () => {
        await world.dataset('d', 1, 'A')
        await limit('B|C', 150)
        world.grouping = grouping
        const rule = await world.addRule('d', 'B|C|D', 3)
        await world.evaluate()
        const usage = await world.number(
          "SELECT sum(bytes) AS n FROM account_usage JOIN rses ON rses.id = rse_id WHERE name <> 'D'",
        )
        expect(usage).to.equal(100)
        expect((await ruleRow(rule)).error).to.match(/^QUOTA_EXCEEDED/)
      })
    }

    it('a rule that finds too little is STUCK, and looks again when a limit is raised', async () => {
      await world.dataset('d', 1, 'A')
      await limit('*', 0)
      for (const grouping of ['DATASET', 'NONE'] as const) {
        world.grouping = grouping
        const rule = await world.addRule('d', grouping === 'NONE' ? 'B' : 'C', 1)
        await world.evaluate()
        expect((await ruleRow(rule)).state).to.equal('STUCK')
      }
      await world.run(ruleRepairer)
      await limit('*', null)
      const all = { voId: world.voId, accountId: undefined }
      await test.db.write(executor => repairQuota(executor, all, world.clock.now()))
      await world.run(ruleRepairer)
      await world.evaluate()
      expect(await world.rows('SELECT DISTINCT state FROM rules')).to.deep.equal([{ state: 'REPLICATING' }])
    })

    it('by quota with grouping NONE: file by file', async () => {
      await world.dataset('d', 10, 'A')
      world.grouping = 'NONE'
      await limit('B', 250)
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await ruleRow(rule)).to.deep.include({ state: 'STUCK', locks_replicating: 2 })
      await limit('B', null)
      await repaired()
      expect(await ruleRow(rule)).to.deep.include({ state: 'REPLICATING', error: null, locks_replicating: 10 })
    })

    it('with grouping NONE what is stuck at one storage is repaired at another, until all have failed it', async () => {
      await world.dataset('d', 3, 'A')
      world.grouping = 'NONE'
      const rule = await world.addRule('d', 'B|C', 1)
      await world.evaluate()
      const where = () =>
        world.rows<{ name: string; rse: string; state: string }>(
          `SELECT dids.name, rses.name AS rse, locks.state FROM locks JOIN replicas ON replicas.id = replica_id
             JOIN dids ON dids.id = file_id JOIN rses ON rses.id = rse_id WHERE rule_id = ${rule} ORDER BY dids.name`,
        )
      const before = await where()
      await failAll()
      expect((await where()).map(({ state }) => state)).to.deep.equal(['STUCK', 'STUCK', 'STUCK'])
      await repaired()
      const after = await where()
      const other = (rse: string) => (rse === 'B' ? 'C' : 'B')
      expect(after).to.deep.equal(before.map(({ name, rse }) => ({ name, rse: other(rse), state: 'REPLICATING' })))
      expect(await world.number('SELECT count(*) AS n FROM locks')).to.equal(3)
      await failAll()
      await repaired()
      expect(await where(), 'both have failed: it is tried where it is').to.deep.equal(after)
    })

    it('gives the quota back when a rule is removed', async () => {
      await manyDatasets(4)
      await limit('B', 1000)
      const first = await world.addRule('all', 'B', 1)
      await world.evaluate()
      await test.db.write(executor => startRemoval(executor, first, world.clock.now()))
      await world.evaluate()
      expect(await world.number('SELECT coalesce(sum(bytes + files + reserved), 0) AS n FROM account_usage')).to.equal(
        0,
      )
      const second = await world.addRule('all', 'B', 1)
      await world.evaluate()
      expect((await ruleRow(second)).error).to.equal(null)
    })

    it('what is attached to a dataset counts: where the quota is spent it is not locked, and the rule says so', async () => {
      await world.dataset('d', 2, 'A')
      await limit('B', 205)
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      const { state, error, locks_replicating } = await ruleRow(rule)
      expect({ state, locks_replicating }).to.deep.equal({ state: 'STUCK', locks_replicating: 2 })
      expect(error).to.contain('QUOTA_EXCEEDED').and.to.contain('B: above the quota')
      await limit('B', 208)
      await repaired()
      expect(await ruleRow(rule)).to.deep.include({ state: 'REPLICATING', error: null, locks_replicating: 3 })
    })

    it('by space: what has no room is left out, and says so', async () => {
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { capacityBytes: 500 }))
      world.context.storages.forget()
      await manyDatasets(4)
      const rule = await world.addRule('all', 'B', 1)
      await world.evaluate()
      expect(Object.keys(await places(rule))).to.have.length(2)
      expect((await ruleRow(rule)).error).to.equal(
        'NO_SPACE: 2 datasets have fewer copies than asked for; B: without the space',
      )
    })

    it('two servers that choose for one account at once stay within its quota', async () => {
      await manyDatasets(10)
      await limit('*', 1000)
      for (const expression of ['B', 'C', 'D']) await world.addRule('all', expression, 1)
      const servers = [world, world.on(test.db), world.on(test.db)]
      await Promise.all(servers.map(each => each.evaluate()))
      for (const each of servers) await each.evaluate()
      const used = await world.number('SELECT sum(bytes + reserved) AS n FROM account_usage')
      expect(used).to.be.within(800, 1000)
    })
  })
}
