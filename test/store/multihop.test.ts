import { expect } from 'chai'
import { registerFiles } from '../../server/catalogue/register.ts'
import type { Database } from '../../server/database/database.ts'
import type { Executor } from '../../server/database/sql.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { closeLink, putLink, type RseChange, updateRse } from '../../server/storages/store.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { HOP_MS, MOST_TRIES } from '../../server/transfers/hop-decision.ts'
import { hopKeeper, planHops } from '../../server/transfers/hops.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { planTransfers, transferReleaser } from '../../server/transfers/plan.ts'
import { showTransfer } from '../../server/transfers/read-store.ts'
import { transferRows } from '../../server/transfers/why-store.ts'
import type { TransferFailure } from '../../shared/domain/transfer-error.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FENCE_BASE, World } from './world.ts'

/** The second failure is the last. */
const RETRY = { maxAttempts: 2, soon: 5_000, later: 60_000, maxDelay: 60_000 }
const WRONG = { scope: 'DESTINATION', phase: 'TRANSFER', code: 'STORAGE_ERROR', message: 'it said 500' } as const
const HOPELESS = { ...WRONG, code: 'REQUEST_REFUSED', retryable: false } as const
const SOURCE_MISSING = { ...HOPELESS, scope: 'SOURCE', code: 'SOURCE_MISSING', message: '404' } as const

