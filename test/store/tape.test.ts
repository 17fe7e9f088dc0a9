import { expect } from 'chai'
import { recall, wantOf } from '../../server/tape/recall.ts'
import { stagingKeeper } from '../../server/tape/staging.ts'
import { HOPELESS, type Told } from '../../server/tasks/kinds.ts'
import { claimTasks, filesOfTasks, type TaskRow } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
/** A storage's answer to the whole of a request. */
const AWAY = {
  scope: 'SOURCE',
  phase: 'PREPARATION',
  code: 'STORAGE_ERROR',
  message: 'POST /stage answered 500',
  retryable: true,
} as const

describe('what is wanted of a file of a recall', () => {
  const now = 2 * DAY
  const rows = [
    // state, when, needed, asked for already, wanted
    ['WANTED', 0, true, false, 'stage'],
    ['WANTED', 0, true, true, 'later'],
    ['WANTED', 0, false, false, 'drop'],
    ['WANTED', 0, false, true, 'drop'],
    ['ASKED', 0, true, true, 'poll'],
    ['ASKED', 0, false, true, 'cancel'],
    ['ASKED', 0, true, false, 'stage'],
    ['ASKED', 0, false, false, 'drop'],
    ['ONLINE', now - HOUR, true, true, 'nothing'],
    ['ONLINE', now - 21 * HOUR, true, true, 'release'],
    ['ONLINE', now - HOUR, false, true, 'release'],
    ['ONLINE', now - HOUR, true, false, 'nothing'],
    ['ONLINE', now - 21 * HOUR, true, false, 'drop'],
    ['ONLINE', now - HOUR, false, false, 'drop'],
  ] as const
  for (const [state, at, needed, isAsked, want] of rows) {
    it(`is ${want}: ${state} since ${(now - at) / HOUR} h, ${needed ? '' : 'not '}needed, ${isAsked ? '' : 'no '}request`, () => {
      expect(wantOf({ state, at }, needed, isAsked, now)).to.equal(want)
    })
  }
})

