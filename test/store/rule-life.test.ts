import { expect } from 'chai'
import { putLimit } from '../../server/accounts/limit-store.ts'
import { EVERYTHING } from '../../server/accounts/sight.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { listEvents } from '../../server/rules/event-store.ts'
import { ruleHistoryPruner, ruleNoter, ruleReplacer } from '../../server/rules/history.ts'
import { judgeRule, removeRule, replaceRule, updateRule } from '../../server/rules/life.ts'
import { ruleExpirer, ruleRepairer } from '../../server/rules/upkeep.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const WHO = 'somebody'
const YEAR_MS = 365 * 86_400_000

for (const { name, open } of databases) {
  describe(`the life of rules on ${name}`, () => {
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
    const update = (id: number, change: Parameters<typeof updateRule>[2]): Promise<void> =>
      test.db.write(executor => updateRule(executor, id, change, WHO, now()))
    const align = (): Promise<void> => world.run(ruleAligner)
    const transfers = (): Promise<{ state: string; priority: number; activity: string; n: number }[]> =>
      world.rows(
        'SELECT state, priority, activity, count(*) AS n FROM transfers GROUP BY state, priority, activity ORDER BY state, priority',
      )
    const locks = (rule: number): Promise<{ state: string; n: number }[]> =>
      world.rows(`SELECT state, count(*) AS n FROM locks WHERE rule_id = ${rule} GROUP BY state ORDER BY state`)
    async function stateOf(rule: number): Promise<string | undefined> {
      const [row] = await world.rows<{ state: string }>(`SELECT state FROM rules WHERE id = ${rule}`)
      return row?.state
    }
    async function events(rule: number): Promise<string[]> {
      await world.run(ruleNoter)
      const rows = await listEvents(test.db.read, EVERYTHING, { ruleId: rule, after: 0, limit: 100 })
      return rows.map(row => row.event)
    }
    async function replace(id: number, request: Parameters<typeof replaceRule>[3]): Promise<number> {
      const rses = await world.context.storages.all()
      const old = { id, did: 's:d', account: 'someone', vo: 'vo' }
      return test.db.write(executor => replaceRule(executor, rses, old, request, WHO, now()))
    }
    /** Every queued transfer is claimed and done. */
    async function copyAll(): Promise<void> {
      await world.grantAll()
      const session = await world.openSession(YEAR_MS)
      const held = await world.claim(session, 1000)
      await applyOutcomes(
        world.context,
        DEFAULT_RETRY_POLICY,
        session,
        held.map(({ id: transfer, fence }) => ({ transfer, fence, result: 'done', ...PLAIN })),
      )
    }
    const PLAIN = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'own' } as const

    it('its transfers follow its priority and activity, those that are queued too', async () => {
      await world.dataset('d', 3, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await update(rule, { priority: 5, activity: 'Express' })
      await align()
      expect(await transfers()).to.deep.equal([{ state: 'WAITING', priority: 5, activity: 'Express', n: 3 }])
      await world.run(transferReleaser)
      expect(await transfers()).to.deep.equal([{ state: 'QUEUED', priority: 5, activity: 'Express', n: 3 }])
      await update(rule, { priority: 1 })
      await align()
      expect(await transfers()).to.deep.equal([{ state: 'WAITING', priority: 1, activity: 'Express', n: 3 }])
    })

    it('a transfer that two rules want has the priority of the more urgent one', async () => {
      await world.dataset('d', 2, 'A')
      const first = await world.addRule('d', 'B', 1, 3, 'first')
      await world.evaluate()
      await world.addRule('d', 'B|C\\C', 1, 4, 'second')
      await world.evaluate()
      await update(first, { priority: 1 })
      await align()
      expect((await transfers()).map(({ priority, activity }) => [priority, activity])).to.deep.equal([[4, 'second']])
    })

    it('a suspended rule has nothing copied; what is under way is cancelled, and it goes on when it is resumed', async () => {
      await world.dataset('d', 5, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const session = await world.openSession(YEAR_MS)
      const [held] = await world.claim(session, 1)
      await update(rule, { suspended: true })
      await align()
      expect((await transfers()).map(({ state, n }) => [state, n])).to.deep.equal([
        ['CANCELLED', 4],
        ['CLAIMED', 1],
      ])
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE cancel_requested')).to.equal(5)
      const { id: transfer = 0, fence = 0 } = held ?? {}
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [
        { transfer, fence, result: 'failed', error: FAILURE, ...PLAIN },
      ])
      expect(await stateOf(rule)).to.equal('SUSPENDED')
      expect(await locks(rule)).to.deep.equal([{ state: 'STUCK', n: 5 }])
      world.clock.advance(YEAR_MS)
      await world.run(ruleRepairer)
      expect(await locks(rule), 'it is not repaired').to.deep.equal([{ state: 'STUCK', n: 5 }])
      await update(rule, { suspended: false })
      await world.run(ruleRepairer)
      expect(await locks(rule)).to.deep.equal([{ state: 'REPLICATING', n: 5 }])
      expect(await stateOf(rule)).to.equal('REPLICATING')
    })

    it('what another rule wants too goes on when one is suspended', async () => {
      await world.dataset('d', 3, 'A')
      const first = await world.addRule('d', 'B', 1)
      const second = await world.addRule('d', 'B|C\\C', 1)
      await world.evaluate()
      await update(first, { suspended: true })
      await align()
      expect((await transfers()).map(({ state, n }) => [state, n])).to.deep.equal([['QUEUED', 3]])
      await update(second, { suspended: true })
      await align()
      expect((await transfers()).map(({ state, n }) => [state, n])).to.deep.equal([['CANCELLED', 3]])
    })

    it('a rule that is suspended before it is evaluated gets nothing before it is resumed', async () => {
      await world.dataset('d', 3, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { suspended: true })
      await world.evaluate()
      expect(await locks(rule)).to.deep.equal([])
      await update(rule, { suspended: false })
      await world.evaluate()
      expect(await locks(rule)).to.deep.equal([{ state: 'REPLICATING', n: 3 }])
    })

    it('a locked rule is not removed, does not expire, and is not replaced', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { locked: true, expiresAt: now() + 1000 })
      const remove = () => test.db.write(executor => removeRule(executor, rule, WHO, now()))
      expect(await codeOf(remove())).to.equal('RULE_LOCKED')
      expect(await codeOf(replace(rule, { expression: 'C' }))).to.equal('RULE_LOCKED')
      world.clock.advance(2000)
      await world.run(ruleExpirer)
      await world.evaluate()
      expect(await stateOf(rule)).to.equal('REPLICATING')
      await update(rule, { locked: false })
      await world.run(ruleExpirer)
      await world.evaluate()
      expect(await stateOf(rule)).to.equal(undefined)
      expect(await events(rule)).to.deep.equal(['updated', 'updated', 'expired', 'gone'])
    })

    it('a rule that waits for approval does nothing; approved, it is above the quota; denied, it goes', async () => {
      await world.dataset('d', 3, 'A')
      const limit = { voId: world.voId, accountId: world.accountId, expression: '*', bytes: 0 }
      await test.db.write(executor => putLimit(executor, limit, now()))
      const rule = await world.addRule('d', 'B', 1)
      const other = await world.addRule('d', 'C', 1)
      await world.change("UPDATE rules SET state = 'WAITING_APPROVAL'")
      await world.evaluate()
      expect(await locks(rule)).to.deep.equal([])
      const judge = (id: number, approve: boolean) =>
        test.db.write(executor => judgeRule(executor, id, { approve, reason: 'because' }, WHO, now()))
      await judge(rule, true)
      await judge(other, false)
      await world.evaluate()
      expect(await locks(rule)).to.deep.equal([{ state: 'REPLICATING', n: 3 }])
      expect(await stateOf(other)).to.equal(undefined)
      expect(await events(other)).to.deep.equal(['denied', 'gone'])
      expect(await codeOf(judge(rule, true))).to.equal('RULE_STATE')
    })

    it('moved, a rule keeps its old copies until the new ones are there', async () => {
      await world.dataset('d', 3, 'A')
      const old = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await copyAll()
      const moved = await replace(old, { expression: 'C' })
      await world.evaluate()
      await world.run(ruleReplacer)
      expect(await stateOf(old)).to.equal('OK')
      await copyAll()
      await world.run(ruleReplacer)
      await world.evaluate()
      expect([await stateOf(old), await stateOf(moved)]).to.deep.equal([undefined, 'OK'])
      expect(await world.number('SELECT count(*) AS n FROM replicas WHERE tombstone_at IS NOT NULL')).to.equal(3)
      expect(await events(old)).to.deep.equal(['replaced', 'removed', 'gone'])
      expect(await events(moved)).to.deep.equal(['replaces', 'ok'])
    })

    it('a rule that is locked while it is being replaced stays until it is unlocked', async () => {
      await world.dataset('d', 3, 'A')
      const old = await world.addRule('d', 'B', 1)
      await world.evaluate()
      const moved = await replace(old, { expression: 'C' })
      await world.evaluate()
      await copyAll()
      await update(old, { locked: true })
      await world.run(ruleReplacer)
      await world.evaluate()
      expect([await stateOf(old), await stateOf(moved)]).to.deep.equal(['OK', 'OK'])
      await update(old, { locked: false })
      await world.run(ruleReplacer)
      await world.evaluate()
      expect([await stateOf(old), await stateOf(moved)]).to.deep.equal([undefined, 'OK'])
    })

    it('with fewer copies, a rule moves nothing, keeps one that is there, and needs no quota', async () => {
      await world.dataset('d', 3, 'A')
      const old = await world.addRule('d', 'B|C|D', 2)
      await world.evaluate()
      await copyAll()
      const limit = { voId: world.voId, accountId: world.accountId, expression: '*', bytes: 0 }
      await test.db.write(executor => putLimit(executor, limit, now()))
      const before = await world.number('SELECT count(*) AS n FROM transfers')
      const reduced = await replace(old, { copies: 1 })
      await world.evaluate()
      await world.run(ruleReplacer)
      await world.evaluate()
      expect([await stateOf(old), await stateOf(reduced)]).to.deep.equal([undefined, 'OK'])
      expect(await world.number('SELECT count(*) AS n FROM transfers')).to.equal(before)
      expect(await world.number('SELECT count(*) AS n FROM replicas WHERE tombstone_at IS NOT NULL')).to.equal(3)
      expect(await world.number('SELECT count(*) AS n FROM rules WHERE ignore_quota')).to.equal(0)
    })

    it('a rule is replaced by one other at a time, and by one that is otherwise', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await replace(rule, { expression: 'C' })
      expect(await codeOf(replace(rule, { expression: 'D' }))).to.equal('RULE_REPLACED')
      expect(await codeOf(replace(rule, { copies: 1 }))).to.equal('NOTHING_CHANGES')
    })

    it('what happened to a rule is kept for a year after it is gone', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await test.db.write(executor => removeRule(executor, rule, WHO, now()))
      await world.evaluate()
      world.clock.advance(YEAR_MS - 1000)
      await world.run(ruleHistoryPruner)
      expect(await events(rule)).to.deep.equal(['removed', 'gone'])
      world.clock.advance(2000)
      await world.run(ruleHistoryPruner)
      expect(await events(rule)).to.deep.equal([])
    })
  })
}

async function codeOf(refused: Promise<unknown>): Promise<unknown> {
  return refused.then(
    () => undefined,
    (error: unknown) => (error instanceof Error && 'code' in error ? error.code : error),
  )
}
