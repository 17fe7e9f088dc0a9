import { expect } from 'chai'
import type { WorkerPool } from '../../server/accounts/pools.ts'
import type { Context } from '../../server/context.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { closeLink, updateRse } from '../../server/storages/store.ts'
import { findGrant, refreshReady } from '../../server/tokens/grant-store.ts'
import { storeFailure } from '../../server/tokens/lease-store.ts'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { HOLD } from '../../server/transfers/health.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { recordProgress } from '../../server/transfers/outcome-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { grantPermit, reservePaths } from '../../server/transfers/permits.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { ensureSourceSet } from '../../server/transfers/source-set-store.ts'
import { type WhyOfTransfer, whyOf } from '../../server/transfers/why-gather.ts'
import { openOfRule } from '../../server/transfers/why-store.ts'
import { drain } from '../../server/transfers/worker-store.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { WHY_CODES } from '../../shared/domain/why-codes.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FAILURE, FENCE_BASE, WORKER, World } from './world.ts'

const FULL = { ...FAILURE, code: 'DESTINATION_FULL', message: 'no space left on device' } as const
const DEAD = { ...FAILURE, scope: 'SOURCE', code: 'CONNECT_FAILED', message: 'refused' } as const
const COUNTED = 100
const DAY = 86_400_000

