import { expect } from 'chai'
import { addUsage } from '../../server/accounts/usage-store.ts'
import { insertContents } from '../../server/catalogue/contents-store.ts'
import { ensureScopes, insertDids } from '../../server/catalogue/did-store.ts'
import { updateRule } from '../../server/rules/life.ts'
import { lockRule, repairNow, startRemoval, takeStep } from '../../server/rules/step-store.ts'
import { emptyRule, type RuleRow } from '../../server/rules/store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

const MINUTE_MS = 60_000

for (const { name, open } of databases) {
  describe(`what keeps a rule from its end on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    const now = (): number => world.clock.now()
    async function ruleOf(id: number): Promise<RuleRow & { readonly repair_at: number | null }> {
      const [row] = await world.rows<RuleRow & { readonly repair_at: number | null }>(
        `SELECT * FROM rules WHERE id = ${id}`,
      )
      if (row === undefined) throw new Error(`rule ${id} is gone`)
      return row
    }

    /** A container of so many datasets of one file, which they share. */
    async function datasets(count: number): Promise<string> {
      await world.dataset('one', 1, 'A')
      await test.db.write(async executor => {
        const scopes = await ensureScopes(executor, world.voId, ['s'])
        const common = {
          scope_id: scopes.get('s') ?? 0,
          type: 'DATASET' as const,
          bytes: 0,
          files: 0,
          adler32: null,
          md5: null,
        }
        const rows = Array.from({ length: count }, (_, i) => ({ ...common, name: `d${i}` }))
        await insertDids(executor, rows, world.accountId, now())
      })
      const file = await world.didId('one.f0')
      const made = await world.rows<{ id: number }>("SELECT id FROM dids WHERE type = 'DATASET' AND name <> 'one'")
      await test.db.write(async executor => {
        for (const { id } of made) await insertContents(executor, id, [file])
      })
      await world.container('all', ['s:one'])
      const all = await world.didId('all')
      await test.db.write(executor =>
        insertContents(
          executor,
          all,
          made.map(({ id }) => id),
        ),
      )
      return 'all'
    }

    for (const grouping of ['DATASET', 'NONE'] as const) {
      it(`${grouping}: a file whose path is another's gets its lock when the path is free, without anybody's help`, async () => {
        world.grouping = grouping
        await world.dataset('d', 1, 'A')
        await world.attach('e', 'd/x', 'A')
        await world.attach('f', 'x', 'A')
        await world.put('d', 'd/x', 'x')
        const rule = await world.addRule('d', 'B', 1)
        await world.evaluate()
        expect(await ruleOf(rule)).to.include({ state: 'STUCK', problems: 1, locks_replicating: 2 })

        await world.run(ruleRepairer)
        world.clock.advance(MINUTE_MS)
        await world.run(ruleRepairer)
        await world.evaluate()
        expect(await ruleOf(rule)).to.include({ state: 'STUCK', problems: 1, repair_at: now() + 2 * MINUTE_MS })

        await world.change(
          `UPDATE replicas SET name = 'moved' WHERE name = 'x' AND rse_id = (SELECT id FROM rses WHERE name = 'B')`,
        )
        world.clock.advance(2 * MINUTE_MS)
        await world.run(ruleRepairer)
        await world.evaluate()
        expect(await ruleOf(rule)).to.include({
          state: 'REPLICATING',
          problems: 0,
          locks_replicating: 3,
          stage: 'EXPANDED',
        })
      })
    }

    it('ALL: of more datasets than one step looks at, the reason is the same to the end', async () => {
      world.grouping = 'ALL'
      const rule = await world.addRule(await datasets(600), 'B|C', 2)
      await world.change("UPDATE rses SET availability_write = false WHERE name = 'C'")
      world.context.storages.forget()
      await world.evaluate()
      expect(await ruleOf(rule)).to.include({
        state: 'STUCK',
        error: 'COPIES_IMPOSSIBLE: at least 500 datasets have fewer copies than asked for; C: not writable now',
      })
    })

    it('a rule with much goes some at a time, and what it reserved with it', async () => {
      const rule = await world.addRule(await datasets(4), 'B', 1)
      await world.evaluate()
      const { id: rseId } = await world.rse('B')
      await world.change('UPDATE rule_choices SET reserved = 10')
      await test.db.write(e => addUsage(e, world.accountId, [{ rse_id: rseId, files: 0, bytes: 0, reserved: 50 }]))
      const steps = []
      for (let i = 0; i < 3; i += 1) steps.push(await test.db.write(executor => emptyRule(executor, rule, 2)))
      expect(steps.map(({ empty, freed }) => [empty, freed.length])).to.deep.equal([
        [false, 2],
        [false, 2],
        [true, 1],
      ])
      expect(steps[0]?.freed[0]).to.deep.equal({ rse_id: rseId, reserved: 10 })
      await world.change('UPDATE account_usage SET reserved = 0')
      await test.db.write(executor => startRemoval(executor, rule, now()))
    })

    it('a rule on more than a step takes is gone in the end, and nothing is left of it', async () => {
      const rule = await world.addRule(await datasets(600), 'B', 1)
      await world.evaluate()
      expect(await world.number('SELECT count(*) AS n FROM rule_choices')).to.equal(601)
      await test.db.write(executor => startRemoval(executor, rule, now()))
      await world.evaluate()
      expect(await world.rows('SELECT id FROM rules UNION ALL SELECT id FROM rule_choices')).to.deep.equal([])
      expect(await world.rows('SELECT bytes, reserved FROM account_usage')).to.deep.equal([{ bytes: 0, reserved: 0 }])
      const events = await world.rows<{ event: string }>('SELECT event FROM rule_events ORDER BY id')
      expect(events.at(-1)?.event).to.equal('gone')
    }).timeout(60_000)

    it('who has a rule repaired by hand waits no longer for the next repair', async () => {
      await world.dataset('d', 1, 'A')
      await world.attach('e', 'd/x', 'A')
      await world.attach('f', 'x', 'A')
      await world.put('d', 'd/x', 'x')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      for (let i = 0; i < 4; i += 1) {
        await test.db.write(executor => repairNow(executor, rule, now()))
        await world.run(ruleRepairer)
        await world.evaluate()
        expect((await ruleOf(rule)).repair_at).to.equal(now() + 2 * MINUTE_MS)
      }
    })

    it('a step goes by what the rule says when it is taken', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      const found = await ruleOf(rule)
      await test.db.write(executor => updateRule(executor, rule, { priority: 5 }, 'somebody', now()))
      const taken = await test.db.write(async executor => {
        await lockRule(executor, rule)
        return takeStep(executor, found)
      })
      expect(taken?.priority).to.equal(5)
    })
  })
}
