import { expect } from 'chai'
import { ensureDirectories } from '../../server/catalogue/replica-store.ts'
import { takeImports } from '../../server/imports/claim.ts'
import { insertImport, resumeImport } from '../../server/imports/store.ts'
import { type FoundPart, takeFoundPart } from '../../server/imports/take.ts'
import { updateRse } from '../../server/storages/store.ts'
import { ensureGrant } from '../../server/tokens/grant-store.ts'
import { ensureIssuer, type Issuer, Issuers } from '../../server/tokens/issuers.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { endSession, sessionReaper } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FENCE_BASE, World } from './world.ts'

const PATH = '/data/old'
const LEASE_MS = 60_000

for (const { name, open } of databases) {
  describe(`turns of an import on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let id: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A'] })
      await world.dataset('d', 1, 'A')
      id = await add()
    })
    afterEach(async () => {
      expect(await brokenInvariants(world)).to.deep.equal([])
      await test.drop()
    })

    async function add(): Promise<number> {
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
    function contextOf(issuers: readonly Pick<Issuer, 'id' | 'clientId'>[]): TokenContext {
      const never = (): Promise<never> => Promise.reject(new Error('nobody may ask for this'))
      const client = { mint: never, exchange: never, refresh: never, revoke: never, discover: never }
      const common = { exchange: 'never', requestsPerSecond: 1, requestsAtOnce: 1, client } as const
      const known = issuers.map(issuer => ({ ...common, ...issuer, voId: world.voId, url: 'https://i.example.org' }))
      const unused = (): never => expect.fail('no vault is needed')
      return {
        ...world.context,
        issuers: new Issuers(known),
        vault: { seal: unused, open: unused },
        autonomyMs: 0,
      }
    }
    const take = async (issuers = [{ id: world.issuerId, clientId: 'server' }], session?: number) => {
      const sessionId = session ?? (await world.openSession(LEASE_MS))
      return takeImports(contextOf(issuers), { sessionId, fenceBase: FENCE_BASE }, 1)
    }
    const report = (session: number, more: Partial<FoundPart> = {}, fence = 1) =>
      takeFoundPart(world.context, DEFAULT_RETRY_POLICY, id, {
        ...{ sessionId: session, fence, part: 1, files: [], directories: [], leftOut: [], listed: [] },
        ...more,
      })
    const row = async () => {
      const rows = await world.rows<{ state: string; failures: number; not_before: number; error: string | null }>(
        'SELECT state, files, left_out, failures, not_before, error FROM imports WHERE id = :id',
        { id },
      )
      return rows[0]
    }
    const root = () => world.number('SELECT max(id) AS n FROM import_directories')

    it('have the grant of the issuer and client that the VO has now', async () => {
      const issuerId = await test.db.write(executor => ensureIssuer(executor, 'https://other.example.org'))
      const [given] = await take([{ id: issuerId, clientId: 'other' }])
      expect(
        await world.rows('SELECT issuer_id, client, state FROM grants WHERE id = :id', { id: given?.grant_id ?? 0 }),
      ).to.deep.equal([{ issuer_id: issuerId, client: 'other', state: 'WANTED' }])
      expect(await world.number('SELECT grant_id AS n FROM imports')).to.equal(given?.grant_id)
    })

    it('have their grant wanted again', async () => {
      await take()
      await world.change("UPDATE grants SET state = 'EXPIRED'")
      await world.change("UPDATE imports SET state = 'QUEUED', session_id = NULL")
      const [given] = await take()
      expect(await world.rows('SELECT state FROM grants WHERE id = :id', { id: given?.grant_id ?? 0 })).to.deep.equal([
        { state: 'WANTED' },
      ])
    })

    it('wait, and say why, where no issuer is left', async () => {
      expect(await take([])).to.deep.equal([])
      const found = await row()
      expect(found).to.include({ state: 'QUEUED', not_before: world.clock.now() + 60_000 })
      expect(found?.error).to.match(/^VO_WITHOUT_ISSUER: /)
      await world.clock.advance(60_000)
      expect(await take()).to.have.length(1)
    })

    it('end when the storage is closed to reading, and begin when it is open again', async () => {
      const session = await world.openSession(LEASE_MS)
      await take(undefined, session)
      const { id: rseId } = await world.rse('A')
      await test.db.write(executor => updateRse(executor, rseId, { availabilityRead: false }))
      const part = { files: [{ path: 'a', bytes: 7 }], directories: ['x'] }
      expect(await report(session, part)).to.deep.equal([])
      expect(await row()).to.include({ state: 'QUEUED', files: 1, failures: 0, not_before: 0, error: null })
      // The answer was lost.
      expect(await report(session, part)).to.deep.equal([])
      expect(await take()).to.deep.equal([])
      await test.db.write(executor => updateRse(executor, rseId, { availabilityRead: true }))
      expect(await take()).to.have.length(1)
    })

    it('come later and later when each ends its worker before it hands in anything', async () => {
      const waits: number[] = []
      for (let times = 0; times < 10; times += 1) {
        const session = await world.openSession(LEASE_MS)
        expect(await take(undefined, session)).to.have.length(1)
        await world.clock.advance(LEASE_MS + 1)
        await world.run(sessionReaper)
        const found = await row()
        expect(found).to.include({ state: 'QUEUED', failures: times + 1 })
        waits.push((found?.not_before ?? 0) - world.clock.now())
        await world.clock.advance(waits.at(-1) ?? 0)
      }
      expect(waits.map(wait => wait / 1000)).to.deep.equal([0, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800])
      expect((await row())?.error).to.match(/^WORKER_LOST: /)
      await test.db.write(executor => resumeImport(executor, id, world.clock.now()))
      expect(await row()).to.include({ failures: 0, not_before: 0 })
    })

    it('come at once after a worker that has handed in something, or has closed its session', async () => {
      const session = await world.openSession(LEASE_MS)
      await take(undefined, session)
      await report(session, { files: [{ path: 'a', bytes: 7 }] })
      await world.clock.advance(LEASE_MS + 1)
      await world.run(sessionReaper)
      expect(await row()).to.include({ state: 'QUEUED', failures: 0, not_before: 0 })
      const second = await world.openSession(LEASE_MS)
      await take(undefined, second)
      const now = world.clock.now()
      await test.db.write(executor => endSession(executor, second, now, now))
      expect(await row()).to.include({ state: 'QUEUED', failures: 0, not_before: 0 })
    })

    it('fill in the checksums that were not known, and change none', async () => {
      const session = await world.openSession(LEASE_MS)
      const sums = () =>
        world.rows("SELECT name, adler32, md5 FROM dids WHERE name LIKE 'd/%' AND bytes = 7 ORDER BY name")
      await take(undefined, session)
      const [adler32, md5] = ['00620062', '0'.repeat(32)]
      const files = [
        { path: 'a', bytes: 7 },
        { path: 'b', bytes: 7, adler32 },
        { path: 'c', bytes: 7 },
      ]
      await report(session, { files, listed: [await root()] })
      id = await add()
      await take(undefined, session)
      const again = [
        { path: 'a', bytes: 7, adler32 },
        { path: 'b', bytes: 7, adler32: '00000001', md5 },
        { path: 'c', bytes: 8, adler32 },
      ]
      await report(session, { files: again, listed: [await root()] })
      expect(await row()).to.include({ state: 'DONE', files: 1, left_out: 2 })
      expect(await sums()).to.deep.equal([
        { name: 'd/a', adler32, md5: null },
        { name: 'd/b', adler32, md5: null },
        { name: 'd/c', adler32: null, md5: null },
      ])
      id = await add()
      await take(undefined, session)
      await report(session, { files: [{ path: 'b', bytes: 7, md5 }], listed: [await root()] })
      expect((await sums())[1]).to.deep.equal({ name: 'd/b', adler32, md5 })
    })
  })
}
