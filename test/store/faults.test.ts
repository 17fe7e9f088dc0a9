import { expect } from 'chai'
import { confirmFiles, planFiles } from '../../server/catalogue/upload-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { staysFor } from '../../server/deletion/stays.ts'
import { factsOfUnlocked } from '../../server/deletion/store.ts'
import type { Verdict } from '../../server/faults/decision.ts'
import { type DeclaredFile, declareReplicas, type GivenFile } from '../../server/faults/declare.ts'
import { look } from '../../server/faults/look.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { shownProblems } from '../../server/rules/routes.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import type { Told } from '../../server/tasks/kinds.ts'
import { claimTasks, endTurn, filesOfTasks } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const GRACE = 60_000
/** Who may is asked elsewhere. */
const demand = async (): Promise<void> => undefined
const MINUTE_MS = 60_000
const MISSING = { ...FAILURE, scope: 'SOURCE', code: 'SOURCE_MISSING', message: '404', retryable: false } as const
const CORRUPT = { ...MISSING, code: 'SOURCE_CORRUPT', message: 'adler32 is 1, not 2' } as const

for (const { name, open } of databases) {
  describe(`replicas that are BAD or lost, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      session = await world.openSession(1e12)
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    const reap = () => world.run(context => reaper(context, GRACE))
    const recover = () => world.run(recoverer)
    const states = async (at: string): Promise<string[]> =>
      (
        await world.rows<{ state: string }>('SELECT state FROM replicas WHERE rse_id = :rse ORDER BY file_id', {
          rse: (await world.rse(at)).id,
        })
      ).map(row => row.state)
    const rule = async () =>
      (await world.rows('SELECT state, locks_ok, locks_replicating, locks_stuck FROM rules ORDER BY id'))[0]
    const standing = (state: string, ok: number, replicating: number, stuck: number) => ({
      ...{ state, locks_ok: ok, locks_replicating: replicating, locks_stuck: stuck },
    })
    /** Two files of `d`, which a rule has brought from A to B. */
    async function copied(): Promise<number> {
      await world.dataset('d', 2, 'A')
      const id = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring()
      return id
    }
    async function bring(result: ReportedOutcome['result'] = 'done', error?: ReportedOutcome['error']): Promise<void> {
      await world.grantAll()
      const outcomes = (await world.claim(session, 100)).map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result, left: 'nothing' as const, ...(error && { error }) },
        ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    async function declare(
      as: Verdict,
      at: string,
      files: readonly GivenFile[] = [{ did: 's:d.f0' }],
      last = false,
    ): Promise<DeclaredFile[]> {
      const common = {
        rse: await world.rse(at),
        accountId: world.accountId,
        demand,
        as,
        reason: 'disk 7',
        last,
        files,
        first: 0,
      }
      return test.db.write(e => declareReplicas(e, common, world.clock.now()))
    }
    /** What a worker tells of the files of the next task of this kind; how many it was to work at. */
    async function work(kind: 'delete' | 'look', result: 'done' | 'failed', error?: Told['error']): Promise<number> {
      const now = world.clock.now()
      const [task] = (await test.db.write(e => claimTasks(e, { sessionId: session }, 10, now))).filter(
        one => one.kind === kind,
      )
      if (task === undefined) return 0
      const files = await filesOfTasks(test.db.read, [task.id])
      const due =
        kind === 'delete'
          ? files
          : await test.db.write(async e => {
              const { wants } = await look.order(e, task, files, now)
              return files.filter(({ replica_id }) => wants.has(replica_id))
            })
      if (due.length === 0) {
        await test.db.write(e => endTurn(e, task.id, { notBefore: now + MINUTE_MS, failures: 0, error: null }, now))
        return 0
      }
      const results = due.map(({ replica_id: file }) => ({ file, result, ...(error && { error }) }))
      const told = { session, fence: task.fence, forgotten: false, results }
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, told)
      return due.length
    }
    const faults = () => world.rows('SELECT code, account_id, over_at IS NULL AS still FROM replica_faults ORDER BY id')

    it('are recovered where they are from another copy, when what lies there is gone', async () => {
      await copied()
      expect(await declare('BAD', 'B')).to.deep.equal([{ did: 's:d.f0', outcome: 'DECLARED', state: 'BAD' }])
      expect(await rule()).to.deep.equal(standing('STUCK', 1, 0, 1))
      await recover()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'AVAILABLE'])
      expect(await rule(), 'it waits for that').to.deep.equal(standing('REPLICATING', 1, 1, 0))
      expect(await work('delete', 'done')).to.equal(1)
      expect(await states('B')).to.deep.equal(['COPYING', 'AVAILABLE'])
      await bring()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      expect(await rule()).to.deep.equal(standing('OK', 2, 0, 0))
      expect((await faults()).map(row => Boolean((row as { still: unknown }).still))).to.deep.equal([false])
    })

    it('that are lost are copied there anew at once', async () => {
      await copied()
      expect(await declare('LOST', 'B')).to.deep.equal([{ did: 's:d.f0', outcome: 'DECLARED', state: 'COPYING' }])
      expect(await rule()).to.deep.equal(standing('REPLICATING', 1, 1, 0))
      await bring()
      expect(await rule()).to.deep.equal(standing('OK', 2, 0, 0))
    })

    it('are declared once, and each answer says what became of it', async () => {
      await copied()
      const { path } = (
        await world.rows<{ path: string }>(
          "SELECT path || '/' || replicas.name AS path FROM replicas JOIN directories ON directories.id = directory_id WHERE replicas.id = 4",
        )
      )[0] ?? { path: '' }
      const files = [{ did: 's:d.f0' }, { path }, { did: 's:nothing' }, { path: '/data/nothing' }]
      expect((await declare('BAD', 'B', files)).map(({ outcome }) => outcome)).to.deep.equal([
        ...['DECLARED', 'DECLARED', 'UNKNOWN', 'UNKNOWN'],
      ])
      expect((await declare('BAD', 'B', files)).map(({ outcome }) => outcome)).to.deep.equal([
        ...['ALREADY', 'ALREADY', 'UNKNOWN', 'UNKNOWN'],
      ])
      expect(await faults()).to.have.length(2)
      expect((await declare('LOST', 'B', files)).map(({ outcome }) => outcome)).to.deep.equal([
        ...['DECLARED', 'DECLARED', 'UNKNOWN', 'UNKNOWN'],
      ])
      expect((await declare('BAD', 'B')).map(({ outcome, message }) => [outcome, message])).to.deep.equal([
        ['REFUSED', 'a transfer, or an upload, brings it: what lies there is looked at then'],
      ])
    })

    it('twice in one request are declared once', async () => {
      await copied()
      const twice = await declare('BAD', 'B', [{ did: 's:d.f0' }, { did: 's:d.f0' }])
      expect(twice.map(({ state }) => state)).to.deep.equal(['BAD', 'BAD'])
      expect(await faults()).to.have.length(1)
    })

    it('of which there is no other copy stay, the rule says so, and they are recovered when one comes', async () => {
      await copied()
      await declare('BAD', 'A')
      await declare('BAD', 'B')
      for (let hours = 0; hours < 3; hours += 1) {
        await recover()
        await world.run(ruleRepairer)
        await reap()
        await world.clock.advance(60 * MINUTE_MS)
      }
      expect([(await states('A'))[0], (await states('B'))[0]]).to.deep.equal(['BAD', 'BAD'])
      expect(await rule()).to.deep.equal(standing('STUCK', 1, 0, 1))
      expect(
        await shownProblems(test.db.read, world.context.storages, { id: 1, vo_id: world.voId, expression: 'B' }),
      ).to.deep.equal([
        { did: 's:d.f0', rse: 'B', code: 'DECLARED_BAD', message: 'disk 7; no storage has a good copy of the file' },
      ])
      await world.dataset('d', 1, 'C')
      await recover()
      await work('delete', 'done')
      await bring()
      expect((await states('B'))[0]).to.equal('AVAILABLE')
      expect(await rule()).to.deep.equal(standing('OK', 2, 0, 0))
    })

    it('of which there is no other copy go when somebody says so, and their locks stay stuck', async () => {
      await copied()
      await declare('BAD', 'A')
      await declare('BAD', 'B')
      expect(await declare('BAD', 'B', [{ did: 's:d.f0' }], true)).to.deep.equal([
        { did: 's:d.f0', outcome: 'ALREADY', state: 'BAD' },
      ])
      await recover()
      await work('delete', 'done')
      expect((await states('B'))[0]).to.equal('UNAVAILABLE')
      expect(await rule()).to.deep.equal(standing('STUCK', 1, 0, 1))
    })

    it('are not recovered while somebody may be putting the file there, nor where nothing may be deleted', async () => {
      await copied()
      await declare('BAD', 'B')
      await world.change("UPDATE rses SET availability_delete = :no WHERE name = 'B'", { no: false })
      await recover()
      expect((await states('B'))[0]).to.equal('BAD')
      await world.change("UPDATE rses SET availability_delete = :yes WHERE name = 'B'", { yes: true })
      const { id: rseId } = await world.rse('B')
      const fileIds = [await world.didId('d.f0')]
      const plan = { rseId, accountId: world.accountId, fileIds, replace: false, expiresAt: world.clock.now() + GRACE }
      await test.db.write(e => planFiles(e, plan, world.clock.now()))
      await recover()
      expect((await states('B'))[0]).to.equal('BAD')
      const rse = { id: rseId, keepRegistered: true }
      await test.db.write(e => confirmFiles(e, { rse, accountId: world.accountId, fileIds }, world.clock.now()))
      expect((await states('B'))[0], 'the upload replaced it').to.equal('AVAILABLE')
      expect(await rule()).to.deep.equal(standing('OK', 2, 0, 0))
    })

    it('are recovered no more at a time than may be under deletion at the storage', async () => {
      await copied()
      await world.change('UPDATE rses SET max_deletions = 1')
      world.context.storages.forget()
      await declare('BAD', 'B', [{ did: 's:d.f0' }, { did: 's:d.f1' }])
      await recover()
      expect((await states('B')).sort()).to.deep.equal(['BAD', 'BEING_DELETED'])
      await work('delete', 'done')
      await recover()
      expect((await states('B')).sort()).to.deep.equal(['BEING_DELETED', 'COPYING'])
    })

    it('go with the reaper where no rule holds them: what is lost is forgotten, what is BAD is deleted', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('d', 2, 'B')
      await declare('LOST', 'B')
      await declare('BAD', 'B', [{ did: 's:d.f1' }])
      await reap()
      expect(await states('B'), 'it may be a false alarm').to.deep.equal(['UNAVAILABLE', 'BAD'])
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED'])
      await work('delete', 'done')
      expect(await states('B')).to.deep.equal([])
      expect(await states('A')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    })

    it('stay, though BAD, where they are all that is left of a registered file, until somebody says that they may go', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('d', 2, 'B')
      await declare('BAD', 'A')
      await declare('BAD', 'B')
      await world.clock.advance(GRACE)
      await reap()
      expect([(await states('A'))[0], (await states('B'))[0]]).to.deep.equal(['BAD', 'BAD'])
      const facts = await factsOfUnlocked(test.db.read, [1, 3], world.clock.now())
      expect(facts.map(staysFor)).to.deep.equal(['ONLY_BAD', 'ONLY_BAD'])
      await declare('BAD', 'B', [{ did: 's:d.f0' }], true)
      await world.clock.advance(10 * MINUTE_MS)
      await reap()
      expect([(await states('A'))[0], (await states('B'))[0]]).to.deep.equal(['BAD', 'BEING_DELETED'])
    })

    it('are no sources: what is queued from there finds another, and a new rule there waits for the recovery', async () => {
      await world.dataset('d', 2, 'A')
      await world.dataset('d', 2, 'B')
      await world.addRule('d', 'C', 1)
      await world.evaluate()
      const { id: a } = await world.rse('A')
      const queued = async () =>
        (
          await world.rows<{ source: number }>("SELECT source_rse_id AS source FROM transfers WHERE state = 'QUEUED'")
        ).map(row => row.source)
      expect(await queued()).to.deep.equal([a, a])
      await declare('BAD', 'A', [{ did: 's:d.f0' }, { did: 's:d.f1' }])
      expect(await queued()).to.deep.equal([])
      await world.run(transferReleaser)
      expect(await queued()).to.deep.equal(Array(2).fill((await world.rse('B')).id))
      await world.addRule('d', 'A', 1)
      await world.evaluate()
      const second = async () => (await world.rows('SELECT state, locks_stuck FROM rules WHERE id = 2'))[0]
      expect(await second()).to.deep.equal({ state: 'STUCK', locks_stuck: 2 })
      await recover()
      expect(await second()).to.deep.equal({ state: 'REPLICATING', locks_stuck: 0 })
      expect(await states('A')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('are recovered from the copy that was being read from them, when it has arrived and was right', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'A', 1)
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const [held] = await world.claim(session, 1)
      await declare('BAD', 'A')
      await recover()
      expect(await states('A'), 'there is no copy yet').to.deep.equal(['BAD'])
      const done = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing', result: 'done' } as const
      const outcome = { ...done, transfer: held?.id ?? 0, fence: held?.fence ?? 0 }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [outcome])
      await recover()
      expect(await states('A')).to.deep.equal(['BEING_DELETED'])
    })

    it('are copied where rules wait for a copy, when one comes that was under way', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'A', 1)
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const [held] = await world.claim(session, 1)
      await world.change("UPDATE transfers SET state = 'SETTLING', session_id = NULL")
      await declare('LOST', 'A')
      expect(await rule(), 'it is hoped for').to.deep.equal(standing('REPLICATING', 0, 1, 0))
      expect(held).to.not.equal(undefined)
      await world.change("UPDATE transfers SET state = 'WAITING' WHERE state <> 'SETTLING'")
      // As after an hour without a source.
      await world.change("UPDATE transfers SET state = 'FAILED', reason = 'NO_SOURCE' WHERE state = 'WAITING'")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE id = 1")
      await world.change("UPDATE locks SET state = 'STUCK' WHERE replica_id = 1")
      await world.change(
        "UPDATE rules SET state = 'STUCK', locks_stuck = 1, locks_replicating = 0, repair_at = :later WHERE id = 1",
        { later: world.clock.now() + 60 * MINUTE_MS },
      )
      await world.change('UPDATE transfers SET session_id = :session WHERE state = :state', {
        session,
        state: 'SETTLING',
      })
      const done = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing', result: 'done' } as const
      const outcome = { ...done, transfer: held?.id ?? 0, fence: held?.fence ?? 0 }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [outcome])
      expect(await rule()).to.deep.equal(standing('REPLICATING', 0, 1, 0))
    })

    it('are found by a worker only when it has looked, ten minutes after a source was said to lack the file', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('d', 1, 'C')
      await world.addRule('d', 'A', 1)
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring('failed', MISSING)
      expect(await states('A'), 'a storage may be wrong').to.deep.equal(['AVAILABLE'])
      expect(await work('look', 'failed', MISSING), 'not at once').to.equal(0)
      await world.clock.advance(10 * MINUTE_MS)
      expect(await work('look', 'failed', MISSING)).to.equal(1)
      expect(await states('A'), 'it is copied there anew').to.deep.equal(['COPYING'])
      const [fault] = await world.rows<{ code: string; account_id: number | null }>(
        'SELECT code, account_id FROM replica_faults',
      )
      expect(fault).to.deep.equal({ code: 'SOURCE_MISSING', account_id: null })
      expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
    })

    it('are none where the look finds the file, or does not tell', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring('failed', MISSING)
      await world.clock.advance(10 * MINUTE_MS)
      const away = { ...MISSING, code: 'STORAGE_ERROR', message: '500', retryable: true } as const
      expect(await work('look', 'failed', away)).to.equal(1)
      expect(await states('A')).to.deep.equal(['AVAILABLE'])
      await world.clock.advance(60 * MINUTE_MS)
      expect(await work('look', 'done')).to.equal(1)
      expect(await states('A')).to.deep.equal(['AVAILABLE'])
      expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
    })

    it('are good again when a worker has looked, which is at once when somebody says so', async () => {
      await copied()
      await declare('BAD', 'A')
      await declare('BAD', 'B')
      expect(await declare('GOOD', 'B')).to.deep.equal([{ did: 's:d.f0', outcome: 'TO_BE_LOOKED_AT', state: 'BAD' }])
      expect(await work('look', 'failed', CORRUPT)).to.equal(1)
      expect((await states('B'))[0]).to.equal('BAD')
      await declare('GOOD', 'B')
      expect(await work('look', 'done')).to.equal(1)
      expect((await states('B'))[0]).to.equal('AVAILABLE')
      expect(await rule()).to.deep.equal(standing('OK', 2, 0, 0))
      await recover()
      expect((await states('A'))[0], 'no rule holds it').to.equal('BAD')
    })

    it('are found by the look that somebody asks for', async () => {
      await copied()
      await declare('GOOD', 'B', [{ did: 's:d.f0' }])
      expect(await work('look', 'failed', CORRUPT)).to.equal(1)
      expect(await states('B')).to.deep.equal(['BAD', 'AVAILABLE'])
      expect(await rule()).to.deep.equal(standing('STUCK', 1, 0, 1))
    })

    it('are not deleted while a worker looks at them', async () => {
      await copied()
      await declare('BAD', 'B')
      await declare('GOOD', 'B')
      await recover()
      expect((await states('B'))[0]).to.equal('BAD')
    })

    it('end with their rule, which lets them be deleted', async () => {
      const id = await copied()
      await declare('BAD', 'A')
      await declare('BAD', 'B')
      await test.db.write(e => startRemoval(e, id, world.clock.now()))
      await world.evaluate()
      await world.clock.advance(GRACE)
      await reap()
      expect((await states('B'))[0]).to.equal('BEING_DELETED')
      expect((await states('A'))[0], 'it was registered').to.equal('BAD')
    })
  })
}
