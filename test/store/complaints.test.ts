import { expect } from 'chai'
import { insertContents } from '../../server/catalogue/contents-store.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { type RuleRequest, submitRules } from '../../server/rules/submit.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000

/** What Rucio's users complain of (facts/rules.md), as far as no other test shows it: the number is its tracker's. */
for (const { name, open } of databases) {
  describe(`what Rucio's users complain of does not happen on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      session = await world.openSession(365 * DAY_MS)
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    /** All that is queued is claimed and ends so. */
    async function end(result: 'done' | 'failed'): Promise<void> {
      await world.grantAll()
      const held = await world.claim(session, 10_000)
      const error = { ...FAILURE, retryable: false }
      const told = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 0, cleaned: true, left: 'nothing' } as const
      const outcomes = held.map(({ id: transfer, fence }) => ({ transfer, fence, ...told }))
      await applyOutcomes(
        world.context,
        DEFAULT_RETRY_POLICY,
        session,
        outcomes.map(outcome => (result === 'done' ? { ...outcome, result } : { ...outcome, result, error })),
      )
    }
    const stateOf = async (rule: number): Promise<string> =>
      (await world.rows<{ state: string }>(`SELECT state FROM rules WHERE id = ${rule}`))[0]?.state ?? 'gone'

    it('a rule goes to and fro between STUCK and REPLICATING for ever (#8743): a dozen times in a day, less and less', async function () {
      this.timeout(60_000)
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      const until = world.clock.now() + DAY_MS
      const states: string[] = []
      const look = async (): Promise<void> => {
        const state = await stateOf(rule)
        if (state !== states.at(-1)) states.push(state)
      }
      while (world.clock.now() < until) {
        if ((await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'QUEUED'")) > 0) await end('failed')
        await look()
        const due = await world.number('SELECT coalesce(min(repair_at), 0) AS n FROM rules')
        world.clock.advance(Math.max(MINUTE_MS, due - world.clock.now()))
        await world.run(ruleRepairer)
        await look()
      }
      // Repaired after 1, 2, 4, ... minutes: eleven times before the spacing is six hours, and then four times a day.
      expect(states.slice(0, 4)).to.deep.equal(['STUCK', 'REPLICATING', 'STUCK', 'REPLICATING'])
      expect(states.length).to.be.within(16, 2 * 13)
    })

    it('repair is skipped for rules that attaching keeps fresh (#8436)', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await end('failed')
      expect(await stateOf(rule)).to.equal('STUCK')
      for (let i = 0; i < 4; i += 1) {
        await world.attach('d', `late${i}`, 'A')
        await world.evaluate()
        await world.run(ruleRepairer)
        world.clock.advance(MINUTE_MS / 3)
      }
      expect(await world.number("SELECT count(*) AS n FROM locks WHERE state = 'STUCK'")).to.equal(0)
    })

    it('failing rules block the repair of others (#8699)', async () => {
      await world.dataset('good', 1, 'A')
      await world.dataset('bad', 1, 'A')
      const failing: number[] = []
      for (let copies = 1; copies <= 120; copies += 1) failing.push(await world.addRule('bad', 'B', copies))
      const good = await world.addRule('good', 'B', 1)
      await world.evaluate()
      await end('failed')
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'AVAILABLE' AND file_id = :file", {
        file: await world.didId('bad.f0'),
      })
      for (let round = 0; round < 2; round += 1) {
        await world.run(ruleRepairer)
        world.clock.advance(MINUTE_MS)
      }
      await world.run(ruleRepairer)
      expect(await stateOf(good)).to.equal('REPLICATING')
      expect(await stateOf(failing[0] ?? 0)).to.equal('STUCK')
    })

    it('a rule on very many files ends in a timeout (#8361): what it is asked costs the same for ten and for ten thousand', async () => {
      const statements = async (datasets: number, files: number): Promise<number> => {
        const names = Array.from({ length: datasets }, (_, i) => `n${datasets}d${i}`)
        for (const dataset of names) await world.dataset(dataset, files, 'A')
        const container = `all${datasets}`
        await world.container(
          container,
          names.map(dataset => `s:${dataset}`),
        )
        const account = { id: world.accountId, name: 'someone', voId: world.voId, vo: 'vo' }
        const request: RuleRequest = {
          dids: [`s:${container}`],
          ...{ copies: 1, expression: 'B', grouping: 'DATASET', activity: 'test', priority: 3 },
          ...{ archive: false, askApproval: false, purgeReplicas: false },
        }
        const rses = await world.context.storages.all()
        let count = 0
        await test.db.write(async executor => {
          executor.on('query', () => {
            count += 1
          })
          await submitRules(executor, rses, account, request, world.clock.now())
        })
        return count
      }
      const few = await statements(1, 10)
      expect(await statements(50, 200)).to.equal(few)
      expect(few).to.be.within(3, 20)
    })

    it('what cannot be served starves what can (#3856, #4510)', async () => {
      await world.dataset('lost', 500, 'A')
      await world.addRule('lost', 'B', 1, 5)
      await world.evaluate()
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'AVAILABLE'")
      await world.change("UPDATE transfers SET state = 'WAITING', not_before = 0")
      await world.dataset('good', 3, 'A')
      await world.addRule('good', 'B', 1, 1)
      await world.evaluate()
      await world.run(transferReleaser)
      await world.grantAll()
      const claimed = await world.claim(session, 3)
      expect(claimed).to.have.length(3)
    })

    it('attaching a dataset to a container reaches no rule above its parents (#8436)', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('late', 2, 'A')
      await world.container('inner', ['s:d'])
      await world.container('outer', ['s:inner'])
      const rule = await world.addRule('outer', 'B', 1)
      await world.evaluate()
      const parent = { id: await world.didId('inner'), type: 'CONTAINER' }
      const child = await world.didId('late')
      await test.db.write(async executor => {
        await reevaluateRules(executor, parent, await insertContents(executor, parent.id, [child]))
      })
      await world.evaluate()
      expect(await world.number(`SELECT count(*) AS n FROM locks WHERE rule_id = ${rule}`)).to.equal(3)
    })
  })
}