for (const { name, open } of databases) {
  describe(`copies over other storages on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
      session = await world.openSession(10 * HOP_MS)
      for (const rse of ['C', 'D']) await set(rse, { multihop: true })
      // A and B have no link; over D it is farther.
      await close('A', 'B')
      await link('D', 'B', 5)
    })
    afterEach(async () => {
      const broken = await brokenInvariants(world).finally(() => test.drop())
      expect(broken).to.deep.equal([])
    })

    async function set(rse: string, change: RseChange): Promise<void> {
      const { id } = await world.rse(rse)
      await test.db.write(e => updateRse(e, id, change))
      world.context.storages.forget()
    }

    async function ends(from: string, to: string) {
      return { sourceId: (await world.rse(from)).id, destinationId: (await world.rse(to)).id }
    }

    async function close(from: string, to: string): Promise<void> {
      const { sourceId, destinationId } = await ends(from, to)
      await test.db.write(e => closeLink(e, sourceId, destinationId))
    }

    async function link(from: string, to: string, distance = 1): Promise<void> {
      const given = { ...(await ends(from, to)), distance, maxActive: 1000, optimize: false }
      await test.db.write(e => putLink(e, given))
    }

    /** A dataset at A that is wanted at another storage; the rule's number. */
    async function want(dataset: string, files = 1, at = 'B', priority = 3): Promise<number> {
      await world.dataset(dataset, files, 'A')
      const rule = await world.addRule(dataset, at, 1, priority)
      await work()
      return rule
    }

    /** What the services do until they have nothing more to do. */
    async function work(): Promise<void> {
      await world.evaluate()
      await world.run(hopKeeper)
      await world.run(transferReleaser)
      await world.grantAll()
      expect(await brokenInvariants(world)).to.deep.equal([])
    }

    async function later(seconds: number): Promise<void> {
      await world.clock.advance(seconds * 1000)
      await work()
    }

    /** A worker takes all that is queued and reports this of it, of each once. */
    async function copy(result: ReportedOutcome['result'] = 'done', error?: TransferFailure): Promise<number> {
      const claimed = await world.claim(session, 1000)
      await report(claimed, result, error)
      await work()
      return claimed.length
    }

    async function report(
      claimed: readonly { id: number; fence: number }[],
      result: ReportedOutcome['result'],
      error?: TransferFailure,
    ): Promise<void> {
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: true, left: 'nothing' as const }
      const outcomes = claimed.map(({ id: transfer, fence }) => ({ transfer, fence, result, ...numbers }))
      await applyOutcomes(
        world.context,
        RETRY,
        session,
        outcomes.map(outcome => ({ ...outcome, ...(error && { error }) })),
      )
      expect(await brokenInvariants(world)).to.deep.equal([])
    }

    /** `A>C QUEUED`, in the order in which they were made. */
    async function transfers(): Promise<string[]> {
      const rows = await world.rows<{
        source: string | null
        destination: string
        state: string
        reason: string | null
      }>(
        `SELECT source.name AS source, destination.name AS destination, transfers.state, transfers.reason FROM transfers
           LEFT JOIN rses AS source ON source.id = source_rse_id JOIN rses AS destination ON destination.id = destination_rse_id
          ORDER BY transfers.id`,
      )
      return rows.map(
        row => `${row.source ?? '-'}>${row.destination} ${row.state}${row.reason ? ` ${row.reason}` : ''}`,
      )
    }

    /** Of the replicas at a storage: `AVAILABLE locks 1`, and whether they may go. */
    async function replicas(rse: string): Promise<string[]> {
      const rows = await world.rows<{ state: string; lock_count: number; gone: number | boolean }>(
        `SELECT replicas.state, lock_count, tombstone_at IS NOT NULL AS gone FROM replicas JOIN rses ON rses.id = rse_id
          WHERE rses.name = :rse ORDER BY replicas.id`,
        { rse },
      )
      return rows.map(row => `${row.state} locks ${row.lock_count}${row.gone ? ' tombstone' : ''}`)
    }

    const rules = async (): Promise<string[]> =>
      (await world.rows<{ state: string }>('SELECT state FROM rules ORDER BY id')).map(row => row.state)
    const reason = async (id: number) =>
      (await showTransfer(test.db.read, id)) ?? { reason: null, via: null, hop_of: null }

    it('goes over the storage between, whose replica may go as soon as it was used', async () => {
      await want('d')
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
      expect(await replicas('C')).to.deep.equal(['COPYING locks 1'])
      expect(await copy()).to.equal(1)
      expect(await transfers()).to.deep.equal(['C>B QUEUED', 'A>C DONE'])
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 1'])
      expect(await copy()).to.equal(1)
      expect(await transfers()).to.deep.equal(['C>B DONE', 'A>C DONE'])
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 0 tombstone'])
      expect(await replicas('B')).to.deep.equal(['AVAILABLE locks 1'])
      expect(await rules()).to.deep.equal(['OK'])
    })

    it('says where it goes, and for which transfer a hop is', async () => {
      await want('d')
      expect(await reason(1)).to.include({ reason: 'MULTIHOP', via: 'C', hop_of: null })
      expect(await reason(2)).to.include({ reason: null, via: null, hop_of: 1 })
    })

    it('puts the file where the layout puts it, below the directory of its dataset', async () => {
      await want('d')
      const [place] = await world.rows<{ path: string; name: string }>(
        `SELECT directories.path, replicas.name FROM replicas JOIN directories ON directories.id = directory_id
           JOIN rses ON rses.id = replicas.rse_id WHERE rses.name = 'C'`,
      )
      expect(place).to.deep.equal({ path: '/data/s/d', name: 'd.f0' })
    })

    it('a hop is for whom the transfer is, and as urgent', async () => {
      await want('d', 1, 'B', 5)
      const rows = await world.rows('SELECT DISTINCT vo_id, account_id, activity, priority FROM transfers')
      expect(rows).to.deep.equal([{ vo_id: world.voId, account_id: world.accountId, activity: 'test', priority: 5 }])
    })

    it('goes over two storages, hop by hop', async () => {
      await close('A', 'C')
      await close('D', 'B')
      await want('d')
      const seen = [await transfers()]
      for (let i = 0; i < 3; i += 1) {
        await copy()
        seen.push(await transfers())
      }
      expect(seen).to.deep.equal([
        ['->B WAITING MULTIHOP', 'A>D QUEUED'],
        ['->B WAITING MULTIHOP', 'A>D DONE', 'D>C QUEUED'],
        ['C>B QUEUED', 'A>D DONE', 'D>C DONE'],
        ['C>B DONE', 'A>D DONE', 'D>C DONE'],
      ])
      for (const rse of ['C', 'D']) expect(await replicas(rse)).to.deep.equal(['AVAILABLE locks 0 tombstone'])
    })

    it('takes the direct link where there is one, however long', async () => {
      await link('A', 'B', 1000)
      await want('d')
      expect(await transfers()).to.deep.equal(['A>B QUEUED'])
    })

    it('goes over none that does not allow it, nor over one that is closed', async () => {
      await set('C', { multihop: false })
      await set('D', { availabilityRead: false })
      await want('d')
      expect(await transfers()).to.deep.equal(['->B WAITING NO_SOURCE'])
      await set('D', { availabilityRead: true })
      await later(61)
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>D QUEUED'])
    })

    it('to a closed destination nothing is sent nearer', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await set('B', { availabilityWrite: false })
      await work()
      expect(await transfers()).to.deep.equal(['->B WAITING DESTINATION_CLOSED'])
    })

    it('a hop that failed for good is gone around', async () => {
      await want('d')
      await copy('failed', { ...WRONG, retryable: true })
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C WAITING BACKOFF'])
      await later(10)
      await later(60)
      await copy('failed', { ...WRONG, retryable: true })
      await later(1)
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C FAILED', 'A>D QUEUED'])
      expect(await replicas('C')).to.deep.equal(['UNAVAILABLE locks 0 tombstone'])
      await copy()
      await copy()
      expect(await transfers()).to.deep.equal(['D>B DONE', 'A>C FAILED', 'A>D DONE'])
      expect(await rules()).to.deep.equal(['OK'])
    })

    it('without another way it fails with what failed the hop, and its rule is repaired', async () => {
      await close('D', 'B')
      await close('D', 'C')
      const rule = await want('d')
      await copy('failed', HOPELESS)
      await later(1)
      expect(await transfers()).to.deep.equal(['->B FAILED HOP_FAILED', 'A>C FAILED'])
      expect(await reason(1)).to.include({ reason: 'HOP_FAILED', via: 'C: REQUEST_REFUSED: it said 500' })
      expect(await rules()).to.deep.equal(['STUCK'])
      await later(1)
      expect(await replicas('C')).to.deep.equal(['UNAVAILABLE locks 0 tombstone'])
      await world.run(ruleRepairer)
      await world.clock.advance(70_000)
      await world.run(ruleRepairer)
      await later(1)
      expect(await transfers()).to.include.members(['->B WAITING MULTIHOP', 'A>C QUEUED'])
      expect(await replicas('C')).to.deep.equal(['COPYING locks 1'])
      await copy()
      await copy()
      expect(await rules()).to.deep.equal(['OK'])
      expect(rule).to.be.above(0)
    })

    it('a source that refuses the file is left for a way over others, and asked last', async () => {
      await link('A', 'B')
      await want('d')
      await world.dataset('d', 1, 'D')
      await close('D', 'B')
      await copy('failed', SOURCE_MISSING)
      // Both A and D have it; from D it goes over C.
      await later(10)
      expect(await transfers()).to.deep.equal(['A>B WAITING MULTIHOP', 'A>C QUEUED'])
      await copy()
      await copy()
      expect(await transfers()).to.deep.equal(['C>B DONE', 'A>C DONE'])
    })

    it('a source that refuses the file fails the transfer where there is no way over others', async () => {
      for (const rse of ['C', 'D']) await set(rse, { multihop: false })
      await link('A', 'B')
      await want('d')
      await copy('failed', SOURCE_MISSING)
      expect(await transfers()).to.deep.equal(['A>B FAILED'])
    })

    it('two transfers go over one replica, which stays until both have ended', async () => {
      await world.dataset('d', 1, 'A')
      await link('C', 'D', 1)
      for (const from of ['A', 'B']) await close(from, 'D')
      await set('D', { multihop: false })
      await world.addRule('d', 'B', 1)
      await world.addRule('d', 'D', 1)
      await work()
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', '->D WAITING MULTIHOP', 'A>C QUEUED'])
      expect(await replicas('C')).to.deep.equal(['COPYING locks 2'])
      await copy()
      const [first, second] = await world.claim(session, 10)
      if (first === undefined || second === undefined) throw new Error('two were to be claimed')
      await report([first], 'done')
      await work()
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 1'])
      await report([second], 'done')
      await work()
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 0 tombstone'])
    })

    it('goes over what another rule is bringing to a storage on the way, and leaves it there', async () => {
      await world.dataset('d', 1, 'A')
      await world.addRule('d', 'C', 1)
      await work()
      await world.addRule('d', 'B', 1)
      await work()
      expect(await transfers()).to.deep.equal(['A>C QUEUED', '->B WAITING MULTIHOP'])
      expect(await replicas('C')).to.deep.equal(['COPYING locks 2'])
      await copy()
      await copy()
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 1'])
    })

    it('a rule that is removed takes its hops with it, under way or not', async () => {
      const [queued, copied] = [await want('d'), await want('e')]
      const claimed = await world.claim(session, 1)
      for (const rule of [queued, copied]) await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      await work()
      await later(1)
      expect(await transfers()).to.deep.equal([
        '->B CANCELLED MULTIHOP',
        'A>C CLAIMED',
        '->B CANCELLED MULTIHOP',
        'A>C CANCELLED',
      ])
      expect(await replicas('C')).to.deep.equal(['COPYING locks 0 tombstone', 'UNAVAILABLE locks 0 tombstone'])
      await report(claimed, 'failed', { ...WRONG, retryable: true })
      expect(await replicas('C')).to.deep.equal(['UNAVAILABLE locks 0 tombstone', 'UNAVAILABLE locks 0 tombstone'])
    })

    it('a hop that nobody is bringing any more is let go after a day, and tried again, not for ever', async () => {
      await want('d')
      for (let i = 1; i < MOST_TRIES; i += 1) {
        await later(HOP_MS / 1000)
        await later(1)
      }
      expect((await transfers())[0]).to.equal('->B WAITING MULTIHOP')
      expect((await transfers()).filter(row => row === 'A>C CANCELLED')).to.have.length(MOST_TRIES - 1)
      await later(HOP_MS / 1000)
      await later(1)
      expect((await transfers())[0]).to.equal('->B FAILED HOP_FAILED')
    })

    it('what has arrived is kept while it is queued, and a day for who only waits', async () => {
      await want('d')
      await copy()
      await later((2 * HOP_MS) / 1000)
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 1'])
      await close('C', 'B')
      await close('D', 'B')
      await later(1)
      expect((await transfers())[0]).to.equal('C>B WAITING NO_SOURCE')
      await later(HOP_MS / 1000)
      await later(1)
      expect(await replicas('C')).to.deep.equal(['AVAILABLE locks 0 tombstone'])
    })

    it('what is not under way yet is sent another way when this one is closed', async () => {
      await want('d')
      await close('A', 'C')
      await close('C', 'B')
      await later(700)
      await later(1)
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C CANCELLED NO_SOURCE', 'A>D QUEUED'])
      expect(await replicas('C')).to.deep.equal(['UNAVAILABLE locks 0 tombstone'])
    })

    it('what is under way is waited for', async () => {
      await want('d')
      await world.claim(session, 1)
      await close('A', 'C')
      await later(700)
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C CLAIMED'])
    })

    it('a way that fails now is taken only where there is no other', async () => {
      const fails = (rse: number): Promise<void> =>
        world.change(
          `INSERT INTO destination_health VALUES (:vo, :rse, 0, 0, 0, 1, 0, true, 1, 1, 1, 'DESTINATION_FULL', 'no space')`,
          { vo: world.voId, rse },
        )
      await fails((await world.rse('C')).id)
      await want('d')
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>D QUEUED'])
      await fails((await world.rse('D')).id)
      await want('e')
      expect((await transfers()).slice(2)).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
      // What fails as well is no reason to leave the way that was taken.
      await later(700)
      expect((await transfers())[1]).to.equal('A>D QUEUED')
    })

    it('a path that is another file’s is gone around at once', async () => {
      const rse = await world.rse('C')
      const taken = { did: 's:other', bytes: 1, path: '/data/s/d/d.f0' }
      const registration = {
        rse,
        accountId: world.accountId,
        dataset: undefined,
        files: [taken],
        state: 'AVAILABLE' as const,
      }
      await test.db.write(e => registerFiles(e, { ...registration, now: world.clock.now() }))
      await want('d', 2)
      expect((await transfers()).sort()).to.deep.equal([
        '->B WAITING MULTIHOP',
        '->B WAITING MULTIHOP',
        'A>C QUEUED',
        'A>D QUEUED',
      ])
    })

    it('an intermediate replica that is corrupt is BAD, and gone around', async () => {
      await want('d')
      await copy()
      await copy('failed', { ...SOURCE_MISSING, code: 'SOURCE_CORRUPT' })
      await later(10)
      expect(await transfers()).to.deep.equal(['C>B WAITING MULTIHOP', 'A>C DONE', 'A>D QUEUED'])
      await copy()
      await copy()
      expect(await replicas('C')).to.deep.equal(['BAD locks 0 tombstone'])
      expect(await rules()).to.deep.equal(['OK'])
    })

    it('a hop that failed for good without anybody seeing it fail is gone around too', async () => {
      await want('d')
      const lost = { ...WRONG, scope: 'TRANSFER', code: 'CONNECTION_LOST', retryable: true } as const
      for (let i = 0; i < RETRY.maxAttempts; i += 1) {
        await report(await world.claim(session, 10), 'unknown', lost)
        await world.clock.advance(5_000)
        const claimant = { sessionId: session, fenceBase: FENCE_BASE }
        const looked = await test.db.write(e => claimToSettle(e, claimant, 10, world.clock.now()))
        expect(looked).to.have.length(1)
        await report(looked, 'absent')
        await later(61)
      }
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C FAILED', 'A>D QUEUED'])
    })

    it('what is being copied after a day is not cut off', async () => {
      await want('d')
      await later(HOP_MS / 1000 - 60)
      const claimed = await world.claim(session, 1)
      await later(120)
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C CLAIMED'])
      expect(await world.number('SELECT count(*) AS n FROM hops')).to.equal(1)
      expect(await replicas('C')).to.deep.equal(['COPYING locks 1'])
      await report(claimed, 'done')
      await work()
      await copy()
      expect(await rules()).to.deep.equal(['OK'])
    })

    it('says who brings the next hop, also where another rule began that before', async () => {
      for (const [from, to] of [
        ['A', 'C'],
        ['D', 'B'],
      ] as const)
        await close(from, to)
      await want('d', 1, 'C')
      await world.addRule('d', 'B', 1)
      await work()
      await copy()
      expect(await transfers()).to.deep.equal(['D>C QUEUED', 'A>D DONE', '->B WAITING MULTIHOP'])
      const [row] = await transferRows(test.db.read, [3], 10, world.clock.now())
      expect([row?.via, row?.hop]).to.deep.equal(['C', 1])
    })

    it('a rule that is more urgent makes the hop more urgent', async () => {
      await want('d', 1, 'B', 1)
      await world.addRule('d.f0', 'B', 1, 5)
      await work()
      await later(1)
      expect(await world.rows('SELECT DISTINCT priority FROM transfers')).to.deep.equal([{ priority: 5 }])
      expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
    })

    it('two that are refused by their source do not wait for each other', async () => {
      await set('C', { multihop: false })
      for (const rse of ['B', 'D']) await set(rse, { multihop: true })
      for (const [from, to] of [
        ['A', 'B'],
        ['B', 'D'],
        ['D', 'B'],
      ] as const)
        await link(from, to)
      await close('C', 'B')
      await close('C', 'D')
      await world.dataset('d', 1, 'A')
      for (const to of ['B', 'D']) await world.addRule('d', to, 1)
      await work()
      expect(await transfers()).to.deep.equal(['A>B QUEUED', 'A>D QUEUED'])
      for (let minutes = 0; minutes < 10; minutes += 1) {
        await copy('failed', SOURCE_MISSING)
        await later(60)
      }
      expect(await transfers()).to.deep.equal(['A>B FAILED', 'A>D FAILED'])
      expect(await rules()).to.deep.equal(['STUCK', 'STUCK'])
    })

    it('a crash between planning hops and planning transfers, or between any two rounds, does nothing twice', async () => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      const ids = (await world.rows<{ id: number }>('SELECT id FROM transfers')).map(row => row.id)
      const now = world.clock.now()
      // Two servers, one behind the other, and each step twice.
      for (let i = 0; i < 2; i += 1) {
        await planHops(world.context, ids, now)
        await planHops(world.context, ids, now)
        expect(await brokenInvariants(world)).to.deep.equal([])
        for (let j = 0; j < 2; j += 1) await test.db.write(e => planTransfers(e, ids, now))
      }
      expect(await world.number('SELECT count(*) AS n FROM hops')).to.equal(3)
      expect(await world.number('SELECT count(*) AS n FROM transfers')).to.equal(6)
      for (let i = 0; i < 2; i += 1) await world.run(hopKeeper)
      expect(await replicas('C')).to.deep.equal(Array(3).fill('COPYING locks 1'))
    })

    it('as many statements for a thousand transfers as for one; none without a storage that lets copies through', async () => {
      const count = async (): Promise<number> => {
        const ids = (await world.rows<{ id: number }>("SELECT id FROM transfers WHERE state = 'WAITING'")).map(
          row => row.id,
        )
        const { db, statements } = counting(test.db)
        await planHops({ ...world.context, db }, ids, world.clock.now())
        return statements()
      }
      await world.dataset('d', 1000, 'A')
      await world.dataset('e', 1, 'A')
      for (const rse of ['C', 'D']) await set(rse, { multihop: false })
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.context.storages.all()
      expect(await count()).to.equal(0)
      for (const rse of ['C', 'D']) await set(rse, { multihop: true })
      await world.context.storages.all()
      const many = await count()
      expect(await world.number("SELECT count(*) AS n FROM transfers WHERE state = 'QUEUED'")).to.equal(1000)
      await world.addRule('e', 'B', 1)
      await world.evaluate()
      expect(await count()).to.equal(many)
    })
  })
}

function counting(db: Database) {
  let statements = 0
  const watched = (executor: Executor): Executor =>
    new Proxy(executor, {
      get(target, property) {
        if (property === 'raw') statements += 1
        return Reflect.get(target, property)
      },
    })
  const counted: Database = {
    ...db,
    read: watched(db.read),
    write: work => db.write(executor => work(watched(executor))),
  }
  return { db: counted, statements: () => statements }
}
