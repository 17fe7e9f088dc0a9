import { expect } from 'chai'
import { EVERYTHING } from '../../server/accounts/sight.ts'
import { insertEvents, listEvents } from '../../server/rules/event-store.ts'
import { ruleHistoryPruner, ruleReplacer } from '../../server/rules/history.ts'
import { removeRule, replaceRule, updateRule } from '../../server/rules/life.ts'
import { ruleExpirer } from '../../server/rules/upkeep.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const WHO = 'somebody'
const HOUR_MS = 3_600_000
const YEAR_MS = 365 * 24 * HOUR_MS

for (const { name, open } of databases) {
  describe(`rules that are moved on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
      session = await world.openSession(10 * YEAR_MS)
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    const now = (): number => world.clock.now()
    const rules = (): Promise<{ id: number; state: string }[]> => world.rows('SELECT id, state FROM rules ORDER BY id')
    async function move(id: number, expression: string): Promise<number> {
      const rses = await world.context.storages.all()
      const old = { id, did: 's:d', account: 'someone', vo: 'vo' }
      const moved = await test.db.write(e => replaceRule(e, rses, old, { expression }, WHO, now()))
      await world.evaluate()
      return moved
    }
    /** Every queued transfer is claimed, and ends so. */
    async function copyAll(result: 'done' | 'failed' = 'done'): Promise<void> {
      await world.grantAll()
      const ends = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: true, left: 'nothing' } as const
      const failure = result === 'failed' ? { error: { ...FAILURE, retryable: false } } : {}
      const held = await world.claim(session, 1000)
      const outcomes = held.map(({ id: transfer, fence }) => ({ transfer, fence, result, ...ends, ...failure }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    async function brought(): Promise<number> {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await copyAll()
      return rule
    }
    async function endReplaced(): Promise<void> {
      for (let rounds = 0; rounds < 2; rounds += 1) {
        await world.run(ruleReplacer)
        await world.evaluate()
      }
    }

    it('a rule whose replacement got stuck and was moved too goes with it', async () => {
      const second = await move(await brought(), 'C')
      await copyAll('failed')
      const third = await move(second, 'D')
      await copyAll()
      await endReplaced()
      expect(await rules()).to.deep.equal([{ id: third, state: 'OK' }])
      expect(await world.number('SELECT count(*) AS n FROM replicas WHERE tombstone_at IS NOT NULL')).to.equal(4)
    })

    it('a rule goes as well when its stuck replacement was moved, and then removed', async () => {
      const second = await move(await brought(), 'C')
      const third = await move(second, 'D')
      await test.db.write(executor => removeRule(executor, second, WHO, now()))
      await world.evaluate()
      await copyAll()
      await endReplaced()
      expect(await rules()).to.deep.equal([{ id: third, state: 'OK' }])
    })

    it('a rule whose replacement is removed stays', async () => {
      const first = await brought()
      const second = await move(first, 'C')
      await test.db.write(executor => removeRule(executor, second, WHO, now()))
      await world.evaluate()
      await endReplaced()
      expect(await rules()).to.deep.equal([{ id: first, state: 'OK' }])
    })

    it('a rule that is being replaced does not expire before the other is OK', async () => {
      const first = await brought()
      const update = (id: number, expiresAt: number | null): Promise<void> =>
        test.db.write(executor => updateRule(executor, id, { expiresAt }, WHO, now()))
      await update(first, now() + HOUR_MS)
      const second = await move(first, 'C')
      await update(second, null)
      world.clock.advance(2 * HOUR_MS)
      const expire = async (): Promise<void> => {
        await world.run(ruleExpirer)
        await world.evaluate()
      }
      await expire()
      expect((await rules()).map(rule => rule.id)).to.deep.equal([first, second])
      await copyAll()
      await endReplaced()
      expect(await rules()).to.deep.equal([{ id: second, state: 'OK' }])
    })

    it('a rule and what is to replace it expire together, with the same lifetime', async () => {
      const first = await brought()
      await test.db.write(executor => updateRule(executor, first, { expiresAt: now() + HOUR_MS }, WHO, now()))
      await move(first, 'C')
      world.clock.advance(2 * HOUR_MS)
      for (let rounds = 0; rounds < 2; rounds += 1) {
        await world.run(ruleExpirer)
        await world.evaluate()
      }
      expect(await rules()).to.deep.equal([])
    })

    it('what happened to a rule is kept for a year after it is gone, however long it was there', async () => {
      const rule = await brought()
      const approved = { rule_id: rule, event: 'approved', actor: 'boss', details: { reason: 'summer' } } as const
      await test.db.write(executor => insertEvents(executor, [approved], now()))
      world.clock.advance(2 * YEAR_MS)
      await test.db.write(executor => removeRule(executor, rule, WHO, now()))
      await world.evaluate()
      const events = async (): Promise<string[]> => {
        await world.run(ruleHistoryPruner)
        const rows = await listEvents(test.db.read, EVERYTHING, { ruleId: rule, after: 0, limit: 10 })
        return rows.map(({ event }) => event)
      }
      expect(await events()).to.deep.equal(['approved', 'removed', 'gone'])
      world.clock.advance(YEAR_MS + 1_000)
      expect(await events()).to.deep.equal([])
    })

    it('the same expression in parentheses chooses anew', async () => {
      const first = await brought()
      const refusal = await move(first, 'B').catch((error: unknown) => error)
      expect(refusal).to.include({ code: 'NOTHING_CHANGES' })
      const second = await move(first, '(B)')
      await endReplaced()
      expect(await rules()).to.deep.equal([{ id: second, state: 'OK' }])
    })
  })
}
