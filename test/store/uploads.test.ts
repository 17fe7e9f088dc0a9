import { expect } from 'chai'
import { registerFiles } from '../../server/catalogue/register.ts'
import { type Confirmed, confirmFiles, planFiles, refusalOf } from '../../server/catalogue/upload-store.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { grantPermit, prunePermits } from '../../server/transfers/permits.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

describe('a file that is said to be uploaded', () => {
  const facts = { available: false, planned: true, deleted: false, transferring: false, written: false }
  for (const [what, given, code] of [
    ['was planned', {}, undefined],
    ['was not planned by this account', { planned: false }, 'UPLOAD_NOT_PLANNED'],
    ['lay there before, and is being deleted', { deleted: true }, 'REPLICA_BEING_DELETED'],
    ['is being copied by a worker', { transferring: true }, 'UPLOAD_TRANSFERRING'],
    ['was written to by a worker', { written: true }, 'UPLOAD_DISTURBED'],
    ['is available already', { available: true, planned: false, written: true }, undefined],
  ] as const) {
    it(`${what}: ${code ?? 'is taken'}`, () => expect(refusalOf({ ...facts, ...given })?.code).to.equal(code))
  }
})

for (const { name, open } of databases) {
  describe(`uploads on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let rseId: number
    let fileIds: number[]

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      fileIds = (await world.dataset('d', 2, 'A')).fileIds
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
      rseId = (await world.rse('B')).id
    })
    afterEach(() => test.drop())

    const now = (): number => world.clock.now()
    const plan = (more: { replace?: boolean; accountId?: number; files?: number[] } = {}): Promise<string> => {
      const { replace = false, accountId = world.accountId, files = fileIds } = more
      const upload = { rseId, accountId, fileIds: files, expiresAt: now() + 600_000, replace }
      return codeOf(test.db.write(e => planFiles(e, upload, now())))
    }
    const confirm = (files = fileIds): Promise<Confirmed> =>
      test.db.write(e => {
        const rse = { id: rseId, keepRegistered: true }
        return confirmFiles(e, { rse, accountId: world.accountId, fileIds: files }, now())
      })
    const codes = async (files = fileIds): Promise<string[]> => (await confirm(files)).refused.map(({ code }) => code)
    const rule = async () => (await world.rows('SELECT state, locks_ok, locks_replicating FROM rules'))[0]
    async function claim(): Promise<{ session: number; id: number; fence: number }> {
      const session = await world.openSession(1e9)
      const [row] = await world.claim(session, 1)
      if (row === undefined) throw new Error('nothing is queued')
      return { session, ...row }
    }
    type Held = Awaited<ReturnType<typeof claim>>
    const copying = ({ session, id, fence }: Held): Promise<void> =>
      test.db.write(e => recordProgress(e, session, [{ transfer: id, fence, state: 'COPYING', bytes: 0 }], now()))
    const permit = ({ session, id, fence }: Held): Promise<string> =>
      codeOf(test.db.write(e => grantPermit(e, { sessionId: session, transfer: id, fence, written: true }, now())))
    async function fails({ session, id, fence }: Held, left: ReportedOutcome['left']): Promise<void> {
      const outcome = { transfer: id, fence, result: 'failed' as const, left, cleaned: false, bytes: 0 }
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, [{ ...outcome, durationMs: 1, endedMsAgo: 0 }])
    }

    it('make the files available that were planned, and end the waiting transfers', async () => {
      expect(await plan()).to.equal('done')
      expect(await confirm()).to.deep.equal({ available: 2, refused: [] })
      expect(await rule()).to.deep.equal({ state: 'OK', locks_ok: 2, locks_replicating: 0 })
      expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'CANCELLED'")).to.equal(2)
      expect(await confirm(), 'once more').to.deep.equal({ available: 0, refused: [] })
    })

    it('of files that nobody planned, or somebody else, or long ago, make nothing available', async () => {
      expect(await codes()).to.deep.equal(Array(2).fill('UPLOAD_NOT_PLANNED'))
      await world.change("INSERT INTO accounts (vo_id, name, created_at) SELECT id, 'other', 0 FROM vos")
      const other = await world.number("SELECT id AS n FROM accounts WHERE name = 'other'")
      expect(await plan({ accountId: other })).to.equal('done')
      expect(await codes()).to.deep.equal(Array(2).fill('UPLOAD_NOT_PLANNED'))
      expect(await plan()).to.equal('done')
      await world.clock.advance(600_000 + 3_600_000)
      expect(await codes()).to.deep.equal(Array(2).fill('UPLOAD_NOT_PLANNED'))
      expect(await rule()).to.deep.equal({ state: 'REPLICATING', locks_ok: 0, locks_replicating: 2 })
    })

    it('are judged file by file', async () => {
      await plan({ files: fileIds.slice(1) })
      const { available, refused } = await confirm()
      expect([available, refused.map(({ fileId }) => fileId)]).to.deep.equal([1, fileIds.slice(0, 1)])
    })

    it('are not planned, and not confirmed, where a worker is at it', async () => {
      await plan()
      await claim()
      expect(await codes()).to.deep.equal(['UPLOAD_TRANSFERRING'])
      expect(await plan()).to.equal('UPLOAD_TRANSFERRING')
    })

    it('are not confirmed where a worker has written since', async () => {
      await plan()
      const held = await claim()
      await copying(held)
      await fails(held, 'own')
      const { available, refused } = await confirm()
      expect([available, refused.map(({ code }) => code)]).to.deep.equal([1, ['UPLOAD_DISTURBED']])
      expect(await plan()).to.equal('done')
      expect(await confirm()).to.deep.equal({ available: 1, refused: [] })
    })

    it('keep workers from removing what lies there, as long as the plan lasts', async () => {
      await plan()
      const held = await claim()
      await copying(held)
      expect(await permit(held)).to.equal('PERMIT_REFUSED')
      await world.clock.advance(600_000 + 3_600_000)
      await test.db.write(e => prunePermits(e, now()))
      expect(await permit(held)).to.equal('done')
    })

    it('take over what an attempt had left: no later one removes it as its own', async () => {
      const held = await claim()
      await fails(held, 'own')
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE written_fence IS NOT NULL')).to.equal(1)
      await plan()
      expect(await world.number('SELECT count(*) AS n FROM transfers WHERE written_fence IS NOT NULL')).to.equal(0)
    })

    // The storage may execute a DELETE late, whose answer nobody heard.
    describe('where a worker’s DELETE may still be on its way', () => {
      let held: Held
      beforeEach(async () => {
        held = await claim()
        expect(await permit(held)).to.equal('done')
        await test.db.write(e => endSession(e, held.session, now(), now()))
        // Given up: nothing else keeps the file from being uploaded.
        await world.change(`UPDATE transfers SET state = 'FAILED' WHERE id = ${held.id}`)
      })

      for (const replace of [false, true]) {
        it(`wait until it surely is not${replace ? ', to replace too' : ''}`, async () => {
          expect(await plan({ replace })).to.equal('PATH_BEING_CLEANED')
          expect(await world.rows('SELECT transfer_id FROM permits')).to.deep.equal([{ transfer_id: held.id }])
          await world.clock.advance(60_000)
          expect(await plan({ replace })).to.equal('done')
        })
      }

      it('neither is a file registered', async () => {
        const rse = await world.rse('B')
        const files = [0, 1].map(i => ({ did: `s:d.f${i}`, bytes: 100 + i }))
        const registration = { rse, accountId: world.accountId, dataset: undefined, files, state: 'AVAILABLE' as const }
        const register = () => codeOf(test.db.write(e => registerFiles(e, { ...registration, now: now() })))
        expect(await register()).to.equal('PATH_BEING_CLEANED')
        expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'QUEUED'")).to.equal(1)
        await world.clock.advance(60_000)
        expect(await register()).to.equal('done')
      })
    })

    it('do not replace a file that has arrived meanwhile', async () => {
      await world.change("UPDATE replicas SET state = 'AVAILABLE' WHERE file_id = :id", { id: fileIds[0] ?? 0 })
      expect(await plan({ replace: true })).to.equal('UPLOAD_CHANGED')
      expect(await world.number('SELECT count(*) AS n FROM permits')).to.equal(0)
      expect(await plan({ replace: true, files: fileIds.slice(1) })).to.equal('done')
    })
  })
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'done',
    error => error.code,
  )
}
