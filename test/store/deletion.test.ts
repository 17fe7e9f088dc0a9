import { expect } from 'chai'
import { listReplicasOf } from '../../server/catalogue/replica-list.ts'
import { planFiles } from '../../server/catalogue/upload-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { bytesToFree, firstOf, toReap } from '../../server/deletion/space.ts'
import { staysFor } from '../../server/deletion/stays.ts'
import { factsOfUnlocked, postponeTombstones } from '../../server/deletion/store.ts'
import { setKept } from '../../server/faults/declare-store.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import {
  addToTask,
  claimTasks,
  filesOfTasks,
  holderOf,
  isTaskDue,
  MOST_TASKS,
  type TaskRow,
} from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { permitPaths } from '../../server/transfers/permits.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import type { WaybillError } from '../../shared/domain/errors.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const GRACE = 60_000
const DENIED = {
  scope: 'DESTINATION',
  phase: 'PREPARATION',
  code: 'PERMISSION_DENIED',
  message: 'DELETE answered 403',
  retryable: false,
} as const

describe('how much is deleted', () => {
  it('is all, where no threshold is set', () => {
    expect(bytesToFree({ capacityBytes: null, minFreeBytes: null, usedBytes: 5 })).to.equal(undefined)
    expect(bytesToFree({ capacityBytes: 10, minFreeBytes: null, usedBytes: 5 })).to.equal(undefined)
    expect(firstOf([{ bytes: 1 }, { bytes: 2 }], undefined)).to.have.length(2)
  })
  it('is nothing, where nobody can tell what is free', () => {
    expect(bytesToFree({ capacityBytes: null, minFreeBytes: 1, usedBytes: 5 })).to.equal(0)
  })
  it('is what is missing of the space that is to be free', () => {
    expect(bytesToFree({ capacityBytes: 100, minFreeBytes: 20, usedBytes: 70 })).to.equal(0)
    expect(bytesToFree({ capacityBytes: 100, minFreeBytes: 20, usedBytes: 85 })).to.equal(5)
    expect(bytesToFree({ capacityBytes: 100, minFreeBytes: 20, usedBytes: 130 })).to.equal(50)
    expect(firstOf([{ bytes: 3 }, { bytes: 3 }, { bytes: 3 }], 5)).to.have.length(2)
    expect(firstOf([{ bytes: 3 }], 0)).to.have.length(0)
  })
  it('is in any case what is to go at once, and the others only as far as that does not free enough', () => {
    const candidates = [
      { id: 1, bytes: 3, purge: false },
      { id: 2, bytes: 3, purge: true },
      { id: 3, bytes: 3, purge: false },
    ]
    const reaped = (bytes: number | undefined) => toReap(candidates, bytes).map(({ id }) => id)
    expect(reaped(0)).to.deep.equal([2])
    expect(reaped(3)).to.deep.equal([2])
    expect(reaped(4)).to.deep.equal([2, 1])
    expect(reaped(undefined)).to.deep.equal([2, 1, 3])
  })
})

