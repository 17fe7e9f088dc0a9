import { expect } from 'chai'
import { archive } from '../../server/tape/archive.ts'
import { askedNow, recall, wantOf } from '../../server/tape/recall.ts'
import { stagingKeeper } from '../../server/tape/staging.ts'
import { HOPELESS, type Order, type Told } from '../../server/tasks/kinds.ts'
import { claimTasks, endTurn, filesOfTasks, type TaskRow } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { endSession } from '../../server/transfers/sessions.ts'
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
    ['LATE', 0, true, true, 'cancel'],
    ['LATE', 0, true, false, 'drop'],
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

describe('how many files a storage is asked for at once', () => {
  const rows = [
    // wanted, at most, asked now, to be asked
    [500, 10_000, 0, 500],
    [500, 10_000, 9_499, 500],
    [500, 10_000, 9_501, 0],
    [20, 10_000, 9_980, 20],
    [500, 1_000, 899, 101],
    [500, 1_000, 901, 0],
    [500, 100, 0, 100],
    [2, 1, 0, 1],
    [2, 1, 1, 0],
    [2, 0, 0, 0],
  ] as const
  for (const [wanted, most, asked, now] of rows) {
    it(`is ${now}: ${wanted} are wanted, ${asked} of ${most} are asked for`, () => {
      expect(askedNow(wanted, { most, asked })).to.equal(now)
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
        const [task] = await claimTasks(executor, { sessionId: session }, 1, world.clock.now())
        return task
      })
    const isDue = async () => (await take()) !== undefined

    /** Takes the task of which something is wanted, and answers this for each of those files; what was wanted. */
    async function step(
      result: Told['results'][number]['result'],
      more: Partial<Told> & { fileError?: Told['error'] } = {},
    ): Promise<string[]> {
      const ordered = await given()
      if (ordered === undefined) return []
      await answer(ordered, result, more)
      return [...ordered.wants.values()]
    }
    /** As `takeTasks` does, which needs an issuer: the first task of whose files something is wanted, with that. */
    async function given(): Promise<({ task: TaskRow } & Pick<Order, 'wants' | 'last'>) | undefined> {
      for (let task = await take(); task !== undefined; task = await take()) {
        const { id, kind } = task
        if (kind === 'delete' || kind === 'look') throw new Error(`there is nothing to ${kind} here`)
        const now = world.clock.now()
        const order = { recall, archive }[kind].order
        const { wants, last } = await test.db.write(async e => order(e, task, await filesOfTasks(e, [id]), now))
        if (wants.size > 0) return { task, wants, last }
        await test.db.write(e => endTurn(e, id, { notBefore: now + 60_000, failures: 0, error: null }, now))
      }
      return undefined
    }
    async function answer(
      { task, wants }: { task: TaskRow; wants: Order['wants'] },
      result: Told['results'][number]['result'],
      { fileError, ...told }: Partial<Told> & { fileError?: Told['error'] } = {},
    ): Promise<void> {
      const results = [...wants.keys()].map(file => ({
        file,
        result,
        ...(fileError === undefined ? {} : { error: fileError }),
      }))
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, {
        ...{ session, fence: task.fence, forgotten: false, results: told.error === undefined ? results : [] },
        ...told,
      })
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

    it('may forget the request when it has done with what is asked of it now, unless a file of it waits on disk', async () => {
      await asked()
      await step('asked', { request: 'r1' })
      await world.clock.advance(HOUR)
      const ordered = await given()
      if (ordered === undefined) throw new Error('no task is due')
      expect(ordered.last).to.equal(true)
      await answer({ ...ordered, wants: new Map([...ordered.wants].slice(0, 1)) }, 'online')
      await world.clock.advance(HOUR)
      expect((await given())?.last).to.equal(false)
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
      await world.run(transferReleaser)
      expect(await transfers(), 'there is no other source').to.deep.equal(['STAGING', 'STAGING'])
      expect(await step('done')).to.deep.equal(['cancel', 'cancel'])
      await world.run(stagingKeeper)
      await world.run(transferReleaser)
      expect(await step('asked', { request: 'r2' })).to.deep.equal(['stage', 'stage'])
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

    it('fails nothing while an issuer is away, the storage asks for rest, or the worker cannot reach the server', async () => {
      await asked()
      for (const [scope, code] of [
        ['TOKEN', 'ISSUER_UNREACHABLE'],
        ['SOURCE', 'TOO_MANY_REQUESTS'],
        ['SOURCE', 'STORAGE_BUSY'],
        ['GENERAL', 'SERVER_UNREACHABLE'],
      ] as const) {
        for (let failure = 0; failure <= HOPELESS; failure++) {
          await step('failed', { error: { ...AWAY, scope, code } })
          expect(await isDue(), 'not at once').to.equal(false)
          await world.clock.advance(HOUR / 6)
          expect(await isDue(), `${code}: within minutes`).to.equal(true)
          await world.change('UPDATE tasks SET session_id = NULL')
        }
      }
      expect(await attempts()).to.deep.equal([])
      expect(await transfers()).to.deep.equal(['STAGING', 'STAGING'])
    })

    it('is asked for no more than its limit at a time, and for the rest as soon as there is room', async () => {
      await world.change('UPDATE rses SET max_staging = 1')
      await asked()
      expect(await step('asked', { request: 'r1' })).to.deep.equal(['stage'])
      expect(await step('asked'), 'no room').to.deep.equal([])
      await world.clock.advance(HOUR)
      expect([await step('pending'), await step('asked')].flat(), 'the first is not there yet').to.deep.equal(['poll'])
      await world.clock.advance(HOUR)
      expect(await step('online')).to.deep.equal(['poll'])
      await world.clock.advance(HOUR)
      expect(await step('asked', { request: 'r2' }), 'it is there, though not copied').to.deep.equal(['stage'])
    })

    it('is not asked for more by another worker before the first has told, and by the next when that one is lost', async () => {
      await world.change('UPDATE rses SET max_staging = 1')
      await asked()
      const first = await given()
      expect(first?.wants.size).to.equal(1)
      expect(await given(), 'there is no room').to.equal(undefined)
      await test.db.write(e => endSession(e, session, world.clock.now(), world.clock.now()))
      session = await world.openSession(365 * DAY)
      expect((await given())?.wants).to.deep.equal(first?.wants)
    })

    it('is not asked for a file that is copied again meanwhile, once it was let go of', async () => {
      await asked()
      await step('asked', { request: 'r1' })
      await world.clock.advance(HOUR)
      await step('online')
      expect(await copy()).to.equal(2)
      await world.clock.advance(HOUR)
      const letGo = await given()
      if (letGo === undefined) throw new Error('no task is due')
      expect([...letGo.wants.values()]).to.deep.equal(['release', 'release'])
      await world.addRule('d', 'C', 1)
      await world.change("UPDATE rses SET availability_read = :no WHERE name = 'B'", { no: false })
      await world.evaluate()
      await world.run(transferReleaser)
      await answer(letGo, 'done')
      await world.run(transferReleaser)
      expect(await transfers()).to.deep.equal(['DONE', 'DONE', 'STAGING', 'STAGING'])
    })

    it('has the priority that another rule gave it meanwhile', async () => {
      await asked()
      await step('asked', { request: 'r1' })
      await world.addRule('d', 'B|C', 2, 5)
      await world.evaluate()
      const rows = await world.rows<{ priority: number; state: string }>(
        "SELECT DISTINCT priority, transfers.state FROM transfers JOIN rses ON rses.id = destination_rse_id AND rses.name = 'B'",
      )
      expect(rows).to.deep.equal([{ priority: 5, state: 'STAGING' }])
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
