import { expect } from 'chai'
import { reaper } from '../../server/deletion/reaper.ts'
import type { Verdict } from '../../server/faults/decision.ts'
import { declareReplicas } from '../../server/faults/declare.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { putProtocol } from '../../server/storages/store.ts'
import { takeReport, takeTasks } from '../../server/tasks/tasks.ts'
import type { Issuers } from '../../server/tokens/issuers.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FENCE_BASE, World } from './world.ts'

const GRACE = 60_000
const HOURS_MS = 12 * 3_600_000
const demand = async (): Promise<void> => undefined

for (const { name, open } of databases) {
  describe(`deletions are decided once more when a worker is told of them, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let context: TokenContext
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      for (const rse of await world.context.storages.all())
        await test.db.write(e => putProtocol(e, rse.id, { url: `davs://${rse.name}.example.org/` }))
      world.context.storages.forget()
      session = await world.openSession(1e12)
      const issuers = { forVo: () => ({ id: world.issuerId, clientId: 'server' }) } as unknown as Issuers
      context = { ...world.context, issuers } as TokenContext
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    const reap = () => world.run(some => reaper(some, GRACE))
    const take = () => takeTasks(context, { sessionId: session, fenceBase: FENCE_BASE }, 10)
    const states = async (at: string) =>
      (
        await world.rows<{ state: string }>('SELECT state FROM replicas WHERE rse_id = :rse ORDER BY file_id', {
          rse: (await world.rse(at)).id,
        })
      ).map(row => row.state)
    const locks = async () =>
      world.rows('SELECT state, locks_ok, locks_replicating, locks_stuck FROM rules ORDER BY id')
    async function bring(): Promise<void> {
      await world.grantAll()
      const outcomes = (await world.claim(session, 100)).map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result: 'done' as const, left: 'nothing' as const },
        ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    async function declare(as: Verdict, at: string): Promise<void> {
      const common = { accountId: world.accountId, demand, as, reason: 'disk 7', last: false, first: 0 }
      const files = [{ did: 's:d.f0' }, { did: 's:d.f1' }]
      const rse = await world.rse(at)
      await test.db.write(e => declareReplicas(e, { ...common, rse, files }, world.clock.now()))
    }
    const report = ({ task, fence, files }: StorageTask, result: 'done' | 'failed') =>
      takeReport(context, DEFAULT_RETRY_POLICY, task, {
        ...{ session, fence, forgotten: false },
        results: files.map(({ file }) => ({ file, result })),
      })
    /** Two files of `d` that a rule has brought from A to B; it has ended, and they are to be deleted at B. */
    async function reaped(): Promise<void> {
      await world.dataset('d', 2, 'A')
      const id = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring()
      await test.db.write(e => startRemoval(e, id, world.clock.now()))
      await world.evaluate()
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
      await world.clock.advance(HOURS_MS)
    }

    it('what a rule has locked since stays, and the rule is OK', async () => {
      await reaped()
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE', kept = false WHERE rse_id = 1")
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await take()).to.deep.equal([])
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      expect(await locks()).to.deep.equal([{ state: 'OK', locks_ok: 2, locks_replicating: 0, locks_stuck: 0 }])
      expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
    })

    it('what became the last good copy of what a rule asks for elsewhere stays, and is reaped when it is not any more', async () => {
      await reaped()
      await world.addRule('d', 'C', 1)
      await world.evaluate()
      await declare('LOST', 'A')
      expect(await take()).to.deep.equal([])
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await world.run(transferReleaser)
      await bring()
      await world.clock.advance(10 * GRACE)
      await reap()
      const [task] = await take()
      expect(task?.files).to.have.length(2)
    })

    it('what nobody asks for goes, and so does what a worker was told of before', async () => {
      await reaped()
      const [task] = await take()
      if (task === undefined) throw new Error('no task')
      expect(task.files).to.have.length(2)
      await report(task, 'failed')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      const [again] = await take()
      expect(again?.files, 'its DELETE may be on its way').to.have.length(2)
    })

    it('what is BAD stays when the good copy is lost before, and its rule is STUCK', async () => {
      await world.dataset('d', 2, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await bring()
      await declare('BAD', 'B')
      await world.run(recoverer)
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
      await declare('LOST', 'A')
      expect(await take()).to.deep.equal([])
      expect(await states('B')).to.deep.equal(['BAD', 'BAD'])
      expect(await locks()).to.deep.equal([{ state: 'STUCK', locks_ok: 0, locks_replicating: 0, locks_stuck: 2 }])
      await world.dataset('d', 2, 'C')
      await world.run(recoverer)
      const [task] = await take()
      if (task === undefined) throw new Error('no task')
      await report(task, 'done')
      await bring()
      expect(await locks()).to.deep.equal([{ state: 'OK', locks_ok: 2, locks_replicating: 0, locks_stuck: 0 }])
    })

    it('what a failed attempt left goes, though a rule wants the file there: it is brought anew', async () => {
      await world.dataset('d', 2, 'A')
      const id = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.change("UPDATE transfers SET written_fence = 1, state = 'FAILED'")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE rse_id = 2")
      await world.change("UPDATE locks SET state = 'STUCK'")
      await world.change("UPDATE rules SET state = 'STUCK', locks_stuck = 2, locks_replicating = 0")
      await test.db.write(e => startRemoval(e, id, world.clock.now()))
      await world.evaluate()
      await world.clock.advance(GRACE)
      await reap()
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      const [task] = await take()
      if (task === undefined) throw new Error('no task')
      await report(task, 'done')
      expect(await states('B')).to.deep.equal(['COPYING', 'COPYING'])
    })
  })
}