for (const { name, open } of databases) {
  describe(`deletion on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      session = await world.openSession(86_400_000)
    })
    afterEach(() => test.drop())

    const reap = () => world.run(context => reaper(context, GRACE))
    const states = async (at: string): Promise<string[]> =>
      (
        await world.rows<{ state: string }>('SELECT state FROM replicas WHERE rse_id = :rse ORDER BY id', {
          rse: (await world.rse(at)).id,
        })
      ).map(row => row.state)
    /** A dataset of two files that a rule has brought from A to B. */
    async function copied(): Promise<number> {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      await bring()
      return rule
    }
    async function bring(): Promise<void> {
      const outcomes = (await world.claim(session, 100)).map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result: 'done' as const, left: 'nothing' as const },
        ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
    }
    async function drop(rule: number): Promise<void> {
      await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      await world.evaluate()
    }
    const take = async (by = session): Promise<TaskRow[]> =>
      test.db.write(async e => {
        const now = world.clock.now()
        const tasks = await claimTasks(e, { sessionId: by }, 10, now)
        // As `takeTasks` does, which needs an issuer.
        for (const task of tasks)
          await permitPaths(e, await filesOfTasks(e, [task.id]), holderOf(task), now, now + 150_000)
        return tasks
      })
    async function report(task: TaskRow, result: 'done' | 'failed', by = session): Promise<void> {
      const files = await filesOfTasks(test.db.read, [task.id])
      const results = files.map(({ replica_id }) => ({
        file: replica_id,
        result,
        ...(result === 'failed' ? { error: DENIED } : {}),
      }))
      const context = world.context as TokenContext
      await takeReport(context, DEFAULT_RETRY_POLICY, task.id, {
        session: by,
        fence: task.fence,
        forgotten: false,
        results,
      })
    }

    it('takes what nobody asks for any more, after its grace, and forgets it when it is gone', async () => {
      await drop(await copied())
      await reap()
      expect(await states('B'), 'within its grace').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
      expect(await states('A'), 'nobody ever asked for it there').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      const [task, ...others] = await take()
      expect(others).to.deep.equal([])
      if (task === undefined) throw new Error('no task')
      await report(task, 'done')
      expect(await states('B')).to.deep.equal([])
      expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
      expect(await world.rows('SELECT id FROM transfers')).to.deep.equal([])
    })

    it('leaves alone what is locked, or becomes so before it is reaped', async () => {
      const rule = await copied()
      const other = await world.addRule('d', 'B', 1, 3, 'other').catch(() => undefined)
      expect(other, 'the same rule').to.equal(undefined)
      await drop(rule)
      await world.clock.advance(GRACE)
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await reap()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    })

    it('leaves alone what a copy may come from', async () => {
      await drop(await copied())
      await world.addRule('d', 'C', 1)
      await world.evaluate()
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await world.grantAll()
      await bring()
      await world.clock.advance(600_000)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('leaves alone the last good copy of what a rule asks for, though none of its locks is there', async () => {
      await drop(await copied())
      await world.change("UPDATE replicas SET state = 'BAD' WHERE rse_id = :rse", { rse: (await world.rse('A')).id })
      await world.addRule('d', 'C', 1)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B'), 'the rule is not evaluated yet').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      for (const table of ['rule_parts', 'rules']) await world.change(`DELETE FROM ${table}`)
      await world.clock.advance(600_000)
      await reap()
      expect(await states('B'), 'nobody asks').to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('of what is asked for again meanwhile ends with another copy', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      const [task] = await take()
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      expect(await world.rows('SELECT state, locks_replicating FROM rules WHERE id = :rule', { rule })).to.deep.equal([
        { state: 'REPLICATING', locks_replicating: 2 },
      ])
      if (task !== undefined) await report(task, 'done')
      expect(await states('B'), 'at once').to.deep.equal(['COPYING', 'COPYING'])
      expect(await world.rows('SELECT state, locks_replicating FROM rules WHERE id = :rule', { rule })).to.deep.equal([
        { state: 'REPLICATING', locks_replicating: 2 },
      ])
      await world.grantAll()
      await bring()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      expect(await world.rows('SELECT state FROM rules WHERE id = :rule', { rule })).to.deep.equal([{ state: 'OK' }])
    })

    it('that failed is tried again, later and later, and says why', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      for (const failures of [1, 2]) {
        const [task] = await take()
        if (task === undefined) throw new Error('no task')
        await report(task, 'failed')
        expect(await take(), 'not at once').to.deep.equal([])
        expect(await world.rows('SELECT failures, error FROM tasks')).to.deep.equal([
          { failures, error: 'PERMISSION_DENIED: DELETE answered 403' },
        ])
        await world.clock.advance(30_000 * 2 ** failures)
      }
      const { id: rseId } = await world.rse('B')
      const listed = await listReplicasOf(test.db.read, [await world.didId('d.f0'), await world.didId('d.f1')], {
        rseId,
      })
      expect(listed.map(({ fault }) => fault)).to.deep.equal(Array(2).fill('PERMISSION_DENIED: DELETE answered 403'))
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('is gone on with by another worker when one is lost, and the lost one’s report is refused', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      const [lost] = await take()
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      const other = await world.openSession(86_400_000)
      const [task] = await take(other)
      expect(task?.id).to.equal(lost?.id)
      if (lost === undefined || task === undefined) throw new Error('no task')
      const code = await report(lost, 'done').then(
        () => 'taken',
        error => (error as WaybillError).code,
      )
      expect(code).to.equal('TASK_LOST')
      await report(task, 'done', other)
      expect(await states('B')).to.deep.equal([])
    })

    it('is given to a worker no further than it can be at so many tasks', async () => {
      const { id: rse } = await world.rse('B')
      await world.dataset('many', MOST_TASKS + 1, 'B')
      const key = { kind: 'delete', vo_id: world.voId, rse_id: rse } as const
      for (const { id } of await world.rows<{ id: number }>('SELECT id FROM replicas'))
        await test.db.write(e => addToTask(e, key, [id], 0))
      const given = async (by: number) =>
        (await test.db.write(e => claimTasks(e, { sessionId: by }, 1_000, world.clock.now()))).length
      expect(await given(session)).to.equal(MOST_TASKS)
      expect(await given(session)).to.equal(0)
      expect(await given(await world.openSession(86_400_000)), 'another worker').to.equal(1)
    })

    it('waits while nothing may be deleted at the storage', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      await world.change('UPDATE rses SET availability_delete = :no', { no: false })
      expect(await isTaskDue(test.db.read, {}, world.clock.now())).to.equal(false)
      expect(await take()).to.deep.equal([])
    })

    it('leaves alone what lies where no attempt of ours can have left anything, and forgets its replica', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await drop(rule)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal([])
      expect(await take()).to.deep.equal([])
    })

    async function ruledAndDropped(): Promise<void> {
      await world.dataset('d', 2, 'B')
      await drop(await again())
      await world.clock.advance(GRACE)
      await reap()
    }
    it('leaves alone what was registered there, though a rule has held it and let go (docs/decisions/0015)', async () => {
      await ruledAndDropped()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    })

    it('takes what was registered there once somebody lets go of it, and a rule does not hold it', async () => {
      await ruledAndDropped()
      const { id: rseId } = await world.rse('B')
      const files = [await world.didId('d.f0'), await world.didId('d.f1')]
      const letGo = (kept: boolean) => test.db.write(e => setKept(e, rseId, files, kept, world.clock.now()))
      expect(await letGo(false)).to.equal(2)
      expect(await letGo(false), 'once').to.equal(0)
      await reap()
      expect(await states('B'), 'within its grace').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      expect(await letGo(true)).to.equal(2)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B'), 'kept again').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await letGo(false)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('takes what is registered at a storage that keeps nothing so, once a rule has held it and let go', async () => {
      await world.change('UPDATE rses SET keep_registered = false')
      world.context.storages.forget()
      await ruledAndDropped()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('waits as long as the storage says', async () => {
      await world.change("UPDATE rses SET tombstone_delay = 3600 WHERE name = 'B'")
      world.context.storages.forget()
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await world.clock.advance(3_600_000)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('takes at once, however much is free, what a rule that purges brought, and leaves what is kept', async () => {
      await world.change("UPDATE rses SET capacity_bytes = 1000, min_free_bytes = 1 WHERE name = 'B'")
      world.context.storages.forget()
      world.purgeReplicas = true
      const rule = await copied()
      await world.attach('d', 'd.kept', 'B')
      await world.evaluate()
      await drop(rule)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED', 'AVAILABLE'])
    })

    it('of what was to go at once is put off by the next lock', async () => {
      world.purgeReplicas = true
      const rule = await copied()
      await drop(rule)
      world.purgeReplicas = false
      await drop(await again())
      await reap()
      expect(await states('B'), 'its whole grace').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    })

    it('leaves alone every good copy of a file of which a rule has not all its copies', async () => {
      await drop(await copied())
      await world.change('UPDATE replicas SET kept = false, tombstone_at = 0 WHERE rse_id = :rse', {
        rse: (await world.rse('A')).id,
      })
      await world.addRule('d', 'C', 1)
      await world.clock.advance(GRACE)
      await reap()
      expect([...(await states('A')), ...(await states('B'))], 'it is not worked out yet').to.deep.equal(
        Array(4).fill('AVAILABLE'),
      )
      await world.evaluate()
      // As when nothing brings it: there is no link from what would be left.
      await world.change("UPDATE transfers SET state = 'FAILED' WHERE state = 'QUEUED'")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'COPYING'")
      await world.change("UPDATE locks SET state = 'STUCK'")
      await world.clock.advance(600_000)
      await reap()
      expect([...(await states('A')), ...(await states('B'))], 'its locks are stuck').to.deep.equal(
        Array(4).fill('AVAILABLE'),
      )
      const facts = await factsOfUnlocked(test.db.read, [1, 2, 3, 4], world.clock.now())
      expect(facts.map(staysFor)).to.deep.equal(Array(4).fill('WANTING'))
    })

    it('leaves alone where a person may be putting the file, and refuses who comes later', async () => {
      await drop(await copied())
      const { id: rseId } = await world.rse('B')
      const fileIds = [await world.didId('d.f0')]
      const plan = { rseId, accountId: world.accountId, fileIds, replace: false }
      await test.db.write(e => planFiles(e, { ...plan, expiresAt: world.clock.now() + GRACE }, world.clock.now()))
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'BEING_DELETED'])
      const late = { ...plan, fileIds: [await world.didId('d.f1')], expiresAt: world.clock.now() + GRACE }
      const code = await test.db
        .write(e => planFiles(e, late, world.clock.now()))
        .then(
          () => 'planned',
          error => (error as WaybillError).code,
        )
      expect(code).to.equal('REPLICA_BEING_DELETED')
    })

    it('keeps a place free as long as a DELETE may be on its way there, also for what is registered anew', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      await reap()
      await take()
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      session = await world.openSession(86_400_000)
      const [task] = await take()
      if (task !== undefined) await report(task, 'done')
      expect(await states('B')).to.deep.equal([])
      const code = await world.dataset('d', 2, 'B').then(
        () => 'registered',
        error => (error as WaybillError).code,
      )
      expect(code, 'the lost worker’s DELETE may still come').to.equal('PATH_BEING_CLEANED')
      await world.clock.advance(151_000)
      await world.dataset('d', 2, 'B')
      expect(await states('B')).to.deep.equal(['AVAILABLE', 'AVAILABLE'])
    })

    it('is of what is ours only: where no copy of ours was taken there is nothing to delete', async () => {
      await world.dataset('d', 2, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      const [first] = await world.claim(session, 1)
      if (first === undefined) throw new Error('nothing to claim')
      const taken = { transfer: first.id, fence: first.fence, result: 'failed', left: 'own', cleaned: false } as const
      const outcome = { ...taken, durationMs: 1, endedMsAgo: 0, bytes: 1, error: DENIED }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [outcome])
      await drop(rule)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['BEING_DELETED'])
      const [task] = await take()
      const files = await filesOfTasks(test.db.read, task === undefined ? [] : [task.id])
      const written = await world.number('SELECT replica_id AS n FROM transfers WHERE id = :id', { id: first.id })
      expect(files.map(({ replica_id }) => replica_id)).to.deep.equal([written])
    })

    it('waits while a person has planned an upload there', async () => {
      await world.dataset('d', 1, 'A')
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      const until = world.clock.now() + 2 * GRACE
      await world.change(
        'INSERT INTO uploads (replica_id, account_id, until) SELECT max(id), :account, :until FROM replicas',
        { account: world.accountId, until },
      )
      await drop(rule)
      await world.clock.advance(GRACE)
      await reap()
      expect(await states('B')).to.deep.equal(['UNAVAILABLE'])
      await world.clock.advance(600_000)
      await reap()
      expect(await states('B')).to.deep.equal([])
    })

    it('stays within the storage’s limit', async () => {
      await drop(await copied())
      await world.change('UPDATE rses SET max_deletions = 1')
      world.context.storages.forget()
      await world.clock.advance(GRACE)
      await reap()
      await world.clock.advance(5_000)
      await reap()
      expect((await states('B')).sort()).to.deep.equal(['AVAILABLE', 'BEING_DELETED'])
    })

    it('frees as much as the threshold of a storage wants, oldest first', async () => {
      const rule = await copied()
      // Of 100 and 101 bytes; 201 are used of 250, and 100 are to be free.
      await world.change('UPDATE rses SET capacity_bytes = 250, min_free_bytes = 100')
      world.context.storages.forget()
      await drop(rule)
      await world.clock.advance(GRACE)
      await reap()
      expect((await states('B')).sort()).to.deep.equal(['AVAILABLE', 'BEING_DELETED'])
    })

    it('heeds a new threshold at once', async () => {
      await drop(await copied())
      await world.clock.advance(GRACE)
      const running = reaper(world.context, GRACE)
      const threshold = async (free: number | null): Promise<void> => {
        await world.change('UPDATE rses SET capacity_bytes = 1000, min_free_bytes = CAST(:free AS bigint)', { free })
        world.context.storages.forget()
      }
      await threshold(500)
      await running.start()
      await world.clock.untilSleeping()
      expect(await states('B'), '799 are free').to.deep.equal(['AVAILABLE', 'AVAILABLE'])
      await threshold(null)
      await world.clock.advance(5_000)
      await world.clock.untilSleeping()
      await running.stop()
      expect(await states('B')).to.deep.equal(['BEING_DELETED', 'BEING_DELETED'])
    })

    it('leaves its whole grace to what was wanted again since it was found', async () => {
      await drop(await copied())
      const found = await world.rows<{ id: number }>('SELECT id FROM replicas WHERE tombstone_at IS NOT NULL')
      const ids = found.map(({ id }) => id)
      await world.clock.advance(GRACE)
      const before = world.clock.now() - GRACE
      await drop(await again())
      await test.db.write(e => postponeTombstones(e, ids, before, world.clock.now() + 1))
      expect(await world.number('SELECT count(reap_after) AS n FROM replicas')).to.equal(0)
    })
    async function again(): Promise<number> {
      const rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
      return rule
    }
  })
}
