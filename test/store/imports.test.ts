import { expect } from 'chai'
import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { type FoundFiles, takeFoundFiles } from '../../server/imports/imports.ts'
import { claimImports, insertImport, isImportWaiting, releaseImports } from '../../server/imports/store.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const PATH = '/data/old'
const file = (path: string, bytes: number) => ({ path, bytes, adler32: '00620062' })

for (const { name, open } of databases) {
  describe(`an import on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let id: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      await world.dataset('d', 1, 'A')
      session = await world.openSession()
      const { id: rseId } = await world.rse('A')
      id = await test.db.write(async executor => {
        const directories = await ensureDirectories(executor, rseId, [{ path: PATH, top: PATH }])
        const key = { issuerId: world.issuerId, client: 'server', voId: world.voId, rseId, audience: 'a' } as const
        const grantId = await ensureGrant(executor, { ...key, purpose: 'list', scopes: ['storage.read:/old'] }, 0)
        const datasetId = await world.didId('d')
        const directoryId = directories.get(PATH)?.id ?? 0
        const { voId, accountId } = world
        return insertImport(executor, { voId, rseId, directoryId, datasetId, accountId, grantId }, 0)
      })
      await claim()
    })
    afterEach(() => test.drop())

    const claim = () => test.db.write(executor => claimImports(executor, { sessionId: session }, 1, 0))
    const report = (part: number, more: Partial<FoundFiles> = {}) =>
      takeFoundFiles(world.context, id, { sessionId: session, fence: 1, part, files: [], done: false, ...more })
    const row = async () => (await world.rows('SELECT state, fence, part, files, bytes, error FROM imports'))[0]
    const refusal = async (call: Promise<void>): Promise<unknown> =>
      call.then(
        () => 'not refused',
        (error: unknown) => (error instanceof WaybillError ? [error.status, error.code] : error),
      )
    const first = { files: [file('a', 10), file('b', 20)] }
    const last = { files: [file('c', 30)], done: true }

    it('is nothing for workers that are confined to an activity or a link', async () => {
      await test.db.write(executor => releaseImports(executor, session, 0))
      const { id: rseId } = await world.rse('A')
      for (const reach of [{ activities: ['test'] }, { links: [{ source: rseId, destination: rseId }] }]) {
        expect(await isImportWaiting(test.db.read, reach)).to.equal(false)
        const claimant = { ...reach, sessionId: session }
        expect(await test.db.write(executor => claimImports(executor, claimant, 1, 0))).to.deep.equal([])
      }
      expect(await isImportWaiting(test.db.read, { rseIds: [rseId] })).to.equal(true)
      expect(await claim()).to.have.length(1)
    })

    it('counts each part once, however often it is handed in', async () => {
      for (let times = 0; times < 3; times++) await report(1, first)
      expect(await row()).to.include({ state: 'LISTING', part: 1, files: 2, bytes: 30 })
      for (let times = 0; times < 3; times++) await report(2, last)
      expect(await row()).to.deep.equal({ state: 'DONE', fence: 1, part: 2, files: 3, bytes: 60, error: null })
      // One that was long on the way.
      await report(1, first)
      expect(await row()).to.include({ state: 'DONE', part: 2, files: 3, bytes: 60 })
      expect(await world.number('SELECT count(*) AS n FROM replicas')).to.equal(4)
    })

    it('counts a part once that is handed in twice at the same time', async () => {
      await Promise.all([report(1, first), report(1, first), report(1, first)])
      expect(await row()).to.include({ part: 1, files: 2, bytes: 30 })
    })

    it('takes no part before those that come before it', async () => {
      expect(await refusal(report(2, last))).to.deep.equal([409, 'IMPORT_PART_MISSING'])
      await report(1, first)
      expect(await refusal(report(3, last))).to.deep.equal([409, 'IMPORT_PART_MISSING'])
      expect(await row()).to.include({ state: 'LISTING', part: 1, files: 2, bytes: 30 })
      expect(await world.number('SELECT count(*) AS n FROM replicas')).to.equal(3)
    })

    it('takes nothing after its end', async () => {
      await report(1, last)
      expect(await refusal(report(2, first))).to.deep.equal([409, 'IMPORT_LOST'])
      expect(await row()).to.include({ state: 'DONE', part: 1, files: 1 })
    })

    it('that was given to a session again counts from the first part, and takes nothing of the fence before', async () => {
      await report(1, first)
      await test.db.write(executor => releaseImports(executor, session, 1))
      expect(await refusal(report(1, first))).to.deep.equal([409, 'IMPORT_LOST'])
      await claim()
      expect(await row()).to.include({ fence: 2, part: 0, files: 0, bytes: 0 })
      expect(await refusal(report(1, first))).to.deep.equal([409, 'IMPORT_LOST'])
      await report(1, { ...first, fence: 2 })
      await report(2, { ...last, fence: 2 })
      expect(await row()).to.deep.equal({ state: 'DONE', fence: 2, part: 2, files: 3, bytes: 60, error: null })
    })

    it('that contradicts the catalogue fails once, and tells the repeated part nothing else', async () => {
      // The same DID with another checksum.
      await report(1, first)
      const contradiction = { files: [{ ...file('a', 10), adler32: '00000001' }] }
      await report(2, contradiction)
      const failed = await row()
      expect(failed).to.include({ state: 'FAILED', part: 2, files: 2 })
      await report(2, contradiction)
      expect(await row()).to.deep.equal(failed)
      expect(await refusal(report(3))).to.deep.equal([409, 'IMPORT_LOST'])
    })
  })
}