for (const { name, open } of databases) {
  describe(`tape on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['T', 'B', 'C'] })
      await world.change("UPDATE rses SET tape = :yes WHERE name = 'T'", { yes: true })
      session = await world.openSession(365 * DAY)
    })
    afterEach(() => test.drop())

    const transfers = async () =>
      (await world.rows<{ state: string }>('SELECT state FROM transfers ORDER BY id')).map(row => row.state)
    const rule = async (id: number) =>
      (await world.rows('SELECT state, locks_ok, locks_replicating, locks_stuck FROM rules WHERE id = :id', { id }))[0]
    const attempts = async () =>
      (await world.rows<{ code: string }>('SELECT code FROM attempts ORDER BY id')).map(row => row.code)
    const take = () =>
      test.db.write(async executor => {
        const [task] = await claimTasks(executor, { sessionId: session }, 10, world.clock.now())
        return task
      })
    const isDue = async () => (await take()) !== undefined

    /** Takes the task that is due and answers this for each of its files; what was wanted of them. */
    async function step(
      result: Told['results'][number]['result'],
      more: Partial<Told> & { fileError?: Told['error'] } = {},
    ): Promise<string[]> {
      const task = await take()
      if (task === undefined) throw new Error('no task is due')
      const { fileError, ...told } = more
      const files = await filesOfTasks(test.db.read, [task.id])
      const wants = await wanted(task, files)
      const results = files.map(({ replica_id: file }) => ({
        file,
        result,
        ...(fileError === undefined ? {} : { error: fileError }),
      }))
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, {
        ...{ session, fence: task.fence, forgotten: false, results: told.error === undefined ? results : [] },
        ...told,
      })
      return wants
    }
    async function wanted(task: TaskRow, files: Awaited<ReturnType<typeof filesOfTasks>>): Promise<string[]> {
      if (task.kind !== 'recall') return []
      const { wants } = await test.db.write(e => recall.order(e, task, files, world.clock.now()))
      return [...wants.values()]
    }
    /** Copies whatever is queued. */
    async function copy(): Promise<number> {
      await world.run(transferReleaser)
      await world.grantAll()
      const claimed = await world.claim(session, 100)
      const outcomes = claimed.map(({ id: transfer, fence }) => ({
        ...{ transfer, fence, result: 'done' as const, left: 'nothing' as const },
        ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
      }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      return claimed.length
    }
    /** Two files on tape only, and a rule that wants them at B. */
    async function asked(): Promise<number> {
      await world.dataset('d', 2, 'T')
      const id = await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.run(transferReleaser)
      return id
    }

    it('is asked for all files with one request, and they are copied when they are on disk', async () => {
      const id = await asked()
      expect(await transfers()).to.deep.equal(['STAGING', 'STAGING'])
      expect(await copy(), 'no worker has them').to.equal(0)
      expect(await step('asked', { request: 'r1' })).to.deep.equal(['stage', 'stage'])
      await world.clock.advance(HOUR)
      expect(await step('pending')).to.deep.equal(['poll', 'poll'])
      expect(await transfers()).to.deep.equal(['STAGING', 'STAGING'])
      await world.clock.advance(HOUR)
      await step('online')
      expect(await transfers()).to.deep.equal(['WAITING', 'WAITING'])
      expect(await copy()).to.equal(2)
      expect(await rule(id)).to.include({ state: 'OK', locks_ok: 2 })
      await world.clock.advance(HOUR)
      expect(await step('done'), 'nobody needs them any more').to.deep.equal(['release', 'release'])
      expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
    })

    it('is asked again when it has forgotten the request', async () => {
      await asked()
      await step('asked', { request: 'r1' })
      await world.clock.advance(HOUR)
      await step('pending', { forgotten: true })
      await world.clock.advance(HOUR)
      expect(await step('asked', { request: 'r2' })).to.deep.equal(['stage', 'stage'])
    })

    it('that has not brought a file within a week is not waited for, and is told so', async () => {
      await asked()
      await step('asked', { request: 'r1' })
      await world.clock.advance(7 * DAY - HOUR)
      await step('pending')
      expect(await attempts()).to.deep.equal([])
      await world.clock.advance(HOUR)
      await step('pending')
      expect(await attempts()).to.deep.equal(['STAGING_TIMEOUT', 'STAGING_TIMEOUT'])
      expect(await transfers()).not.to.include('STAGING')
      await world.clock.advance(HOUR)
      expect(await step('done')).to.deep.equal(['cancel', 'cancel'])
    })

    it('that has lost a file has it BAD, and its rule is stuck', async () => {
      const id = await asked()
      await step('asked', { request: 'r1' })
      await world.clock.advance(HOUR)
      await step('failed', {
        fileError: { ...AWAY, code: 'FILE_LOST', message: 'neither on disk nor on tape', retryable: false },
      })
      expect(await world.rows('SELECT code FROM replica_faults')).to.deep.equal([
        { code: 'FILE_LOST' },
        { code: 'FILE_LOST' },
      ])
      expect(
        await world.rows(
          'SELECT DISTINCT replicas.state FROM replicas JOIN rses ON rses.id = rse_id AND rses.name = :t',
          { t: 'T' },
        ),
      ).to.deep.equal([{ state: 'BAD' }])
      expect(await rule(id)).to.include({ state: 'STUCK', locks_stuck: 2 })
    })

    it('whose interface fails for hours fails what waits for it', async () => {
      await asked()
      for (let failure = 1; failure < HOPELESS; failure++) {
        await step('failed', { error: AWAY })
        expect(await isDue(), 'not at once').to.equal(false)
        await world.clock.advance(6 * HOUR)
      }
      expect(await attempts()).to.deep.equal([])
      await step('failed', { error: AWAY })
      expect(await attempts()).to.deep.equal(['STAGING_FAILED', 'STAGING_FAILED'])
    })

    it('is asked for no more than its limit at a time', async () => {
      await world.change('UPDATE rses SET max_staging = 1')
      await asked()
      const task = await take()
      if (task === undefined) throw new Error('no task')
      expect(await wanted(task, await filesOfTasks(test.db.read, [task.id]))).to.deep.equal(['stage'])
    })

    it('is planned anew, what waited for a storage that may not be read any more', async () => {
      const id = await asked()
      await world.dataset('d', 2, 'C')
      await world.change("UPDATE rses SET availability_read = :no WHERE name = 'T'", { no: false })
      world.context.storages.forget()
      await world.run(stagingKeeper)
      expect(await copy()).to.equal(2)
      expect(await rule(id)).to.include({ state: 'OK', locks_ok: 2 })
    })

    describe('as a destination of an archive rule', () => {
      async function archiving(): Promise<number> {
        await world.dataset('d', 2, 'B')
        world.archive = true
        const id = await world.addRule('d', 'T', 1)
        await world.evaluate()
        expect(await copy()).to.equal(2)
        return id
      }

      it('counts when it says that the files are on tape', async () => {
        const id = await archiving()
        expect(await transfers()).to.deep.equal(['ARCHIVING', 'ARCHIVING'])
        expect(await rule(id)).to.include({ state: 'REPLICATING', locks_replicating: 2 })
        await step('pending')
        await world.clock.advance(HOUR)
        expect(await rule(id)).to.include({ state: 'REPLICATING', locks_replicating: 2 })
        await step('done')
        expect(await rule(id)).to.include({ state: 'OK', locks_ok: 2 })
        expect(await world.rows('SELECT id FROM tasks')).to.deep.equal([])
      })

      it('that has not written them within three days fails them', async () => {
        const id = await archiving()
        await world.clock.advance(3 * DAY - HOUR)
        await step('pending')
        expect(await attempts()).to.deep.equal([null, null])
        await world.clock.advance(HOUR)
        await step('pending')
        expect(await attempts()).to.deep.equal([null, null, 'ARCHIVING_TIMEOUT', 'ARCHIVING_TIMEOUT'])
        expect(await rule(id)).not.to.include({ state: 'OK' })
      })
    })
  })
}
