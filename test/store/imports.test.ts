import { expect } from 'chai'
import { setDidOpen } from '../../server/catalogue/did-store.ts'
import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { nextDirectories } from '../../server/imports/frontier-store.ts'
import {
  cancelImport,
  claimImports,
  insertImport,
  isImportDue,
  listImportProblems,
  MOST_IMPORTS,
  releaseImports,
  resumeImport,
} from '../../server/imports/store.ts'
import { type FoundPart, takeFoundPart } from '../../server/imports/take.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, World } from './world.ts'

const PATH = '/data/old'
const file = (path: string, bytes: number, adler32 = '00620062') => ({ path, bytes, adler32 })
/** A storage that answers 500. */
const AWAY = { ...FAILURE, scope: 'SOURCE' } as const
const REFUSED = { ...AWAY, code: 'PERMISSION_DENIED', message: '403', retryable: false } as const

for (const { name, open } of databases) {
  describe(`an import on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let id: number
    /** Of the imported directory itself. */
    let root: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      await world.dataset('d', 1, 'A')
      session = await world.openSession()
      id = await add()
      root = await world.number('SELECT id AS n FROM import_directories')
      await claim()
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    const add = async (): Promise<number> => {
      const { id: rseId } = await world.rse('A')
      return test.db.write(async executor => {
        const directories = await ensureDirectories(executor, rseId, [{ path: PATH, top: PATH }])
        const key = { issuerId: world.issuerId, client: 'server', voId: world.voId, rseId, audience: 'a' } as const
        const grantId = await ensureGrant(executor, { ...key, purpose: 'list', scopes: ['storage.read:/old'] }, 0)
        const datasetId = await world.didId('d')
        const directoryId = directories.get(PATH)?.id ?? 0
        const { voId, accountId } = world
        const job = { voId, rseId, directoryId, datasetId, accountId, grantId, checksum: 'storage' } as const
        return insertImport(executor, job, 0)
      })
    }
    const claim = (by = session) =>
      test.db.write(executor => claimImports(executor, { sessionId: by }, 1, world.clock.now()))
    const report = (part: number, more: Partial<FoundPart> = {}) =>
      takeFoundPart(world.context, DEFAULT_RETRY_POLICY, id, {
        ...{ sessionId: session, fence: 1, part, files: [], directories: [], leftOut: [], listed: [] },
        ...more,
      })
    const row = async () =>
      (
        await world.rows<{ state: string; error: string | null; not_before: number }>(
          `SELECT state, fence, part, files, bytes, present, left_out, directories, directories_left, failures, not_before, error
             FROM imports WHERE id = :id`,
          { id },
        )
      )[0]
    const problems = async () =>
      (await listImportProblems(test.db.read, { importId: id, after: 0, limit: 100 })).map(({ path, code }) => [
        path,
        code,
      ])
    const frontier = async () =>
      (await nextDirectories(test.db.read, id)).map(({ path, doneUntil }) => [path, doneUntil])
    const replicas = () => world.number('SELECT count(*) AS n FROM replicas')
    const refusal = async (call: Promise<unknown>): Promise<unknown> =>
      call.then(
        () => 'not refused',
        (error: unknown) => (error instanceof WaybillError ? [error.status, error.code] : error),
      )
    const first = () => ({ files: [file('a', 10), file('b', 20)], begun: { directory: root, doneUntil: 'b' } })
    const last = () => ({ files: [file('c', 30)], listed: [root] })

    it('is nothing for workers that are confined to an activity or a link', async () => {
      await test.db.write(executor => releaseImports(executor, session, 0))
      const { id: rseId } = await world.rse('A')
      for (const reach of [{ activities: ['test'] }, { links: [{ source: rseId, destination: rseId }] }]) {
        expect(await isImportDue(test.db.read, reach, 0)).to.equal(false)
        const claimant = { ...reach, sessionId: session }
        expect(await test.db.write(executor => claimImports(executor, claimant, 1, 0))).to.deep.equal([])
      }
      expect(await isImportDue(test.db.read, { rseIds: [rseId] }, 0)).to.equal(true)
      expect(await claim()).to.have.length(1)
    })

    it('is given to a worker up to a number of them', async () => {
      for (let i = 0; i < MOST_IMPORTS; i += 1) await add()
      const given: number[] = []
      for (let i = 0; i < MOST_IMPORTS; i += 1) given.push((await claim()).length)
      expect(given).to.deep.equal([...Array(MOST_IMPORTS - 1).fill(1), 0])
      expect(await claim(await world.openSession())).to.have.length(1)
    })

    it('counts each part once, however often it is handed in', async () => {
      for (let times = 0; times < 3; times++)
        expect(await report(1, first())).to.deep.equal([{ directory: root, path: '', doneUntil: 'b' }])
      expect(await row()).to.include({ state: 'LISTING', part: 1, files: 2, bytes: 30, directories_left: 1 })
      for (let times = 0; times < 3; times++) expect(await report(2, last())).to.deep.equal([])
      const done = {
        state: 'DONE',
        part: 2,
        files: 3,
        bytes: 60,
        present: 0,
        left_out: 0,
        directories: 1,
        directories_left: 0,
      }
      expect(await row()).to.include(done)
      // One that was long on the way.
      await report(1, first())
      expect(await row()).to.include(done)
      expect(await replicas()).to.equal(4)
    })

    it('counts a part once that is handed in twice at the same time', async () => {
      await Promise.all([report(1, first()), report(1, first()), report(1, first())])
      expect(await row()).to.include({ part: 1, files: 2, bytes: 30 })
    })

    it('takes no part before those that come before it', async () => {
      expect(await refusal(report(2, last()))).to.deep.equal([409, 'IMPORT_PART_MISSING'])
      await report(1, first())
      expect(await refusal(report(3, last()))).to.deep.equal([409, 'IMPORT_PART_MISSING'])
      expect(await row()).to.include({ state: 'LISTING', part: 1, files: 2, bytes: 30 })
      expect(await replicas()).to.equal(3)
    })

    it('takes nothing after its end', async () => {
      await report(1, last())
      expect(await refusal(report(2, first()))).to.deep.equal([409, 'IMPORT_LOST'])
      expect(await row()).to.include({ state: 'DONE', part: 1, files: 1 })
    })

    it('goes on where it was with whoever has it next, and takes nothing new of the fence before', async () => {
      await report(1, { ...first(), directories: ['sub', 'x'] })
      await test.db.write(executor => releaseImports(executor, session, 1))
      expect(await refusal(report(2, last()))).to.deep.equal([409, 'IMPORT_LOST'])
      const next = await world.openSession()
      expect(await claim(next)).to.have.length(1)
      expect(await frontier()).to.deep.equal([
        ['', 'b'],
        ['x', null],
        ['sub', null],
      ])
      expect(await row()).to.include({ fence: 2, part: 0, files: 2, bytes: 30 })
      expect(await refusal(report(1, first()))).to.deep.equal([409, 'IMPORT_LOST'])
      const below = await nextDirectories(test.db.read, id)
      const listed = below.map(directory => directory.id)
      await report(1, { sessionId: next, fence: 2, files: [file('c', 30), file('sub/a', 5)], listed })
      expect(await row()).to.include({ state: 'DONE', files: 4, bytes: 65, directories: 3, directories_left: 0 })
    })

    it('lists the deepest first, and no directory twice', async () => {
      await report(1, { directories: ['a', 'b'], listed: [root] })
      const [b] = await nextDirectories(test.db.read, id)
      const told = await report(2, { directories: ['b/a', 'b/b', 'b/a'], listed: [b?.id ?? 0] })
      expect(told.map(({ path }) => path)).to.deep.equal(['b/b', 'b/a', 'a'])
      expect(await row()).to.include({ directories: 2, directories_left: 3 })
    })

    it('of a directory of another import changes nothing', async () => {
      await add()
      const other = await world.number('SELECT max(id) AS n FROM import_directories')
      await report(1, { listed: [other], begun: { directory: other, doneUntil: 'z' } })
      expect(await row()).to.include({ state: 'LISTING', directories: 0, directories_left: 1 })
      expect(await world.rows('SELECT done_until FROM import_directories')).to.deep.equal([
        { done_until: null },
        { done_until: null },
      ])
    })

    it('keeps any name exactly', async () => {
      const strange = 'a\u0000b \ud83d "ü" \\ \u{1f5c4}'
      const bad = { path: strange, code: 'NAME_INVALID', message: 'no' }
      await report(1, {
        files: [file('with space', 1), file(strange, 1)],
        leftOut: [bad],
        begun: { directory: root, doneUntil: strange },
      })
      expect(await problems()).to.deep.equal([
        [strange, 'NAME_INVALID'],
        ['with space', 'NAME_INVALID'],
        [strange, 'NAME_INVALID'],
      ])
      expect(await frontier()).to.deep.equal([['', strange]])
      expect(await row()).to.include({ files: 0, left_out: 3 })
    })

    it('again registers nothing twice, and tells how many were there', async () => {
      await report(1, { ...first(), listed: [root] })
      id = await add()
      root = await world.number('SELECT max(id) AS n FROM import_directories')
      await claim()
      await report(1, { files: [...first().files, file('c', 30)], listed: [root] })
      expect(await row()).to.include({ state: 'DONE', files: 3, bytes: 60, present: 2, left_out: 0 })
      expect(await replicas()).to.equal(4)
      expect(
        await world.number('SELECT files AS n FROM dids WHERE id = (SELECT min(parent_id) FROM contents)'),
      ).to.equal(4)
    })

    it('tells what contradicts the catalogue, and takes over the rest', async () => {
      await report(1, first())
      const { id: rseId } = await world.rse('A')
      // Another file at the path of c, and e at another path.
      await world.change(`INSERT INTO replicas (file_id, rse_id, directory_id, name, state, lock_count, updated_at)
        SELECT (SELECT id FROM dids WHERE name = 'd'), ${rseId}, id, 'c', 'AVAILABLE', 0, 0 FROM directories WHERE path = '${PATH}'`)
      await report(2, { files: [file('e', 5)] })
      await world.change("UPDATE replicas SET name = 'f' WHERE name = 'e'")
      await world.change("UPDATE replicas SET state = 'BEING_DELETED' WHERE name = 'b'")
      await report(3, { files: [file('bad', 7)] })
      await world.change("UPDATE replicas SET state = 'BAD' WHERE name = 'bad'")
      const found = [
        file('a', 10, '00000001'),
        file('b', 20),
        file('bad', 7),
        file('c', 30),
        file('e', 5),
        file('g', 6),
      ]
      await report(4, { files: found, listed: [root] })
      expect(await problems()).to.deep.equal([
        ['a', 'FILE_MISMATCH'],
        ['b', 'REPLICA_BEING_DELETED'],
        ['bad', 'REPLICA_BAD'],
        ['c', 'PATH_TAKEN'],
        ['e', 'REPLICA_EXISTS'],
      ])
      expect(await row()).to.include({ state: 'DONE', files: 5, left_out: 5, error: null })
      expect(await world.rows("SELECT bytes, adler32 FROM dids WHERE name = 'd/a'")).to.deep.equal([
        { bytes: 10, adler32: '00620062' },
      ])
      await world.change("DELETE FROM replicas WHERE name = 'c'")
      await world.change("UPDATE replicas SET state = 'AVAILABLE' WHERE name = 'b'")
    })

    it('leaves out what lies directly where the layout puts a scope, and takes what is below', async () => {
      await report(1, { files: [file('a', 10), file('sub/b', 20)] })
      await world.change(`INSERT INTO scopes (vo_id, name) VALUES (${world.voId}, 'old')`)
      await report(2, { files: [file('c', 30), file('sub/d', 40)], listed: [root] })
      expect(await problems()).to.deep.equal([['c', 'PATH_TOO_WIDE']])
      expect(await row()).to.include({ state: 'DONE', files: 3, left_out: 1 })
    })

    it('takes a file that a part has twice once', async () => {
      await report(1, { files: [file('a', 10), file('a', 10), file('a', 11)], listed: [root] })
      expect(await row()).to.include({ state: 'DONE', files: 1, bytes: 10 })
    })

    it('of a dataset that was closed fails, tells a repeated part nothing else, and goes on when it is mended', async () => {
      await report(1, first())
      const datasetId = await world.didId('d')
      await test.db.write(executor => setDidOpen(executor, datasetId, false))
      expect(await report(2, last())).to.deep.equal([])
      const failed = await row()
      expect(failed).to.include({ state: 'FAILED', part: 2, files: 2, directories_left: 1 })
      expect(failed?.error).to.match(/^DID_CLOSED: /)
      expect(await report(2, last())).to.deep.equal([])
      expect(await row()).to.deep.equal(failed)
      expect(await refusal(report(3))).to.deep.equal([409, 'IMPORT_LOST'])
      await test.db.write(executor => setDidOpen(executor, datasetId, true))
      expect(await claim()).to.deep.equal([])
      expect(await test.db.write(executor => resumeImport(executor, id, 5))).to.equal(true)
      expect(await claim()).to.have.length(1)
      expect(await frontier()).to.deep.equal([['', 'b']])
      await report(1, { ...last(), fence: 2 })
      expect(await row()).to.include({ state: 'DONE', files: 3, bytes: 60, error: null })
    })

    it('waits for a storage that is away, longer each time, and for ever; progress begins anew', async () => {
      const waits: number[] = []
      for (let times = 1; times <= 20; times += 1) {
        await report(1, { fence: times, error: AWAY })
        const found = await row()
        expect(found).to.include({ state: 'QUEUED', failures: times, error: 'STORAGE_ERROR: 500' })
        waits.push((found?.not_before ?? 0) - world.clock.now())
        expect(await claim()).to.deep.equal([])
        await world.clock.advance(waits.at(-1) ?? 0)
        session = await world.openSession()
        expect(await claim()).to.have.length(1)
      }
      expect(waits.slice(0, 3)).to.deep.equal([30_000, 60_000, 120_000])
      expect(Math.max(...waits)).to.equal(1_800_000)
      // What was found before it went away is kept.
      await report(1, { fence: 21, ...first(), error: AWAY })
      expect(await row()).to.include({ state: 'QUEUED', failures: 1, files: 2 })
      expect(await frontier()).to.deep.equal([['', 'b']])
    })

    it('that is refused fails with words, and can be resumed or cancelled', async () => {
      await report(1, { error: REFUSED })
      expect(await row()).to.include({ state: 'FAILED', error: 'PERMISSION_DENIED: 403' })
      expect(await test.db.write(executor => cancelImport(executor, id, 1))).to.equal(true)
      expect(await row()).to.include({ state: 'CANCELLED' })
      expect(await test.db.write(executor => resumeImport(executor, id, 2))).to.equal(true)
      expect(await row()).to.include({ state: 'QUEUED', failures: 0, error: null })
    })

    it('that waits is tried at once when it is resumed', async () => {
      await report(1, { error: AWAY })
      expect(await claim()).to.deep.equal([])
      await test.db.write(executor => resumeImport(executor, id, 2))
      expect(await claim()).to.have.length(1)
      // Of one that is at work nothing changes.
      await test.db.write(executor => resumeImport(executor, id, 2))
      expect(await row()).to.include({ state: 'LISTING', fence: 2 })
    })

    it('that is cancelled is lost to its worker, and what was registered stays', async () => {
      await report(1, first())
      await test.db.write(executor => cancelImport(executor, id, 1))
      expect(await refusal(report(2, last()))).to.deep.equal([409, 'IMPORT_LOST'])
      expect(await replicas()).to.equal(3)
      expect(await claim()).to.deep.equal([])
    })

    it('that is done is neither cancelled nor resumed', async () => {
      await report(1, last())
      expect(await test.db.write(executor => cancelImport(executor, id, 1))).to.equal(false)
      expect(await test.db.write(executor => resumeImport(executor, id, 1))).to.equal(false)
      expect(await row()).to.include({ state: 'DONE' })
    })
  })
}
