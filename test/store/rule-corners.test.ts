import { expect } from 'chai'
import { putLimit } from '../../server/accounts/limit-store.ts'
import type { Context } from '../../server/context.ts'
import { query } from '../../server/database/sql.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { ruleReplacer } from '../../server/rules/history.ts'
import { replaceRule, updateRule } from '../../server/rules/life.ts'
import { previewRules } from '../../server/rules/preview.ts'
import { Rooms } from '../../server/rules/room.ts'
import { selectRses } from '../../server/rules/select.ts'
import { repairQuota, startRemoval } from '../../server/rules/step-store.ts'
import { demandRules, type RuleRequest } from '../../server/rules/submit.ts'
import { ruleExpirer, ruleRepairer } from '../../server/rules/upkeep.ts'
import { closeLink, updateRse } from '../../server/storages/store.ts'
import { hopKeeper } from '../../server/transfers/hops.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const HOUR_MS = 3_600_000
const YEAR_MS = 8760 * HOUR_MS

/** What is easily forgotten: each was wrong once. */
for (const { name, open } of databases) {
  describe(`corners of rules on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
    })
    afterEach(async () => {
      await test.drop()
    })

    const sound = async (): Promise<void> => {
      expect(await brokenInvariants(world)).to.deep.equal([])
    }
    const now = (): number => world.clock.now()
    const locksOf = (rule: number): Promise<number> =>
      world.number(`SELECT count(*) AS n FROM locks WHERE rule_id = ${rule}`)
    const ruleCount = (rule: number): Promise<number> =>
      world.number(`SELECT count(*) AS n FROM rules WHERE id = ${rule} AND stage <> 'REMOVING'`)
    const update = (id: number, change: Parameters<typeof updateRule>[2]): Promise<void> =>
      test.db.write(executor => updateRule(executor, id, change, 'somebody', now()))
    async function limit(expression: string, bytes: number | null): Promise<void> {
      const given = { voId: world.voId, accountId: world.accountId, expression, bytes }
      await test.db.write(executor => putLimit(executor, given, now()))
    }
    async function row(id: number) {
      const [found] = await world.rows<{ state: string; error: string | null }>(
        `SELECT state, error FROM rules WHERE id = ${id}`,
      )
      return found
    }
    async function end(result: 'done' | 'failed'): Promise<void> {
      await world.grantAll()
      const session = await world.openSession(YEAR_MS)
      const held = await world.claim(session, 1000)
      const error = { ...FAILURE, retryable: false }
      const told = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, left: 'nothing', cleaned: true } as const
      await applyOutcomes(
        world.context,
        DEFAULT_RETRY_POLICY,
        session,
        held.map(({ id: transfer, fence }) =>
          result === 'done'
            ? { transfer, fence, ...told, cleaned: false, left: 'own' as const, result }
            : { transfer, fence, ...told, result, error },
        ),
      )
    }
    /** Something is done between a service's look and its first transaction. */
    async function meanwhile(service: Parameters<World['run']>[0], what: () => Promise<void>): Promise<void> {
      let once = true
      const write: Context['db']['write'] = async work => {
        if (once) {
          once = false
          await what()
        }
        return test.db.write(work)
      }
      await world.run(context => service({ ...context, db: { ...test.db, read: test.db.read, write } }))
    }
    const replace = async (id: number, request: Parameters<typeof replaceRule>[3]): Promise<number> => {
      const rses = await world.context.storages.all()
      const old = { id, did: 's:d', account: 'someone', vo: 'vo' }
      return test.db.write(executor => replaceRule(executor, rses, old, request, 'somebody', now()))
    }
    const account = () => ({ id: world.accountId, name: 'someone', voId: world.voId, vo: 'vo' })
    const request = (dids: string[], expression: string, more: Partial<RuleRequest> = {}): RuleRequest => ({
      ...{ dids, copies: 1, expression, grouping: 'DATASET', activity: 'test', priority: 3 },
      ...{ archive: false, askApproval: false, purgeReplicas: false },
      ...more,
    })

    it('NONE: a file that another dataset of the rule holds keeps its lock when it is detached from one', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('e', 1, 'A')
      await world.put('e', 'd.f0')
      await world.container('all', ['s:d', 's:e'])
      world.grouping = 'NONE'
      const rule = await world.addRule('all', 'B', 1)
      await world.evaluate()
      expect(await locksOf(rule)).to.equal(3)
      await world.detach('d', 'd.f0')
      await world.evaluate()
      expect(await locksOf(rule)).to.equal(3)
      await sound()
    })

    it('NONE: two copies of a file that are stuck both are repaired at two storages', async () => {
      await world.dataset('d', 1, 'A')
      world.grouping = 'NONE'
      const rule = await world.addRule('d', 'B|C|D', 2)
      await world.evaluate()
      await end('failed')
      await world.run(ruleRepairer)
      world.clock.advance(HOUR_MS)
      await world.run(ruleRepairer)
      await world.evaluate()
      expect(await locksOf(rule)).to.equal(2)
      await sound()
    })

    it('a rule whose lifetime is made longer just before it is ended stays', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { expiresAt: now() + 1000 })
      world.clock.advance(2000)
      await meanwhile(ruleExpirer, () => update(rule, { expiresAt: now() + YEAR_MS }))
      expect(await ruleCount(rule)).to.equal(1)
    })

    it('a rule that is locked just before it is ended stays', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await update(rule, { expiresAt: now() + 1000 })
      world.clock.advance(2000)
      await meanwhile(ruleExpirer, () => update(rule, { locked: true }))
      expect(await ruleCount(rule)).to.equal(1)
    })

    it('a rule that is locked while it is being replaced stays', async () => {
      await world.dataset('d', 1, 'A')
      const old = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await end('done')
      await replace(old, { expression: 'C' })
      await world.evaluate()
      await update(old, { locked: true })
      await end('done')
      await world.run(ruleReplacer)
      expect(await ruleCount(old)).to.equal(1)
    })

    it('a lifetime that is made longer while the rule is replaced holds for what replaces it, or is refused', async () => {
      await world.dataset('d', 1, 'A')
      const old = await world.addRule('d', 'B', 1)
      await update(old, { expiresAt: now() + HOUR_MS })
      await world.evaluate()
      await end('done')
      const moved = await replace(old, { expression: 'C' })
      await world.evaluate()
      const refused = await update(old, { expiresAt: now() + YEAR_MS }).then(
        () => false,
        () => true,
      )
      await end('done')
      await world.run(ruleReplacer)
      const left = await world.number(`SELECT expires_at AS n FROM rules WHERE id = ${moved}`)
      expect(refused || left === now() + YEAR_MS).to.equal(true)
    })

    it('what fewer copies lock beyond what the rule had counts', async () => {
      await world.dataset('d', 1, 'A')
      await limit('*', 300)
      const old = await world.addRule('d', 'B|C|D', 2)
      await world.evaluate()
      for (let i = 0; i < 50; i += 1) await world.attach('d', `late${i}`, 'A')
      await world.evaluate()
      expect((await row(old))?.state).to.equal('STUCK')
      await replace(old, { copies: 1 }).catch(() => undefined)
      await world.evaluate()
      expect(await world.number('SELECT sum(bytes + reserved) AS n FROM account_usage')).to.be.within(0, 400)
    })

    it('a rule that is resumed before its worker heard has its transfer go on', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const session = await world.openSession(YEAR_MS)
      await world.claim(session, 1)
      await update(rule, { suspended: true })
      await world.run(ruleAligner)
      await update(rule, { suspended: false })
      await world.run(ruleAligner)
      await world.run(ruleRepairer)
      await sound()
    })

    it('a storage that holds all of it, but is not written to now, may keep it', async () => {
      await world.dataset('d', 2, 'B')
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { availabilityWrite: false }))
      world.context.storages.forget()
      await demandRules(test.db.read, await world.context.storages.all(), account(), request(['s:d'], 'B'))
    })

    it('what fits at different storages is not refused together', async () => {
      await world.dataset('small', 1, 'A') // 100 bytes
      await world.dataset('large', 2, 'A') // 201 bytes
      await limit('B', 150)
      await limit('C', 250)
      const rses = await world.context.storages.all()
      await demandRules(test.db.read, rses, account(), request(['s:large', 's:small'], 'B|C'))
      await demandRules(test.db.read, rses, account(), request(['s:small', 's:large'], 'B|C'))
    })

    it('NONE: a storage gets no more than it has space for', async () => {
      await world.dataset('d', 700, 'A')
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { capacityBytes: 180_000 }))
      world.context.storages.forget()
      world.grouping = 'NONE'
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await world.number('SELECT sum(bytes) AS n FROM account_usage')).to.be.within(100_000, 180_000)
    })

    it('two rules one after the other: a storage gets no more than it has space for', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('e', 2, 'A')
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { capacityBytes: 300 }))
      world.context.storages.forget()
      await world.addRule('d', 'B', 1)
      await world.addRule('e', 'B', 1)
      await world.evaluate()
      expect(await world.number('SELECT sum(bytes) AS n FROM account_usage')).to.equal(201)
    })

    it('files that the quota left out are not forgotten when the rule finds too few storages for something else', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('e', 1, 'A')
      await world.container('all', ['s:d'])
      const rule = await world.addRule('all', 'B', 1)
      await world.evaluate()
      // Detached and attached again: as many bytes as were chosen for, so nothing is reserved for the new ones.
      await world.detach('d', 'd.f1')
      await world.evaluate()
      await limit('B', 105)
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      expect((await row(rule))?.error).to.contain('QUOTA_EXCEEDED')
      await limit('B', null)
      const { id } = await world.rse('B')
      await test.db.write(executor => updateRse(executor, id, { availabilityWrite: false }))
      world.context.storages.forget()
      await world.put('all', 'e')
      await world.evaluate()
      await test.db.write(executor => updateRse(executor, id, { availabilityWrite: true }))
      world.context.storages.forget()
      await world.run(ruleRepairer)
      world.clock.advance(HOUR_MS)
      await world.run(ruleRepairer)
      await world.evaluate()
      expect((await row(rule))?.error).to.equal(null)
      await sound()
    })

    it('a limit that is changed wakes the rules that wait for it', async () => {
      await world.dataset('d', 1, 'A')
      await limit('B', 0)
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await limit('B', 1000)
      await test.db.write(executor => repairQuota(executor, { voId: world.voId, accountId: world.accountId }, now()))
      await world.run(ruleRepairer)
      await world.evaluate()
      expect(await locksOf(rule)).to.equal(1)
    })

    it('a dry run of a rule that asks for approval says what it will choose', async () => {
      await world.dataset('d', 1, 'A')
      await limit('B', 0)
      const rses = await world.context.storages.all()
      const rooms = new Rooms(test.db.read, world.clock)
      const [preview] = await previewRules(
        test.db.read,
        rses,
        rooms,
        account(),
        request(['s:d'], 'B', { askApproval: true }),
      )
      expect(preview?.places.map(place => place.rse)).to.deep.equal(['B'])
    })

    it('NONE: what a file frees where it is stuck it may use elsewhere', async () => {
      await world.dataset('d', 1, 'A')
      world.grouping = 'NONE'
      await limit('*', 100)
      const rule = await world.addRule('d', 'B|C', 1)
      await world.evaluate()
      await end('failed')
      const at = () =>
        world.number(`SELECT rse_id AS n FROM locks JOIN replicas ON replicas.id = replica_id WHERE rule_id = ${rule}`)
      const before = await at()
      await world.run(ruleRepairer)
      world.clock.advance(HOUR_MS)
      await world.run(ruleRepairer)
      await world.evaluate()
      expect(await at()).to.not.equal(before)
      await sound()
    })

    it('a state follows from the counters between any two steps', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 3)
      let looked: string[] = []
      let left = 2
      const write: Context['db']['write'] = async work => {
        const done = await test.db.write(work)
        left -= 1
        if (left >= 0) looked = [...looked, ...(await brokenInvariants(world)).map(String)]
        return done
      }
      await world.run(context => evaluatorWith(context, write))
      expect(rule).to.be.above(0)
      expect(looked).to.deep.equal([])
    })

    it('what is stuck after a rule was OK is tried again after a minute, whatever was before', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      for (let i = 0; i < 8; i += 1) {
        await end('failed')
        await world.run(ruleRepairer)
        const due = await world.number('SELECT repair_at AS n FROM rules')
        world.clock.advance(due - now())
        await world.run(ruleRepairer)
        await world.evaluate()
      }
      await end('done')
      expect((await row(rule))?.state).to.equal('OK')
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      await end('failed')
      expect((await row(rule))?.state).to.equal('STUCK')
      await world.run(ruleRepairer)
      world.clock.advance(120_000)
      await world.run(ruleRepairer)
      expect(await world.number("SELECT count(*) AS n FROM locks WHERE state = 'STUCK'")).to.equal(0)
    })

    it('what a suspended rule shares with a hop is cancelled when the hop ends', async () => {
      for (const rse of ['C']) {
        const { id } = await world.rse(rse)
        await test.db.write(e => updateRse(e, id, { multihop: true }))
      }
      const [a, b] = [(await world.rse('A')).id, (await world.rse('B')).id]
      await test.db.write(e => closeLink(e, a, b))
      world.context.storages.forget()
      const work = async (): Promise<void> => {
        await world.evaluate()
        await world.run(hopKeeper)
        await world.run(transferReleaser)
      }
      await world.dataset('d', 1, 'A')
      const first = await world.addRule('d', 'C', 1)
      await work()
      const second = await world.addRule('d', 'B', 1)
      await work()
      expect(await world.number('SELECT count(*) AS n FROM hops WHERE look_at IS NOT NULL')).to.equal(1)
      await update(first, { suspended: true })
      await world.run(ruleAligner)
      await test.db.write(e => startRemoval(e, second, now()))
      await work()
      await work()
      expect(await world.number('SELECT count(*) AS n FROM hops WHERE look_at IS NOT NULL')).to.equal(0)
      await sound()
    })

    it('a problem ends when the file gets its lock', async () => {
      await world.dataset('d', 1, 'A')
      await world.attach('d', 'a', 'A')
      await world.attach('d', 'd/a', 'C')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await world.number('SELECT count(*) AS n FROM rule_problems')).to.equal(1)
      await world.detach('d', 'a')
      await world.evaluate()
      const [gone] = await world.rows<{ id: number }>(
        "SELECT replicas.id FROM replicas JOIN dids ON dids.id = file_id JOIN rses ON rses.id = rse_id WHERE dids.name = 'a' AND rses.name = 'B'",
      )
      const id = gone?.id ?? 0
      await world.change('DELETE FROM transfers WHERE replica_id = :id', { id })
      await world.change('DELETE FROM replicas WHERE id = :id', { id })
      await world.attach('d', 'late', 'A')
      await world.evaluate()
      expect(await locksOf(rule)).to.equal(3)
      expect((await row(rule))?.state).to.equal('REPLICATING')
    })

    it('what is there comes before what is on its way', () => {
      const common = { writable: true, weight: 1, quotaLeft: Infinity, spaceLeft: Infinity }
      for (let i = 0; i < 20; i += 1) {
        const { added } = selectRses(
          [
            { ...common, rseId: 1, bytesHeld: 0, bytesComing: 100 },
            { ...common, rseId: 2, bytesHeld: 100, bytesComing: 0 },
          ],
          new Set(),
          { copies: 1, bytes: 100 },
          String(i),
        )
        expect(added).to.deep.equal([2])
      }
    })

    it('grouping ALL, with too few storages: all files are not read for every hundred datasets', async function () {
      this.timeout(60_000)
      const names = Array.from({ length: 250 }, (_, i) => `d${i}`)
      for (const dataset of names) await world.dataset(dataset, 1, 'A')
      await world.container(
        'all',
        names.map(dataset => `s:${dataset}`),
      )
      world.grouping = 'ALL'
      await world.addRule('all', 'B', 2)
      let reads = 0
      const count = ({ sql }: { sql: string }): void => {
        if (sql.includes('AS unit_id') && sql.includes('RECURSIVE below')) reads += 1
      }
      test.db.read.on('query', count)
      await world.evaluate()
      expect(reads).to.be.within(1, 2)
    })

    it('the repair of a rule that fails holds up no other', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('e', 1, 'A')
      const first = await world.addRule('d', 'B', 1)
      const second = await world.addRule('e', 'B', 1)
      await world.evaluate()
      await end('failed')
      await world.run(ruleRepairer)
      world.clock.advance(HOUR_MS)
      await world.change(`UPDATE rules SET repair_at = repair_at - 1000 WHERE id = ${first}`)
      let left = 20
      const write: Context['db']['write'] = work =>
        test.db.write(async executor => {
          const done = await work(executor)
          const mine = await numberOf(executor, `SELECT repairs AS n FROM rules WHERE id = ${first}`)
          if (mine > 0 && left > 0) {
            left -= 1
            throw new Error('always')
          }
          return done
        })
      await world
        .run(context => ruleRepairer({ ...context, db: { ...test.db, read: test.db.read, write } }))
        .catch(() => undefined)
      expect(await world.number(`SELECT repairs AS n FROM rules WHERE id = ${second}`)).to.equal(1)
    })
  })
}

async function numberOf(executor: Context['db']['read'], sql: string): Promise<number> {
  return (await query<{ n: number }>(executor, sql))[0]?.n ?? 0
}

function evaluatorWith(context: Context, write: Context['db']['write']) {
  return ruleEvaluator({ ...context, db: { ...context.db, read: context.db.read, write } })
}
