import { expect } from 'chai'
import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { claimImports, insertImport, listImportProblems } from '../../server/imports/store.ts'
import { takeFoundPart } from '../../server/imports/take.ts'
import { claimTasks, filesOfTasks } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { sessionReaper } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const PATH = '/data/old'
const FOUND = { path: 'a', bytes: 10, adler32: '00620062' }

for (const { name, open } of databases) {
  describe(`a file that is deleted while an import is listed, on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let id: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      await world.dataset('d', 1, 'A')
      session = await world.openSession(1e12)
      await begin()
    })
    afterEach(() => test.drop())

    async function begin(): Promise<void> {
      const { id: rseId } = await world.rse('A')
      const { voId, accountId, issuerId } = world
      id = await test.db.write(async e => {
        const directories = await ensureDirectories(e, rseId, [{ path: PATH, top: PATH }])
        const key = { issuerId, client: 'server', voId, rseId, audience: 'a', purpose: 'list' } as const
        const grantId = await ensureGrant(e, { ...key, scopes: ['storage.read:/old'] }, 0)
        const job = { voId, rseId, directoryId: directories.get(PATH)?.id ?? 0, datasetId: await world.didId('d') }
        return insertImport(e, { ...job, accountId, grantId, checksum: 'storage' }, 0)
      })
      await world.clock.advance(1)
      await test.db.write(e => claimImports(e, { sessionId: session }, 1, world.clock.now()))
    }
    const part = (n: number, ended = false) =>
      takeFoundPart(world.context, DEFAULT_RETRY_POLICY, id, {
        ...{ sessionId: session, fence: 1, part: n, files: [FOUND], directories: [], leftOut: [] },
        listed: ended ? [id] : [],
      })
    const states = async () =>
      (await world.rows<{ state: string }>("SELECT state FROM replicas WHERE name = 'a'")).map(row => row.state)
    const problems = async () =>
      (await listImportProblems(test.db.read, { importId: id, after: 0, limit: 9 })).map(({ code }) => code)
    /** Somebody has let go of it, and a worker deletes it. */
    async function deleted(): Promise<void> {
      await world.change("UPDATE replicas SET kept = false, tombstone_at = 0 WHERE name = 'a'")
      await world.run(context => reaper(context, 0))
      const [task] = await test.db.write(e => claimTasks(e, { sessionId: session }, 1, world.clock.now()))
      if (task === undefined) throw new Error('no task')
      const files = await filesOfTasks(test.db.read, [task.id])
      await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, {
        ...{ session, fence: task.fence, forgotten: false },
        results: files.map(({ replica_id: file }) => ({ file, result: 'done' as const })),
      })
      expect(await states()).to.deep.equal([])
    }

    it('does not come back with what its worker has seen before, and the import says so', async () => {
      await part(1)
      await deleted()
      await part(2, true)
      expect(await states()).to.deep.equal([])
      expect(await problems()).to.deep.equal(['REPLICA_BEING_DELETED'])
    })

    it('is taken over by an import that has begun since: it lies there again', async () => {
      await part(1)
      await deleted()
      await part(2, true)
      await begin()
      await part(1, true)
      expect(await states()).to.deep.equal(['AVAILABLE'])
      expect(await problems()).to.deep.equal([])
    })

    it('is remembered only as long as an import may have seen it', async () => {
      await part(1)
      await deleted()
      await world.run(sessionReaper)
      expect(await world.number('SELECT count(*) AS n FROM deleted_paths')).to.equal(1)
      await part(2, true)
      await world.run(sessionReaper)
      expect(await world.number('SELECT count(*) AS n FROM deleted_paths')).to.equal(0)
    })
  })
}
