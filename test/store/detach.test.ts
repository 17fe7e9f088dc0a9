import { expect } from 'chai'
import { insertContents } from '../../server/catalogue/contents-store.ts'
import type { Database } from '../../server/database/database.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { shrinkStep } from '../../server/rules/shrink.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { killedAt } from './killed.ts'
import { FAILURE, World } from './world.ts'

/** More than one step for a dataset. */
const FILES = 1_200

for (const { name, open } of databases) {
  describe(`detaching from what rules are on, on ${name}`, function () {
    this.timeout(60_000)
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

    /** `rule file rse` of all locks. */
    async function locks(): Promise<string[]> {
      const rows = await world.rows<{ rule_id: number; file: string; rse: string }>(
        `SELECT rule_id, dids.name AS file, rses.name AS rse FROM locks JOIN replicas ON replicas.id = replica_id
           JOIN dids ON dids.id = file_id JOIN rses ON rses.id = replicas.rse_id ORDER BY rule_id, dids.name, rses.name`,
      )
      return rows.map(row => `${row.rule_id} ${row.file} ${row.rse}`)
    }
    const rules = () =>
      world.rows<{ state: string; stage: string }>(
        'SELECT state, stage, locks_ok AS ok, locks_replicating AS replicating, locks_stuck AS stuck FROM rules ORDER BY id',
      )
    const left = (): Promise<number> => world.number('SELECT count(*) AS n FROM detached')
    const transfers = (state: string): Promise<number> =>
      world.number('SELECT count(*) AS n FROM transfers WHERE state = :state', { state })

    async function reported(result: 'done' | 'failed', limit = 100): Promise<void> {
      await world.grantAll()
      const session = await world.openSession()
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, mode: 'pull' as const, cleaned: false }
      const outcomes = (await world.claim(session, limit)).map(({ id: transfer, fence }) => ({
        transfer,
        fence,
        result,
        left: 'nothing' as const,
        ...numbers,
        ...(result === 'failed' ? { error: { ...FAILURE, retryable: false } } : {}),
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }

    /** Lets the evaluator work, and does this once, right after its n-th transaction. */
    async function evaluateAnd(n: number, then: () => Promise<void>): Promise<void> {
      let count = 0
      const write: Database['write'] = async work => {
        const answer = await test.db.write(work)
        count += 1
        if (count === n) await then()
        return answer
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      expect(count).to.be.at.least(n)
    }

    it('a file goes with its lock, its transfer and its replica', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.detach('d', 'd.f1')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d.f0 B', '1 d.f2 B'])
      expect(await rules()).to.deep.equal([
        { state: 'REPLICATING', stage: 'EXPANDED', ok: 0, replicating: 2, stuck: 0 },
      ])
      expect(await transfers('CANCELLED')).to.equal(1)
      expect(await world.number('SELECT count(*) AS n FROM replicas WHERE tombstone_at IS NOT NULL')).to.equal(1)
      expect(await world.rows('SELECT files, bytes FROM dids WHERE name = :d', { d: 'd' })).to.deep.equal([
        { files: 2, bytes: 100 + 102 },
      ])
      expect(await left()).to.equal(0)
    })

    it('a file in two datasets under one rule stays where the other one is kept', async () => {
      await world.dataset('one', 2, 'B')
      await world.dataset('two', 2, 'C')
      await world.put('two', 'one.f0')
      await world.container('all', ['s:one', 's:two'])
      await world.addRule('all', 'B|C', 1)
      await world.evaluate()
      const both = ['1 one.f0 B', '1 one.f0 C', '1 one.f1 B', '1 two.f0 C', '1 two.f1 C']
      expect(await locks()).to.deep.equal(both)
      await world.detach('one', 'one.f0')
      await world.evaluate()
      expect(await locks()).to.deep.equal(both.filter(lock => lock !== '1 one.f0 B'))
      await world.put('one', 'one.f0')
      await world.evaluate()
      expect(await locks()).to.deep.equal(both)
      await world.detach('all', 'two')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 one.f0 B', '1 one.f1 B'])
    })

    it('a file in two datasets, each placed by itself, keeps its lock where one of them goes', async () => {
      await world.dataset('one', 2, 'A')
      await world.dataset('two', 1, 'A')
      await world.put('two', 'one.f0')
      await world.container('all', ['s:one', 's:two'])
      world.grouping = 'NONE'
      await world.addRule('all', 'B|C', 1)
      await world.evaluate()
      const before = await locks()
      await world.detach('one', 'one.f0')
      await world.evaluate()
      expect(await locks()).to.deep.equal(before)
      await world.detach('all', 'one')
      await world.evaluate()
      expect(await locks()).to.deep.equal(before.filter(lock => !lock.includes('one.f1')))
      expect(await transfers('CANCELLED')).to.equal(1)
    })

    it('a file in two datasets that are kept at one storage keeps its lock', async () => {
      await world.dataset('one', 2, 'A')
      await world.dataset('two', 1, 'A')
      await world.put('two', 'one.f0')
      await world.container('all', ['s:one', 's:two'])
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      const before = await locks()
      await world.detach('one', 'one.f0')
      await world.evaluate()
      expect(await locks()).to.deep.equal(before)
      expect(await transfers('CANCELLED')).to.equal(0)
    })

    it('several rules over the same files: locks are counted, bytes are moved once', async () => {
      await world.dataset('d', 3, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('d', 'B', 1)
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      expect(await world.rows('SELECT DISTINCT lock_count AS n FROM replicas WHERE rse_id = 2')).to.deep.equal([
        { n: 2 },
      ])
      expect(await world.number('SELECT count(*) AS n FROM transfers')).to.equal(3)
      await world.detach('all', 'd')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d.f0 B', '1 d.f1 B', '1 d.f2 B'])
      expect(await transfers('CANCELLED')).to.equal(0)
      await world.put('all', 'd')
      await world.evaluate()
      await world.detach('d', 'd.f0')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d.f1 B', '1 d.f2 B', '2 d.f1 B', '2 d.f2 B'])
      expect(await transfers('CANCELLED')).to.equal(1)
    })

    it('the second rule waits on the first one’s transfer, and goes on with it when the first lets go', async () => {
      await world.dataset('d', 2, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await world.number('SELECT count(*) AS n FROM transfers')).to.equal(2)
      await world.detach('all', 'd')
      await world.evaluate()
      await reported('done')
      expect(await rules()).to.deep.equal([
        { state: 'OK', stage: 'EXPANDED', ok: 0, replicating: 0, stuck: 0 },
        { state: 'OK', stage: 'EXPANDED', ok: 2, replicating: 0, stuck: 0 },
      ])
    })

    it('containers of containers: what one holds in another way stays', async () => {
      for (const dataset of ['d0', 'd1', 'd2']) await world.dataset(dataset, 2, 'A')
      await world.container('left', ['s:d0', 's:d1'])
      await world.container('right', ['s:d1', 's:d2'])
      await world.container('all', ['s:left', 's:right'])
      await world.container('top', ['s:all'])
      await world.addRule('top', 'B', 1)
      await world.evaluate()
      expect(await locks()).to.have.length(6)
      await world.detach('all', 'left')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d1.f0 B', '1 d1.f1 B', '1 d2.f0 B', '1 d2.f1 B'])
      await world.detach('right', 'd1')
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d2.f0 B', '1 d2.f1 B'])
      await world.put('top', 'left')
      await world.evaluate()
      expect(await locks()).to.have.length(6)
    })

    it('what is detached from what was detached is let go of too', async () => {
      await world.dataset('d', 3, 'A')
      await world.container('inner', ['s:d'])
      await world.container('outer', ['s:inner'])
      await world.addRule('outer', 'B', 1)
      await world.evaluate()
      await world.detach('outer', 'inner')
      await world.detach('inner', 'd')
      await world.detach('d', 'd.f1')
      await world.evaluate()
      expect(await locks()).to.deep.equal([])
    })

    it('what is detached and attached again before the step changes nothing', async () => {
      await world.dataset('d', 3, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('all', 'B|C', 1)
      await world.evaluate()
      const before = await locks()
      await world.detach('d', 'd.f1')
      await world.detach('all', 'd')
      await world.put('all', 'd')
      await world.put('d', 'd.f1')
      await world.evaluate()
      expect(await locks()).to.deep.equal(before)
      expect(await transfers('CANCELLED')).to.equal(0)
      expect(await left()).to.equal(0)
    })

    it('what is attached again between two steps is kept where it is chosen then', async () => {
      await world.dataset('d', FILES, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('all', 'B|C', 1)
      await world.evaluate()
      const [chosen] = await world.rows<{ rse: string }>(
        'SELECT rses.name AS rse FROM rule_choices JOIN rses ON rses.id = rse_id',
      )
      const other = chosen?.rse === 'B' ? 'C' : 'B'
      await world.detach('all', 'd')
      await evaluateAnd(1, async () => {
        expect((await locks()).length).to.be.within(1, FILES - 1)
        await world.put('all', 'd')
        // So that it chooses another.
        await world.change('UPDATE rses SET availability_write = false WHERE name = :rse', { rse: chosen?.rse ?? '' })
        world.context.storages.forget()
      })
      const now = await locks()
      expect(now).to.have.length(FILES)
      expect(now.filter(lock => !lock.endsWith(` ${other}`))).to.deep.equal([])
    })

    it('what is detached a second time between two steps is let go of from its first file', async () => {
      await world.dataset('d', 300, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('all', 'B|C', 1)
      await world.evaluate()
      await world.detach('all', 'd')
      // As if it had been attached, kept anew and detached again when half of its files were looked at.
      await world.change('UPDATE detached SET cursor = :cursor', { cursor: await world.didId('d.f150') })
      await world.put('all', 'd')
      await world.detach('all', 'd')
      await test.db.write(e => shrinkStep(e, 1, 100, world.clock.now()))
      await world.put('all', 'd')
      await world.change(
        'UPDATE rses SET availability_write = false WHERE id = (SELECT min(rse_id) FROM replicas WHERE rse_id > 1)',
      )
      world.context.storages.forget()
      await world.evaluate()
      expect(await locks()).to.have.length(300)
    })

    it('detach while EXPANDING: nothing more is locked for it, and what follows is whole', async () => {
      await world.dataset('first', FILES, 'A')
      await world.dataset('second', FILES, 'A')
      await world.container('all', ['s:first', 's:second'])
      await world.addRule('all', 'B', 1)
      await evaluateAnd(2, async () => {
        const [rule] = await world.rows<{ stage: string; file: number }>('SELECT stage, cursor_file AS file FROM rules')
        expect(rule?.stage).to.equal('EXPANDING')
        expect(rule?.file).to.be.above(0)
        await world.detach('all', 'first')
      })
      const held = await locks()
      expect(held).to.have.length(FILES)
      expect(held.filter(lock => !lock.includes(' second.'))).to.deep.equal([])
      expect(await world.number('SELECT count(*) AS n FROM transfers')).to.be.below(2 * FILES)
    })

    it('detach while REMOVING: the rule goes with all it had', async () => {
      await world.dataset('d', FILES, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.detach('d', 'd.f0')
      await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      await evaluateAnd(1, () => world.detach('d', 'd.f1'))
      expect(await rules()).to.deep.equal([])
      expect([await locks(), await left()]).to.deep.equal([[], 0])
    })

    it('detach of everything: the rule is OK, and holds nothing', async () => {
      await world.dataset('d', FILES, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.detach('d', ...Array.from({ length: FILES }, (_, i) => `d.f${i}`))
      await world.evaluate()
      expect(await rules()).to.deep.equal([{ state: 'OK', stage: 'EXPANDED', ok: 0, replicating: 0, stuck: 0 }])
      expect(await transfers('CANCELLED')).to.equal(FILES)
      expect(await world.rows('SELECT files, bytes FROM dids WHERE name = :d', { d: 'd' })).to.deep.equal([
        { files: 0, bytes: 0 },
      ])
    })

    it('a rule is OK when the last file that it waits for goes, and stays OK when one goes that was there', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await reported('done', 2)
      const [waiting] = await world.rows<{ name: string }>(
        `SELECT dids.name FROM locks JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id
          WHERE locks.state = 'REPLICATING'`,
      )
      await world.detach('d', waiting?.name ?? '')
      await world.evaluate()
      expect(await rules()).to.deep.equal([{ state: 'OK', stage: 'EXPANDED', ok: 2, replicating: 0, stuck: 0 }])
      const [there] = await world.rows<{ name: string }>(
        'SELECT dids.name FROM locks JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id',
      )
      await world.detach('d', there?.name ?? '')
      expect((await rules())[0]?.state).to.equal('OK')
      await world.evaluate()
      expect(await rules()).to.deep.equal([{ state: 'OK', stage: 'EXPANDED', ok: 1, replicating: 0, stuck: 0 }])
    })

    it('a rule is OK when the file goes that it was STUCK for (rucio #7738)', async () => {
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await reported('done', 1)
      await reported('failed')
      const [stuck] = await world.rows<{ name: string }>(
        `SELECT dids.name FROM locks JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id
          WHERE locks.state = 'STUCK'`,
      )
      expect((await rules())[0]?.state).to.equal('STUCK')
      await world.detach('d', stuck?.name ?? '')
      await world.evaluate()
      await world.run(ruleRepairer)
      expect(await rules()).to.deep.equal([{ state: 'OK', stage: 'EXPANDED', ok: 1, replicating: 0, stuck: 0 }])
    })

    it('a rule is not STUCK any more when the file goes that has no free path', async () => {
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      const [file, { id: rseId }] = [await world.didId('d.f0'), await world.rse('B')]
      // As if its path had been taken: it has no replica there, and the rule a problem.
      await world.change('DELETE FROM transfers WHERE replica_id IN (SELECT id FROM replicas WHERE file_id = :file)', {
        file,
      })
      await world.change('DELETE FROM locks WHERE replica_id IN (SELECT id FROM replicas WHERE file_id = :file)', {
        file,
      })
      await world.change('DELETE FROM replicas WHERE file_id = :file AND rse_id = :rseId', { file, rseId })
      await world.change(
        "INSERT INTO rule_problems (rule_id, file_id, rse_id, code, message) VALUES (1, :file, :rseId, 'PATH_TAKEN', '')",
        { file, rseId },
      )
      await world.change("UPDATE rules SET problems = 1, locks_replicating = 1, state = 'STUCK'")
      await world.change('UPDATE account_usage SET files = 1, bytes = 101')
      await world.detach('d', 'd.f0')
      await world.evaluate()
      expect((await rules())[0]?.state).to.equal('REPLICATING')
      expect(await world.number('SELECT count(*) AS n FROM rule_problems')).to.equal(0)
    })

    it('a rule that found too few storages looks again when something goes', async () => {
      await world.dataset('fine', 1, 'B')
      await world.dataset('short', 1, 'A')
      await world.container('all', ['s:fine', 's:short'])
      await world.addRule('all', 'B', 1)
      await world.change("UPDATE rses SET availability_write = false WHERE name = 'B'")
      world.context.storages.forget()
      await world.evaluate()
      expect((await rules())[0]?.state).to.equal('STUCK')
      await world.detach('all', 'short')
      await world.evaluate()
      expect(await rules()).to.deep.equal([{ state: 'OK', stage: 'EXPANDED', ok: 1, replicating: 0, stuck: 0 }])
    })

    for (const when of ['before', 'after'] as const) {
      it(`lets go once when it is killed ${when} each commit`, async () => {
        for (const dataset of ['d0', 'd1']) await world.dataset(dataset, FILES, 'A')
        await world.container('inner', ['s:d0', 's:d1'])
        await world.container('all', ['s:inner'])
        for (const rse of ['B', 'C']) await world.addRule('all', rse, 1)
        await world.evaluate()
        await world.detach('all', 'inner')
        await world.detach('d1', 'd1.f5')
        let killed = 0
        while ((await left()) > 0) {
          if (when === 'before') await killedAt(world, 'before')
          await killedAt(world, 'after')
          killed += 1
          expect(await brokenInvariants(world)).to.deep.equal([])
        }
        // For each rule the container, the file, and three steps for each dataset.
        expect(killed).to.equal(2 * (1 + 1 + 2 * 3))
        expect(await locks()).to.deep.equal([])
      })
    }

    it('a storage is not chosen for what is detached between the look and the choice', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('stays', 2, 'A')
      await world.container('all', ['s:d', 's:stays'])
      await world.addRule('all', 'B', 1)
      let detached = false
      const write: Database['write'] = async work => {
        if (!detached) {
          detached = true
          await world.detach('all', 'd')
          // Another server lets go of it.
          await test.db.write(async e => void (await shrinkStep(e, 1, 100, world.clock.now())))
        }
        return test.db.write(work)
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      expect(await locks()).to.deep.equal(['1 stays.f0 B', '1 stays.f1 B'])
    })

    it('a look that counted choices that are let go of meanwhile is of no use', async () => {
      await world.dataset('d', 2, 'A')
      await world.container('all', ['s:d'])
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      const [all, d] = [await world.didId('all'), await world.didId('d')]
      await world.db.write(e => reevaluateRules(e, { id: all, type: 'CONTAINER' }, [d]))
      let late = false
      const write: Database['write'] = async work => {
        if (!late) {
          late = true
          // Another server saw it detached, and not yet attached again.
          await world.detach('all', 'd')
          await test.db.write(async e => void (await shrinkStep(e, 1, 100, world.clock.now())))
          await test.db.write(e => insertContents(e, all, [d]))
        }
        return test.db.write(work)
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d.f0 B', '1 d.f1 B'])
    })

    it('a look from an earlier pass is of no use, however alike the rule is', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('new', 2, 'A')
      await world.container('box', ['s:d'])
      await world.container('all', [])
      await world.addRule('all', 'B', 1)
      await world.evaluate()
      await world.put('all', 'box')
      let late = false
      const write: Database['write'] = async work => {
        if (!late) {
          late = true
          // Before this server chooses another does all there is; and it begins anew, with one dataset more.
          await world.evaluate()
          await world.detach('all', 'box')
          await world.evaluate()
          await world.put('box', 'new')
          await world.put('all', 'box')
        }
        return test.db.write(work)
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      await world.evaluate()
      expect(await locks()).to.deep.equal(['1 d.f0 B', '1 new.f0 B', '1 new.f1 B'])
    })

    it('steady detaching holds up no expansion, nor the other way round', async () => {
      const datasets = (kind: string): string[] => [0, 1, 2, 3].map(i => `${kind}${i}`)
      for (const kind of ['old', 'young']) {
        for (const dataset of datasets(kind)) await world.dataset(dataset, 1, 'A')
        await world.container(
          kind,
          datasets(kind).map(dataset => `s:${dataset}`),
        )
      }
      await world.addRule('old', 'B', 1)
      await world.evaluate()
      await world.detach('old', ...datasets('old'))
      await world.addRule('young', 'B', 1)
      const held = async (rule: number): Promise<number> =>
        world.number('SELECT count(*) AS n FROM locks WHERE rule_id = :rule', { rule })
      const steps: string[] = []
      const write: Database['write'] = async work => {
        const before = [await held(1), await held(2)]
        const answer = await test.db.write(work)
        const after = [await held(1), await held(2)]
        if (before[0] !== after[0]) steps.push('shrunk')
        if (before[1] !== after[1]) steps.push('expanded')
        return answer
      }
      await world.run(context => ruleEvaluator({ ...context, db: { ...test.db, write } }))
      expect(steps.filter(step => step === 'shrunk')).to.have.length(4)
      expect(steps.filter(step => step === 'expanded')).to.have.length(4)
      expect(steps.indexOf('expanded')).to.be.below(steps.lastIndexOf('shrunk'))
      expect(steps.indexOf('shrunk')).to.be.below(steps.lastIndexOf('expanded'))
    })
  })
}
