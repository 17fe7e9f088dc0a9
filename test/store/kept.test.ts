import { expect } from 'chai'
import { confirmFiles, planFiles } from '../../server/catalogue/upload-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const GRACE = 60_000

for (const { name, open } of databases) {
  describe(`what is registered, imported or uploaded where a rule had brought it, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let rule: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', 1, 'A')
      rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const session = await world.openSession(1e12)
      const outcomes = (await world.claim(session, 100)).map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result: 'done' as const, left: 'nothing' as const },
        ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    })
    afterEach(() => test.drop())

    async function drop(): Promise<void> {
      await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      await world.evaluate()
    }
    async function reap(): Promise<void> {
      await world.clock.advance(GRACE - 1)
      await world.run(context => reaper(context, GRACE))
    }
    const atB = () => world.rows("SELECT state FROM replicas WHERE rse_id = (SELECT id FROM rses WHERE name = 'B')")

    it('stays after that rule has let go', async () => {
      await drop()
      await world.dataset('d', 1, 'B')
      await world.clock.advance(GRACE)
      await reap()
      expect(await atB()).to.deep.equal([{ state: 'AVAILABLE' }])
    })

    it('stays when that rule lets go', async () => {
      await world.dataset('d', 1, 'B')
      await drop()
      await world.clock.advance(GRACE)
      await reap()
      expect(await atB()).to.deep.equal([{ state: 'AVAILABLE' }])
    })

    it('stays when somebody has uploaded it there', async () => {
      await drop()
      const rse = await world.rse('B')
      const fileIds = [await world.didId('d.f0')]
      const plan = { rseId: rse.id, accountId: world.accountId, fileIds, replace: false }
      await test.db.write(e => planFiles(e, { ...plan, expiresAt: GRACE }, world.clock.now()))
      await test.db.write(e => confirmFiles(e, { rse, accountId: world.accountId, fileIds }, world.clock.now()))
      await world.change('DELETE FROM uploads')
      await world.clock.advance(GRACE)
      await reap()
      expect(await atB()).to.deep.equal([{ state: 'AVAILABLE' }])
    })

    it('goes at once where that was said, though much that goes only when space is needed has an older tombstone', async function () {
      this.timeout(20_000)
      await world.change("UPDATE rses SET capacity_bytes = 1000000000, min_free_bytes = 1 WHERE name = 'B'")
      world.context.storages.forget()
      await world.dataset('cache', 600, 'B')
      await world.change('UPDATE replicas SET kept = false, tombstone_at = 1 WHERE rse_id = 2 AND lock_count = 0')
      await drop()
      await world.change('UPDATE replicas SET purge = true WHERE rse_id = 2 AND tombstone_at > 1')
      await world.clock.advance(GRACE)
      await reap()
      const states = 'SELECT state, count(*) AS n FROM replicas WHERE rse_id = 2 GROUP BY state ORDER BY state'
      expect(await world.rows(states)).to.deep.equal([
        { state: 'AVAILABLE', n: 600 },
        { state: 'BEING_DELETED', n: 1 },
      ])
    })

    it('keeps its place among the others where it stays for a while', async () => {
      await drop()
      await world.change('UPDATE replicas SET tombstone_at = 5 WHERE tombstone_at IS NOT NULL')
      await world.addRule('d', 'A|B', 2)
      await world.clock.advance(GRACE)
      await reap()
      expect(await world.rows('SELECT tombstone_at FROM replicas WHERE tombstone_at IS NOT NULL')).to.deep.equal([
        { tombstone_at: 5 },
      ])
    })

    it('has its whole time of grace again at a storage that keeps nothing so', async () => {
      await world.change('UPDATE rses SET keep_registered = false')
      world.context.storages.forget()
      await drop()
      await world.clock.advance(GRACE - 1)
      await world.dataset('d', 1, 'B')
      await reap()
      expect(await atB()).to.deep.equal([{ state: 'AVAILABLE' }])
      await reap()
      expect(await atB()).to.deep.equal([{ state: 'BEING_DELETED' }])
    })
  })
}
