import { expect } from 'chai'
import { putLimit } from '../../server/accounts/limit-store.ts'
import type { Context } from '../../server/context.ts'
import { chooseStep } from '../../server/rules/choose.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { ruleReplacer } from '../../server/rules/history.ts'
import { replaceRule, updateRule } from '../../server/rules/life.ts'
import { Rooms } from '../../server/rules/room.ts'
import { repairQuota } from '../../server/rules/step-store.ts'
import type { RuleRow } from '../../server/rules/store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

const HOUR_MS = 3_600_000
const YEAR_MS = 8760 * HOUR_MS

/** Limits, and what comes, goes or is replaced under them. */
for (const { name, open } of databases) {
  describe(`rules under limits on ${name}`, () => {
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

    const now = (): number => world.clock.now()
    const locksOf = (rule: number): Promise<number> =>
      world.number(`SELECT count(*) AS n FROM locks WHERE rule_id = ${rule}`)
    const used = (): Promise<number> =>
      world.number('SELECT coalesce(sum(bytes + reserved), 0) AS n FROM account_usage')
    async function ruleOf(id: number): Promise<RuleRow | undefined> {
      return (await world.rows<RuleRow>(`SELECT * FROM rules WHERE id = ${id}`))[0]
    }
    async function limit(expression: string, bytes: number | null): Promise<void> {
      const { voId, accountId } = world
      await test.db.write(async executor => {
        await putLimit(executor, { voId, accountId, expression, bytes }, now())
        await repairQuota(executor, { voId, accountId }, now())
      })
    }
    async function replace(id: number, did: string, request: Parameters<typeof replaceRule>[3]): Promise<number> {
      const rses = await world.context.storages.all()
      const old = { id, did, account: 'someone', vo: 'vo' }
      return test.db.write(executor => replaceRule(executor, rses, old, request, 'somebody', now()))
    }
    async function bring(): Promise<void> {
      await world.grantAll()
      const session = await world.openSession(YEAR_MS)
      const told = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'own' } as const
      const outcomes = (await world.claim(session, 1000)).map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, ...told, result: 'done' as const },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    /** Until nothing is tried again any more. */
    async function settle(): Promise<void> {
      for (let i = 0; i < 4; i += 1) {
        await world.run(ruleRepairer)
        world.clock.advance(7 * HOUR_MS)
        await world.evaluate()
      }
    }
    async function tagged(...rses: string[]): Promise<void> {
      const names = rses.map(rse => `'${rse}'`).join(', ')
      await world.change('DELETE FROM rse_attributes')
      await world.change(
        `INSERT INTO rse_attributes (rse_id, key, value) SELECT id, 'tier', '1' FROM rses WHERE name IN (${names})`,
      )
      world.context.storages.forget()
    }

    it('a file that there was too little quota for gets its lock when another is detached', async () => {
      await world.dataset('d', 1, 'A')
      await limit('B', 105)
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      expect(await ruleOf(rule)).to.include({
        state: 'STUCK',
        error: 'QUOTA_EXCEEDED: at least 1 file has fewer copies than asked for; B: above the quota of the account',
      })
      await world.detach('d', 'd.f0')
      await world.evaluate()
      await settle()
      expect(await locksOf(rule)).to.equal(1)
      expect((await ruleOf(rule))?.error).to.equal(null)
    })

    it('likewise when the limit is lifted, however much is detached before', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.detach('d', 'd.f1')
      await world.evaluate()
      await limit('B', 50)
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      expect((await ruleOf(rule))?.state).to.equal('STUCK')
      await limit('B', null)
      await settle()
      expect(await locksOf(rule)).to.equal(2)
    })

    it('what was attached between choice and expansion needs no more quota than it has bytes', async () => {
      await world.dataset('d', 1, 'A')
      await limit('B', 105)
      const rule = await world.addRule('d', 'B', 1)
      const found = await ruleOf(rule)
      if (found === undefined) throw new Error('no rule')
      const rses = await world.context.storages.all()
      await chooseStep(world.context, found, rses, new Rooms(test.db.read, world.clock))
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      await limit('B', 107)
      await settle()
      expect(await locksOf(rule)).to.equal(2)
    })

    it('a limit below what is locked does not hold against a rule that wants nothing more', async () => {
      await world.dataset('d', 2, 'A')
      await world.container('inner', [])
      await world.container('all', ['s:d', 's:inner'])
      const rule = await world.addRule('all', 'B', 1)
      await world.evaluate()
      await bring()
      await limit('B', 100)
      await world.put('inner', 'd')
      await world.evaluate()
      expect(await ruleOf(rule)).to.include({ state: 'OK', error: null })
    })

    for (const grouping of ['DATASET', 'NONE', 'ALL'] as const) {
      it(`${grouping}: with fewer copies, a rule may have what it had, and no more than the account may`, async () => {
        world.grouping = grouping
        await world.dataset('d', 1, 'A')
        for (let i = 0; i < 10; i += 1) await world.dataset(`e${i}`, 3, 'A')
        await world.container('all', ['s:d'])
        await limit('*', 300)
        const old = await world.addRule('all', 'B|C', 2)
        await world.evaluate()
        const fewer = await replace(old, 's:all', { copies: 1 })
        await test.db.write(executor => updateRule(executor, old, { locked: true }, 'somebody', now()))
        await world.evaluate()
        expect(await locksOf(fewer)).to.equal(1)
        for (let i = 0; i < 10; i += 1) await world.put('all', `e${i}`)
        await world.evaluate()
        await settle()
        expect(await used()).to.equal(300)
        expect((await ruleOf(fewer))?.state).to.equal('STUCK')
      })
    }

    it('fewer copies of fewer copies are no approval', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('e', 3, 'A')
      await world.container('all', ['s:d'])
      await limit('*', 600)
      const first = await world.addRule('all', 'B|C|D', 3)
      await world.evaluate()
      const second = await replace(first, 's:all', { copies: 2 })
      await test.db.write(executor => updateRule(executor, first, { locked: true }, 'somebody', now()))
      await world.evaluate()
      const third = await replace(second, 's:all', { copies: 1 })
      await world.evaluate()
      await world.put('all', 'e')
      await world.evaluate()
      await settle()
      expect(await used()).to.be.at.most(600)
      expect((await ruleOf(third))?.state).to.equal('STUCK')
    })

    it('fewer copies where the expression names other storages now are held against the quota there', async () => {
      await tagged('B', 'C')
      await world.dataset('d', 2, 'A')
      const old = await world.addRule('d', 'tier=1', 2)
      await world.evaluate()
      await bring()
      await tagged('D')
      await limit('D', 0)
      const fewer = await replace(old, 's:d', { copies: 1 })
      await world.evaluate()
      expect(await locksOf(fewer)).to.equal(0)
      expect((await ruleOf(fewer))?.error).to.include('D: above the quota of the account')
    })

    it('what was approved holds for its storages and its copies, whatever takes its place', async () => {
      await world.dataset('d', 2, 'A')
      const old = await world.addRule('d', 'B|C|D', 1)
      await world.change('UPDATE rules SET ignore_quota = true')
      await world.evaluate()
      await bring()
      await limit('B|C|D', 2000)
      const more = await replace(old, 's:d', { copies: 3 })
      await world.evaluate()
      await bring()
      await world.run(ruleReplacer)
      await world.evaluate()
      expect(await ruleOf(more)).to.include({ state: 'OK', replaces: null })
      expect(Boolean((await ruleOf(more))?.ignore_quota)).to.equal(false)
    })

    it('what was approved for one storage is not approved for all', async () => {
      await world.dataset('d', 2, 'A')
      const old = await world.addRule('d', 'B', 1)
      await world.change('UPDATE rules SET ignore_quota = true')
      await world.evaluate()
      await bring()
      await limit('C|D', 0)
      const refusal = await replace(old, 's:d', { expression: 'C|D' }).catch((error: { code?: string }) => error.code)
      expect(refusal).to.equal('QUOTA_EXCEEDED')
    })

    it('a rule with too few storages does not go to and fro with each look for more (#8743)', async () => {
      for (const grouping of ['NONE', 'DATASET'] as const) {
        world.grouping = grouping
        await world.dataset(grouping, 3, 'A')
        const rule = await world.addRule(grouping, 'B|C', 3)
        await world.evaluate()
        await bring()
        const states: string[] = []
        const write: Context['db']['write'] = async work => {
          const done = await test.db.write(work)
          const state = (await ruleOf(rule))?.state ?? ''
          if (state !== states.at(-1)) states.push(state)
          return done
        }
        const watched = (context: Context) => ({ ...context, db: { ...test.db, read: test.db.read, write } })
        for (let hours = 0; hours < 24; hours += 1) {
          await world.run(context => ruleRepairer(watched(context)))
          await world.run(context => ruleEvaluator(watched(context)))
          world.clock.advance(HOUR_MS)
        }
        expect(states).to.deep.equal(['STUCK'])
      }
    })
  })
}
