import { expect } from 'chai'
import { EVERYTHING } from '../../server/accounts/sight.ts'
import { confirmFiles, planFiles } from '../../server/catalogue/upload-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { staysFor } from '../../server/deletion/stays.ts'
import { factsOfUnlocked } from '../../server/deletion/store.ts'
import type { Verdict } from '../../server/faults/decision.ts'
import { type DeclaredFile, declareReplicas } from '../../server/faults/declare.ts'
import { listFaultsOf, setKept } from '../../server/faults/declare-store.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { claimTasks } from '../../server/tasks/store.ts'
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
const demand = async (): Promise<void> => undefined
const MISSING = { ...FAILURE, scope: 'SOURCE', code: 'SOURCE_MISSING', message: '404', retryable: false } as const
const CORRUPT = { ...MISSING, code: 'SOURCE_CORRUPT', message: 'adler32 is 1, not 2' } as const

for (const { name, open } of databases) {
  describe(`what a worker finds of a source, on ${name}`, () => {
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
    const state = async (at: string): Promise<string | undefined> =>
      (
        await world.rows<{ state: string }>('SELECT state FROM replicas WHERE rse_id = :rse', {
          rse: (await world.rse(at)).id,
        })
      )[0]?.state
    async function end(held: readonly { id: number; fence: number }[], error?: ReportedOutcome['error']) {
      const outcomes = held.map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result: error ? ('failed' as const) : ('done' as const), left: 'nothing' as const },
        ...{ ...(error && { error }), durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    async function bring(error?: ReportedOutcome['error']): Promise<void> {
      await world.grantAll()
      await end(await world.claim(session, 100), error)
    }
    async function declare(as: Verdict, at: string): Promise<DeclaredFile[]> {
      const common = { accountId: world.accountId, demand, as, reason: 'disk 7', last: false, first: 0 }
      const rse = await world.rse(at)
      return test.db.write(e => declareReplicas(e, { ...common, rse, files: [{ did: 's:d.f0' }] }, world.clock.now()))
    }
    const facts = () => factsOfUnlocked(test.db.read, [1, 2, 3], world.clock.now())
    const faults = () => listFaultsOf(test.db.read, EVERYTHING, { rseId: undefined, after: 0, limit: 10 })
    /** One file is registered at A and B, and a rule wants it where it is said; its copy to C was given up, A being BAD. */
    async function corrupt(...at: readonly string[]): Promise<void> {
      await world.dataset('d', 1, 'A')
      await world.dataset('d', 1, 'B')
      for (const expression of at) await world.addRule('d', expression, 1)
      await world.evaluate()
      await bring(CORRUPT)
      expect(await state('A')).to.equal('BAD')
    }

    it('deletes nothing that was registered, before a person says so', async () => {
      await corrupt('C')
      await world.run(transferReleaser)
      await world.clock.advance(GRACE)
      await world.run(transferReleaser)
      await bring()
      await world.clock.advance(20 * GRACE)
      await reap()
      expect([await state('A'), await state('C')]).to.deep.equal(['BAD', 'AVAILABLE'])
      expect((await facts()).map(staysFor)).to.deep.equal(['UNCONFIRMED'])
      expect((await faults()).map(row => [row.account, Boolean(row.unconfirmed)])).to.deep.equal([[null, true]])
      expect((await declare('BAD', 'A'))[0]?.outcome, 'confirmed').to.equal('DECLARED')
      expect((await declare('BAD', 'A'))[0]?.outcome).to.equal('ALREADY')
      expect((await faults()).map(row => [row.account, Boolean(row.unconfirmed)])).to.deep.equal([['someone', false]])
      await world.clock.advance(20 * GRACE)
      await reap()
      expect(await state('A')).to.equal('BEING_DELETED')
    })

    it('and a wrong checksum in the catalogue costs no copy that was registered', async () => {
      await corrupt('A', 'B', 'C')
      await recover()
      await world.clock.advance(10 * GRACE)
      await world.run(transferReleaser)
      await bring(CORRUPT)
      await recover()
      expect([await state('A'), await state('B')]).to.deep.equal(['BAD', 'BAD'])
    })

    it('is not looked at any more when somebody says that it is BAD: it is recovered, and a late look changes nothing', async () => {
      await world.dataset('d', 1, 'A')
      await world.dataset('d', 1, 'B')
      await world.addRule('d', 'A', 1)
      await world.addRule('d', 'C', 1)
      await world.evaluate()
      await bring(MISSING)
      await world.clock.advance(10 * GRACE)
      const [task] = await test.db.write(e => claimTasks(e, { sessionId: session }, 10, world.clock.now()))
      if (task === undefined) throw new Error('no look')
      await declare('BAD', 'A')
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, {
        ...{ session, fence: task.fence, forgotten: false },
        results: [{ file: 1, result: 'done' }],
      })
      expect(await state('A')).to.equal('BAD')
      await recover()
      expect(await state('A')).to.equal('BEING_DELETED')
    })

    it('says nothing of what has come there since the attempt began', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const held = await world.claim(session, 1)
      await declare('BAD', 'A')
      await world.clock.advance(1)
      const rse = await world.rse('A')
      const upload = { rse, accountId: world.accountId, fileIds: [await world.didId('d.f0')] }
      const plan = { ...upload, rseId: rse.id, replace: false, expiresAt: world.clock.now() + GRACE }
      await test.db.write(e => planFiles(e, plan, world.clock.now()))
      await test.db.write(e => confirmFiles(e, upload, world.clock.now()))
      await end(held, CORRUPT)
      expect(await state('A')).to.equal('AVAILABLE')
    })

    it('and something that lies where a file was lost is BAD when a person says so, or asks for a look', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring()
      await declare('LOST', 'B')
      await bring({ ...FAILURE, code: 'DESTINATION_EXISTS', retryable: false })
      expect(await state('B')).to.equal('UNAVAILABLE')
      expect((await declare('GOOD', 'B'))[0]?.outcome).to.equal('TO_BE_LOOKED_AT')
      const [task] = await test.db.write(e => claimTasks(e, { sessionId: session }, 10, world.clock.now()))
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task?.id ?? 0, {
        ...{ session, fence: task?.fence ?? 0, forgotten: false },
        results: [{ file: 2, result: 'failed', error: CORRUPT }],
      })
      expect(await state('B')).to.equal('BAD')
      await declare('LOST', 'B')
      await bring({ ...FAILURE, code: 'DESTINATION_EXISTS', retryable: false })
      expect((await declare('BAD', 'B'))[0]).to.include({ outcome: 'DECLARED', state: 'BAD' })
      await recover()
      expect(await state('B')).to.equal('BEING_DELETED')
    })

    it('is recovered from once somebody says so, or lets go of what was registered', async () => {
      await corrupt('A', 'C')
      await recover()
      expect(await state('A'), 'nobody has said so').to.equal('BAD')
      const { id: rseId } = await world.rse('A')
      const fileId = await world.didId('d.f0')
      await test.db.write(e => setKept(e, rseId, [fileId], false, world.clock.now()))
      await recover()
      expect(await state('A')).to.equal('BEING_DELETED')
    })
  })
}