for (const { name, open } of databases) {
  describe(`why transfers wait, on ${name}`, () => {
    const asked = new Set<string>()
    let test: TestDatabase
    let world: World
    let ids: { a: number; b: number; c: number }
    let rule: number
    let pools: WorkerPool[]

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C'] })
      ids = { a: (await world.rse('A')).id, b: (await world.rse('B')).id, c: (await world.rse('C')).id }
      pools = [poolOf({})]
      await world.dataset('d', 12, 'A')
      rule = await world.addRule('d', 'B', 1)
      await world.evaluate()
    })
    afterEach(() => test.drop())

    function poolOf(rights: Partial<WorkerPool['rights']>): WorkerPool {
      return { ...WORKER, subject: 'pool', rights: { client: WORKER.client, ...rights } }
    }

    async function whyAll(...of: number[]): Promise<WhyOfTransfer[]> {
      const fleet = { pools, rses: await world.context.storages.all() }
      return whyOf(test.db.read, fleet, of, COUNTED, world.clock.now())
    }
    /** Why the nth transfer of the dataset waits: code, figures and when it is looked at again. */
    async function say(nth = 0): Promise<Pick<WhyOfTransfer, 'code' | 'figures' | 'again' | 'sentence'>> {
      const [found] = await whyAll(await idOf(nth))
      if (found === undefined) throw new Error('no such transfer')
      asked.add(found.code)
      return found
    }
    async function expectWhy(code: string, figures: object, again?: number, nth = 0): Promise<void> {
      const found = await say(nth)
      expect(found.code, found.sentence).to.equal(code)
      expect(found.figures).to.deep.include(figures)
      expect(found.again).to.equal(again)
    }
    const idOf = (nth: number): Promise<number> =>
      world.number('SELECT id AS n FROM transfers ORDER BY id LIMIT 1 OFFSET :nth', { nth })

    const work = async (): Promise<number> => {
      await world.grantAll()
      return world.openSession(DAY)
    }
    const claim = (sessionId: number, limit: number) =>
      claimWork(world.context as Context, { sessionId, fenceBase: FENCE_BASE }, limit)
    async function report(
      sessionId: number,
      claimed: readonly { id: number; fence: number }[],
      outcome: Pick<ReportedOutcome, 'result' | 'error'> & Partial<ReportedOutcome>,
    ): Promise<void> {
      const numbers = {
        durationMs: 10,
        endedMsAgo: 0,
        bytes: 1,
        cleaned: false,
        left: 'nothing',
        mode: 'pull',
      } as const
      const outcomes = claimed.map(({ id: transfer, fence }) => ({ transfer, fence, ...numbers, ...outcome }))
      const answers = await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, sessionId, outcomes)
      expect(answers.filter(({ answer }) => answer !== 'applied')).to.deep.equal([])
    }
    const progress = (sessionId: number, of: { id: number; fence: number } | undefined) =>
      test.db.write(e =>
        recordProgress(
          e,
          sessionId,
          of === undefined ? [] : [{ transfer: of.id, fence: of.fence, state: 'COPYING', bytes: 40 }],
          world.clock.now(),
        ),
      )
    const limit = (rseId: number, limits: { maxInbound?: number; maxOutbound?: number }) =>
      test.db.write(e => updateRse(e, rseId, limits))

    it('for workers: there is none, all are drained, or none is for such work', async () => {
      await world.grantAll()
      await expectWhy('NO_WORKER', { alive: 0, drained: 0, serving: 0 })
      await world.openSession()
      pools = [poolOf({ activities: ['another'] })]
      await expectWhy('NO_WORKER', { alive: 1, drained: 0, serving: 0 })
      pools = [poolOf({ links: [{ source: 'C', destination: 'B' }] }), poolOf({ rses: ['A'] })]
      await expectWhy('NO_WORKER', { alive: 1, drained: 0, serving: 0 })
      pools = [poolOf({ voIds: [world.voId + 1] })]
      await expectWhy('NO_WORKER', { alive: 0, drained: 0, serving: 0 })
      pools = [poolOf({ activities: ['test'], rses: ['A', 'B'], links: [{ source: 'A', destination: 'B' }] })]
      await expectWhy('CLAIMABLE', { workers: 1, busy: 0 })
      await test.db.write(e => drain(e, { ...WORKER, worker: 'w' }, world.clock.now()))
      await expectWhy('NO_WORKER', { alive: 1, drained: 1, serving: 0 })
      await world.clock.advance(20_000)
      await expectWhy('NO_WORKER', { alive: 0, drained: 0, serving: 0 })
    })

    it('for their turn: the first for nothing, the others for those before them', async () => {
      await work()
      await expectWhy('CLAIMABLE', { workers: 1, busy: 0 })
      await expectWhy('QUEUE_POSITION', { before: 11, active: 0, limit: 1000 }, undefined, 11)
    })

    it('for those whose tokens were asked for first, also when they were just served', async () => {
      await world.grantAll()
      await world.openSession()
      await world.dataset('e', 3, 'A')
      await world.addRule('e', 'B', 1)
      await world.evaluate()
      await world.change(
        `INSERT INTO accounts (vo_id, name, created_at)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT :vo, 'clone' || i, 0 FROM n`,
        { vo: world.voId },
      )
      await world.change(
        `INSERT INTO bundles (link_id, vo_id, source_directory_id, destination_directory_id, priority, activity, account_id,
                              has_work, ready, served_at, source_grant_id, destination_grant_id)
         SELECT link_id, bundles.vo_id, source_directory_id, destination_directory_id, priority, activity, accounts.id, true, true,
                9000000000000000, source_grant_id, destination_grant_id
           FROM bundles JOIN accounts ON accounts.name LIKE 'clone%' WHERE bundles.source_grant_id IS NOT NULL`,
      )
      await world.change('UPDATE bundles SET served_at = 9000000000000000 WHERE source_grant_id IS NOT NULL')
      const found = await say(12)
      expect(found.code, found.sentence).to.equal('QUEUE_POSITION')
    })

    it('for those of another dataset that were served longer ago', async () => {
      await world.dataset('e', 3, 'A')
      await world.addRule('e', 'B', 1)
      await world.evaluate()
      const session = await work()
      expect(await claim(session, 1)).to.have.length(1)
      await world.change('UPDATE bundles SET served_at = served_at + id')
      await expectWhy('QUEUE_POSITION', { before: 11 }, undefined, 12)
    })

    it('for those of a higher priority', async () => {
      await world.dataset('urgent', 3, 'A')
      await world.addRule('urgent', 'B', 1, 5)
      await world.evaluate()
      await work()
      await expectWhy('LOWER_PRIORITY', { urgent: 3 })
      await expectWhy('CLAIMABLE', {}, undefined, 12)
    })

    it('for a slot at the destination, at the source, or on the link (rucio #7598)', async () => {
      const session = await work()
      await limit(ids.b, { maxInbound: 5 })
      expect(await claim(session, 10)).to.have.length(5)
      await expectWhy('STORAGE_LIMIT_IN', { active: 5, limit: 5, before: 1 }, undefined, 6)
      await limit(ids.b, { maxInbound: 1000 })
      await limit(ids.a, { maxOutbound: 5 })
      await expectWhy('STORAGE_LIMIT_OUT', { active: 5, limit: 5, before: 1 }, undefined, 6)
      await limit(ids.a, { maxOutbound: 1000 })
      await world.change('UPDATE links SET max_active = 4')
      await expectWhy('LINK_LIMIT', { active: 5, limit: 4, before: 0 }, undefined, 5)
      expect(await claim(session, 10)).to.deep.equal([])
    })

    it('for room at a full destination, and then for the file that tries it', async () => {
      const session = await work()
      const since = world.clock.now()
      await report(session, await claim(session, 1), { result: 'failed', error: FULL })
      const until = since + HOLD.full.first
      await expectWhy('STORAGE_FULL', { storage: 'B', since, error: 'DESTINATION_FULL' }, until, 1)
      await world.clock.advance(HOLD.full.first)
      expect(await claim(session, 10)).to.have.length(1)
      await expectWhy('ON_TRIAL', { storage: 'B', since, done: 0 }, undefined, 5)
    })

    it('for a destination that asks for rest', async () => {
      const session = await work()
      const busy = { ...FAILURE, code: 'STORAGE_BUSY', message: '503', retryAfterSeconds: 300 }
      await report(session, await claim(session, 1), { result: 'failed', error: busy })
      await expectWhy('ENDPOINT_HELD', { storage: 'B', error: 'STORAGE_BUSY' }, world.clock.now() + 300_000, 1)
    })

    it('for a source that fails, and then for the files that try it', async () => {
      const session = await work()
      await report(session, await claim(session, 10), { result: 'failed', error: DEAD })
      await expectWhy('ENDPOINT_HELD', { storage: 'A', error: 'CONNECT_FAILED' }, world.clock.now() + HOLD.first, 11)
      await world.clock.advance(HOLD.first)
      expect(await claim(session, 10)).to.have.length(1)
      await expectWhy('ON_TRIAL', { storage: 'A', active: 1, done: 0 }, undefined, 11)
    })

    it('for tokens: nobody has asked for one yet, or it was refused', async () => {
      await world.openSession(DAY)
      await expectWhy('TOKEN_AWAITED', { side: 'source', storage: 'A' })
      await world.grantAll()
      const grant = await world.number('SELECT destination_grant_id AS n FROM bundles')
      const later = world.clock.now() + 300_000
      await test.db.write(async e => {
        const row = await findGrant(e, grant)
        if (row === undefined) throw new Error('no grant')
        await storeFailure(e, row, { event: 'refuse', notBefore: later, error: 'TOKEN_REFUSED: scope is not allowed' })
        await refreshReady(e, [grant])
      })
      await expectWhy('TOKEN_REFUSED', { side: 'destination', storage: 'B', grant }, later)
      expect((await say()).sentence).to.equal('the token for B is refused (TOKEN_REFUSED: scope is not allowed)')
    })

    it('for tokens that live longer, where only the server can mint them', async () => {
      await work()
      await world.change('UPDATE grants SET lifetime_ms = 3600000, expires_at = :soon', {
        soon: world.clock.now() + 1_000,
      })
      await expectWhy('TOKEN_AWAITED', { side: 'source', storage: 'A', state: 'LIVE' })
    })

    it('for their place: a late DELETE of a worker’s, or a person’s upload', async () => {
      const session = await work()
      const [held] = await claim(session, 1)
      if (held === undefined) throw new Error('nothing was claimed')
      await test.db.write(e =>
        grantPermit(e, { sessionId: session, transfer: held.id, fence: held.fence, written: true }, world.clock.now()),
      )
      await report(session, [held], { result: 'handed-back' })
      const until = await world.number('SELECT until AS n FROM permits')
      await expectWhy('PATH_BEING_CLEANED', { destination: 'B' }, until)
      const replica = await world.number('SELECT replica_id AS n FROM transfers ORDER BY id LIMIT 1 OFFSET 1')
      await test.db.write(e => reservePaths(e, [replica], until + 7))
      await expectWhy('PATH_RESERVED', { destination: 'B' }, until + 7, 1)
    })

    it('because somebody closed the way, and then because there is no source', async () => {
      await work()
      const now = world.clock.now()
      await test.db.write(e => updateRse(e, ids.b, { availabilityWrite: false }))
      await expectWhy('DESTINATION_CLOSED', { destination: 'B' }, now)
      await test.db.write(e => updateRse(e, ids.b, { availabilityWrite: true }))
      await test.db.write(e => updateRse(e, ids.a, { availabilityRead: false }))
      await expectWhy('SOURCE_CLOSED', { source: 'A' }, now)
      await test.db.write(e => updateRse(e, ids.a, { availabilityRead: true }))
      await test.db.write(e => closeLink(e, ids.a, ids.b))
      await expectWhy('LINK_CLOSED', { source: 'A', destination: 'B' }, now)
      await world.run(transferReleaser)
      await expectWhy('NO_SOURCE', { replicas: 1, destination: 'B' }, now + 60_000)
      expect((await say()).sentence).to.equal('no replica of it can be used: A has no link to B')
      await test.db.write(e => updateRse(e, ids.b, { availabilityWrite: false }))
      await expectWhy('DESTINATION_CLOSED', { destination: 'B' }, now + 60_000)
    })

    it('until a storage that their rule names as a source has their file', async () => {
      await work()
      await test.db.write(e => ensureSourceSet(e, world.voId, 'C', [ids.c]))
      await world.change("UPDATE transfers SET source_set_id = 1, state = 'WAITING', not_before = 0")
      await world.run(transferReleaser)
      const figures = { replicas: 1, destination: 'B', sources: 'C' }
      await expectWhy('NO_ALLOWED_SOURCE', figures, world.clock.now() + 60_000)
    })

    it('until their file is at a storage on the way', async () => {
      await test.db.write(e => updateRse(e, ids.c, { multihop: true }))
      world.context.storages.forget()
      await test.db.write(e => closeLink(e, ids.a, ids.b))
      await world.run(transferReleaser)
      const hop = await world.number('SELECT min(carrier_id) AS n FROM hops')
      await expectWhy('MULTIHOP', { via: 'C', hop, destination: 'B' })
      await world.change("UPDATE transfers SET state = 'FAILED', reason = 'HOP_FAILED' WHERE id = :id", {
        id: await idOf(0),
      })
      await expectWhy('FAILED', { error: 'HOP_FAILED' })
      expect((await say()).sentence).to.equal('it failed (HOP_FAILED: over C): the repair of its rule tries it again')
    })

    it('between failed attempts, until they have failed for good', async () => {
      const session = await work()
      await report(session, await claim(session, 1), { result: 'failed', error: FAILURE })
      const again = await world.number('SELECT not_before AS n FROM transfers ORDER BY id LIMIT 1')
      expect(again).to.be.greaterThan(world.clock.now())
      await expectWhy('BACKOFF', { attempts: 1, error: 'STORAGE_ERROR' }, again)
      await world.clock.advance(again - world.clock.now())
      await expectWhy('UNPLANNED', { replicas: 1 }, again)
      const others = await claim(session, 1)
      await report(session, others, {
        result: 'failed',
        error: { ...FAILURE, code: 'PERMISSION_DENIED', retryable: false },
      })
      await expectWhy('FAILED', { attempts: 1, error: 'PERMISSION_DENIED', since: again }, undefined, 1)
    })

    it('for a token that is refused for longer than they wait after a failure', async () => {
      const session = await work()
      await report(session, await claim(session, 1), { result: 'failed', error: FAILURE })
      const grant = await world.number('SELECT destination_grant_id AS n FROM bundles')
      const later = world.clock.now() + DAY
      await world.change(`UPDATE grants SET state = 'HELD', not_before = :later WHERE id = :grant`, { later, grant })
      await expectWhy('TOKEN_REFUSED', { side: 'destination', storage: 'B', grant }, later)
    })

    it('while a worker has them, and when it is lost', async () => {
      const session = await work()
      const [first] = await claim(session, 2)
      const since = world.clock.now()
      await expectWhy('CLAIMED', { worker: 'w', since, bytes: 100 })
      await progress(session, first)
      await expectWhy('COPYING', { worker: 'w', since, bytesDone: 40, source: 'A', destination: 'B' })
      await world.openSession(DAY)
      await test.db.write(e => endSession(e, session, since + 5_000, since))
      await expectWhy('SETTLING', { destination: 'B', since }, since + 5_000)
    })

    it('till their source has come from tape', async () => {
      await world.change('UPDATE rses SET tape = :yes WHERE id = :a', { yes: true, a: (await world.rse('A')).id })
      await world.change("UPDATE transfers SET state = 'WAITING', not_before = 0")
      await world.run(transferReleaser)
      await expectWhy('STAGING', { source: 'A', since: world.clock.now() }, world.clock.now())
      await world.change("UPDATE task_items SET state = 'ASKED'")
      await world.change("UPDATE tasks SET not_before = :again, error = 'STORAGE_BUSY: later'", {
        again: world.clock.now() + 9,
      })
      await expectWhy('STAGING', { source: 'A' }, world.clock.now() + 9)
    })

    it('till they are on tape', async () => {
      await world.change(`UPDATE transfers SET state = 'ARCHIVING'`)
      await expectWhy('ARCHIVING', { destination: 'B' })
    })

    it('no more', async () => {
      const session = await work()
      await report(session, await claim(session, 1), { result: 'done' })
      await expectWhy('FINISHED', { since: world.clock.now(), attempts: 1, bytes: 100 })
      await test.db.write(e => startRemoval(e, rule, world.clock.now()))
      await world.evaluate()
      await expectWhy('CANCELLED', { attempts: 0 }, undefined, 1)
    })

    it('a rule’s are told together, in as many statements as one is, and none reads all transfers', async () => {
      await work()
      const all = await openOfRule(test.db.read, rule, 1_000)
      expect(all).to.have.length(12)
      const statements: { sql: string; bindings: unknown[] }[] = []
      const note = (statement: { sql: string; bindings: unknown[] }): void => void statements.push(statement)
      const [first = 0] = all
      await whyAll(first)
      test.db.read.on('query', note)
      await whyAll(first)
      const forOne = statements.splice(0).length
      const codes = (await whyAll(...all)).map(({ code }) => code)
      test.db.read.off('query', note)
      expect(codes).to.deep.equal(['CLAIMABLE', ...Array(11).fill('QUEUE_POSITION')])
      expect(statements).to.have.length(forOne)
      expect(forOne).to.be.at.most(9)
      if (name === 'PostgreSQL') return
      for (const { sql, bindings } of statements) {
        const plan: { detail: string }[] = await test.db.read.raw(`EXPLAIN QUERY PLAN ${sql}`, bindings as string[])
        expect(
          plan
            .map(({ detail }) => detail)
            .filter(detail => /^SCAN (transfers|other|attempts|replicas|own|source)/.test(detail)),
          sql,
        ).to.deep.equal([])
      }
    })

    it('a case of each was seen', () => {
      expect([...asked].sort()).to.deep.equal(Object.keys(WHY_CODES).sort())
    })
  })
}
