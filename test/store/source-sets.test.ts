import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import type { Executor } from '../../server/database/sql.ts'
import { condemnReplicas, FOUND } from '../../server/faults/store.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { suspendRule } from '../../server/rules/life-store.ts'
import { shownProblems } from '../../server/rules/routes.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { addToRules } from '../../server/rules/store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import type { AttributeValue } from '../../server/storages/directory.ts'
import { removeRse } from '../../server/storages/removal.ts'
import {
  closeLink,
  deleteAttribute,
  putAttribute,
  putLink,
  type RseChange,
  updateRse,
} from '../../server/storages/store.ts'
import { hopKeeper } from '../../server/transfers/hops.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { movable } from '../../server/transfers/replan-store.ts'
import { lookAtTransfers } from '../../server/transfers/source-set-store.ts'
import { sourceSetKeeper } from '../../server/transfers/source-sets.ts'
import { whyOf } from '../../server/transfers/why-gather.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { TransferFailure } from '../../shared/domain/transfer-error.ts'
import { databases, type TestDatabase } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { World } from './world.ts'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000
const FROM_SOURCE = { scope: 'SOURCE', phase: 'TRANSFER', message: 'it said no' } as const
const FAULT = { transfer_id: null, code: 'SOURCE_CHECKSUM', message: 'adler32 is 1, not 2' }
const MESSAGE =
  'none of the storages that its rule names as sources has a good replica of the file, and nobody is bringing one there'

for (const { name, open } of databases) {
  describe(`rules that say where files come from (source_replica_expression), on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B', 'C', 'D'] })
      session = await world.openSession(10 * DAY_MS)
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

    async function label(rse: string, key: string, value: AttributeValue | undefined): Promise<void> {
      const { id } = await world.rse(rse)
      await test.db.write(e => (value === undefined ? deleteAttribute(e, id, key) : putAttribute(e, id, key, value)))
      world.context.storages.forget()
    }

    async function close(from: string, to: string): Promise<void> {
      const [source, destination] = [await world.rse(from), await world.rse(to)]
      await test.db.write(e => closeLink(e, source.id, destination.id))
    }

    async function ask(sources: string | null, at = 'B', dataset = 'd'): Promise<number> {
      world.sources = sources
      const rule = await world.addRule(dataset, at, 1)
      await work()
      return rule
    }

    /** What the services do until they have nothing more to do. */
    async function work(): Promise<void> {
      for (const service of [sourceSetKeeper, ruleAligner]) await world.run(service)
      await world.evaluate()
      await world.run(hopKeeper)
      await world.run(transferReleaser)
      await world.grantAll()
      expect(await brokenInvariants(world)).to.deep.equal([])
    }

    async function later(minutes: number): Promise<void> {
      for (let minute = 0; minute < minutes; minute += 10) {
        await world.clock.advance(10 * MINUTE_MS)
        await work()
        await world.run(ruleRepairer)
      }
    }

    /** A worker takes all that is queued and reports this of it. */
    async function copy(error?: TransferFailure): Promise<void> {
      const claimed = await world.claim(session, 1000)
      expect(claimed.length, 'claimed').to.be.above(0)
      const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: true, left: 'nothing' as const }
      const result = error === undefined ? { result: 'done' as const } : { result: 'failed' as const, error }
      const outcomes = claimed.map(({ id: transfer, fence }) => ({ transfer, fence, ...numbers, ...result }))
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      await work()
    }

    /** `A>C QUEUED`, in the order in which they were made, and of several alike one. */
    async function transfers(): Promise<string[]> {
      const rows = await world.rows<{ way: string; state: string; reason: string | null }>(
        `SELECT coalesce(source.name, '-') || '>' || destination.name AS way, transfers.state, transfers.reason FROM transfers
           LEFT JOIN rses AS source ON source.id = source_rse_id JOIN rses AS destination ON destination.id = destination_rse_id
          ORDER BY transfers.id`,
      )
      return [...new Set(rows.map(row => `${row.way} ${row.state} ${row.reason ?? ''}`.trim()))]
    }

    const rules = async (): Promise<string[]> =>
      (await world.rows<{ state: string }>('SELECT state FROM rules ORDER BY id')).map(row => row.state)

    async function say(): Promise<string> {
      const id = await world.number('SELECT min(id) AS n FROM transfers')
      const [why] = await whyOf(test.db.read, { pools: [], rses: [] }, [id], 10, world.clock.now())
      return `${why?.code}: ${why?.sentence}`
    }

    async function condemn(rse: string): Promise<void> {
      const rows = await world.rows<{ id: number }>(
        'SELECT replicas.id FROM replicas JOIN rses ON rses.id = rse_id WHERE rses.name = :rse',
        { rse },
      )
      const now = world.clock.now()
      await test.db.write(async e => {
        const faults = rows.map(row => ({ ...FAULT, ...FOUND, replica_id: row.id }))
        await addToRules(e, await condemnReplicas(e, faults, now), now)
      })
    }

    it('are taken from there, though another is as near; without it from the nearest', async () => {
      for (const rse of ['A', 'C']) await world.dataset('d', 3, rse)
      await ask('C|D')
      expect(await transfers()).to.deep.equal(['C>B QUEUED'])
      await ask(null, 'D')
      expect(await transfers()).to.deep.equal(['C>B QUEUED', 'A>D QUEUED'])
    })

    it('are taken from there when they are planned again, whatever failed there', async () => {
      for (const rse of ['A', 'C']) await world.dataset('d', 1, rse)
      await ask('C')
      await copy({ ...FROM_SOURCE, code: 'STORAGE_ERROR', retryable: true })
      await world.clock.advance(DAY_MS)
      await work()
      expect(await transfers()).to.deep.equal(['C>B QUEUED'])
      await copy({ ...FROM_SOURCE, code: 'SOURCE_MISSING', retryable: false })
      expect(await transfers(), 'A is none that could give it').to.deep.equal(['C>B FAILED'])
    })

    it('move to another source only within them', async () => {
      for (const rse of ['A', 'C']) await world.dataset('d', 3, rse)
      for (const [at, sources, n] of [
        ['B', 'A', 0],
        ['D', 'A|C', 3],
      ] as const) {
        await ask(sources, at)
        const rows = await world.rows<{ id: number; link_id: number }>(
          `SELECT transfers.id, link_id FROM transfers JOIN rses ON rses.id = destination_rse_id WHERE rses.name = :at`,
          { at },
        )
        const leaving = { linkId: rows[0]?.link_id ?? 0 }
        const ids = rows.map(row => row.id)
        expect(await movable(test.db.read, ids, leaving, world.clock.now()), at).to.have.length(n)
      }
    })

    it('are brought from tape there, though another has them on disk', async () => {
      await set('C', { tape: true })
      for (const rse of ['A', 'C']) await world.dataset('d', 1, rse)
      await ask('C')
      expect(await transfers()).to.deep.equal(['C>B STAGING STAGING'])
      await label('A', 'tier', 1)
      await ask('tier=1', 'D')
      await label('A', 'tier', undefined)
      await label('C', 'tier', 1)
      await work()
      expect(await transfers(), 'staging begins for D').to.deep.equal(['C>B STAGING STAGING', 'C>D STAGING STAGING'])
      await label('A', 'tier', 1)
      await label('C', 'tier', undefined)
      await work()
      expect(await transfers(), 'and is over').to.deep.equal(['C>B STAGING STAGING', 'A>D QUEUED'])
    })

    it('a rule that names none costs no look at sets', async () => {
      await world.dataset('d', 3, 'A')
      await ask('A', 'C')
      world.sources = null
      await world.addRule('d', 'B', 1)
      const seen: string[] = []
      await world.on(watching(test.db, seen)).evaluate()
      expect(await transfers()).to.deep.equal(['A>C QUEUED', 'A>B QUEUED'])
      expect(seen.length).to.be.above(10)
      expect(seen.filter(sql => /source_set(s|_members)/.test(sql))).to.deep.equal([])
    })

    it('of which none has a good replica are waited for for an hour, while others have one; then the rule says so', async () => {
      for (const rse of ['A', 'C']) await world.dataset('d', 1, rse)
      await condemn('C')
      const rule = await ask('C')
      expect(await transfers()).to.deep.equal(['->B WAITING NO_ALLOWED_SOURCE'])
      expect(await say()).to.equal(
        'NO_ALLOWED_SOURCE: none of the storages that its rule names as sources (C) can give it: at C it is BAD; A has one, and is none of them',
      )
      await later(50)
      expect(await rules()).to.deep.equal(['REPLICATING'])
      await later(20)
      expect([await rules(), await transfers()]).to.deep.equal([['STUCK'], ['->B FAILED NO_ALLOWED_SOURCE']])
      expect(await say()).to.equal(
        `FAILED: it failed (NO_ALLOWED_SOURCE: ${MESSAGE}): the repair of its rule tries it when one of them has it`,
      )
      const shown = { id: rule, vo_id: world.voId, expression: 'B' }
      expect(await shownProblems(test.db.read, world.context.storages, shown)).to.deep.equal([
        { did: 's:d.f0', rse: 'B', code: 'NO_ALLOWED_SOURCE', message: MESSAGE },
      ])
      await later(600)
      expect(await rules(), 'a repair changes nothing (rucio #8743)').to.deep.equal(['STUCK'])
      await world.change("UPDATE replicas SET state = 'AVAILABLE' WHERE state = 'BAD'")
      await world.change('UPDATE replica_faults SET over_at = at')
      await later(600)
      expect(await transfers()).to.deep.equal(['->B FAILED NO_ALLOWED_SOURCE', 'C>B QUEUED'])
    })

    it('are waited for as long as one of them has the file, and cannot give it now', async () => {
      for (const rse of ['A', 'C']) await world.dataset('d', 1, rse)
      await set('C', { availabilityRead: false })
      await ask('C')
      await later(300)
      expect(await transfers()).to.deep.equal(['->B WAITING NO_ALLOWED_SOURCE'])
      expect(await say()).to.include('C may not be read; A has one')
      await set('C', { availabilityRead: true })
      await later(10)
      expect(await transfers()).to.deep.equal(['C>B QUEUED'])
    })

    describe('whose storages change', () => {
      beforeEach(async () => {
        for (const rse of ['A', 'C']) await world.dataset('d', 3, rse)
        await label('A', 'tier', 1)
      })

      it('what is queued goes to a storage that is one now', async () => {
        await ask('tier=1')
        expect(await transfers()).to.deep.equal(['A>B QUEUED'])
        await label('C', 'tier', 1)
        await work()
        expect(await transfers(), 'both may').to.deep.equal(['A>B QUEUED'])
        await label('A', 'tier', 2)
        await work()
        expect(await transfers()).to.deep.equal(['C>B QUEUED'])
        await copy()
        expect(await rules()).to.deep.equal(['OK'])
      })

      it('what is queued is looked at some at a time, and by one server', async () => {
        await ask('tier=1')
        await label('A', 'tier', 2)
        await label('C', 'tier', 1)
        await world.change('DELETE FROM source_set_members')
        await world.change('UPDATE source_sets SET look_cursor = 0')
        const look = (look_cursor: number) =>
          test.db.write(e => lookAtTransfers(e, { id: 1, look_cursor }, 2, world.clock.now()))
        expect([await look(0), await look(0)]).to.deep.equal([true, false])
        const states = () => world.rows<{ state: string }>('SELECT state FROM transfers ORDER BY id')
        expect((await states()).map(row => row.state)).to.deep.equal(['WAITING', 'WAITING', 'QUEUED'])
        const [row] = await world.rows<{ look_cursor: number }>('SELECT look_cursor FROM source_sets')
        expect(await look(row?.look_cursor ?? 0)).to.equal(true)
        expect((await states()).map(each => each.state)).to.deep.equal(['WAITING', 'WAITING', 'WAITING'])
        expect(await world.rows('SELECT look_cursor FROM source_sets')).to.deep.equal([{ look_cursor: null }])
      })

      it('to none at all: nothing is taken from anywhere, and it is tried again as soon as there is one', async () => {
        await ask('tier=1')
        await label('A', 'tier', 2)
        await work()
        expect(await transfers()).to.deep.equal(['A>B WAITING NO_ALLOWED_SOURCE'])
        expect(await say()).to.include('A has one, and is none of them; C has one')
        await later(80)
        expect(await rules()).to.deep.equal(['STUCK'])
        await label('C', 'tier', 1)
        await work()
        await world.run(ruleRepairer)
        expect(await transfers()).to.deep.equal(['A>B FAILED NO_ALLOWED_SOURCE', 'C>B QUEUED'])
      })

      it('what waits for one is planned at once', async () => {
        await label('A', 'tier', undefined)
        await label('D', 'tier', 1)
        await ask('tier=1')
        expect(await transfers()).to.deep.equal(['->B WAITING NO_ALLOWED_SOURCE'])
        await label('C', 'tier', 1)
        await work()
        expect(await transfers()).to.deep.equal(['C>B QUEUED'])
      })

      it('a storage that is named stays; one of several that an attribute names can be removed', async () => {
        const remove = async (): Promise<void> => {
          const [rse, all] = [await world.rse('D'), await world.context.storages.all()]
          await test.db.write(e => removeRse(e, rse, all))
          world.context.storages.forget()
        }
        const rule = await ask('A|D')
        const refused = await remove().catch(error => error)
        expect(refused).to.include({ code: 'RSE_IN_USE' })
        await test.db.write(e => startRemoval(e, rule, world.clock.now()))
        await work()
        await label('D', 'tier', 1)
        await ask('tier=1')
        expect(await world.number('SELECT count(*) AS n FROM source_set_members')).to.equal(4)
        await remove()
        await work()
        expect(await world.number('SELECT count(*) AS n FROM source_set_members')).to.equal(2)
      })

      it('a word that names nothing any more closes none of the others', async () => {
        await label('D', 'old', true)
        await ask('A|old')
        await label('D', 'old', undefined)
        await work()
        expect(await transfers()).to.deep.equal(['A>B QUEUED'])
        expect(await world.number('SELECT count(*) AS n FROM source_set_members')).to.equal(1)
      })
    })

    describe('that want the same copy', () => {
      beforeEach(async () => {
        for (const rse of ['A', 'C']) await world.dataset('d', 1, rse)
      })
      const remove = async (rule: number): Promise<void> => {
        await test.db.write(e => startRemoval(e, rule, world.clock.now()))
        await work()
      }

      it('one that takes it from anywhere lifts what another says, at once', async () => {
        await condemn('C')
        await ask('C')
        await ask(null, 'D')
        expect(await transfers()).to.deep.equal(['->B WAITING NO_ALLOWED_SOURCE', 'A>D QUEUED'])
        await ask(null, 'B|B')
        expect(await transfers()).to.deep.equal(['A>B QUEUED', 'A>D QUEUED'])
      })

      it('one that names sources takes it as another lets it come', async () => {
        await ask(null, 'B')
        await ask('C', 'B|B')
        expect(await transfers()).to.deep.equal(['A>B QUEUED'])
      })

      for (const [how, end] of [
        ['is removed', async (rule: number) => remove(rule)],
        [
          'is suspended',
          async (rule: number) => {
            await test.db.write(e => suspendRule(e, rule, world.clock.now()))
            await work()
          },
        ],
      ] as const) {
        it(`of two the first counts, until it ${how}`, async () => {
          const first = await ask('C')
          await ask('A', 'B|B')
          expect(await transfers()).to.deep.equal(['C>B QUEUED'])
          await end(first)
          expect(await transfers()).to.deep.equal(['A>B QUEUED'])
        })
      }

      it('a copy that was cancelled while it was made is the next one’s', async () => {
        const first = await ask('C')
        await world.claim(session, 10)
        await remove(first)
        await ask('A')
        const [row] = await world.rows<{ expression: string }>(
          'SELECT expression FROM transfers JOIN source_sets ON source_sets.id = source_set_id WHERE NOT cancel_requested',
        )
        expect(row?.expression).to.equal('A')
      })
    })

    describe('over other storages', () => {
      beforeEach(async () => {
        for (const rse of ['C', 'D']) await set(rse, { multihop: true })
        await close('A', 'B')
        const [from, to] = [await world.rse('D'), await world.rse('B')]
        const link = { sourceId: from.id, destinationId: to.id, distance: 5, maxActive: 1000, optimize: false }
        await test.db.write(e => putLink(e, link))
        await world.dataset('d', 1, 'A')
      })

      it('come from one of them, hop by hop, though another is nearer', async () => {
        await world.dataset('d', 1, 'D')
        await close('A', 'D')
        await ask('A')
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
        await copy()
        expect(await transfers()).to.deep.equal(['C>B QUEUED', 'A>C DONE'])
        await copy()
        expect([await transfers(), await rules()]).to.deep.equal([['C>B DONE', 'A>C DONE'], ['OK']])
      })

      it('go over two', async () => {
        await close('A', 'C')
        await close('D', 'B')
        await ask('A')
        await copy()
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>D DONE', 'D>C QUEUED'])
        await copy()
        await copy()
        expect(await transfers()).to.deep.equal(['C>B DONE', 'A>D DONE', 'D>C DONE'])
      })

      it('go over none that has them from elsewhere, or will have', async () => {
        await world.dataset('e', 1, 'A')
        await world.dataset('d', 1, 'C')
        await ask('A')
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>D QUEUED'])
        await ask(null, 'C', 'e')
        await ask('A', 'B', 'e')
        const others = await transfers()
        expect(others.slice(2)).to.deep.equal(['A>C QUEUED'])
        const hops = await world.rows(
          'SELECT DISTINCT rses.name FROM hops JOIN replicas ON replicas.id = replica_id JOIN rses ON rses.id = rse_id',
        )
        expect(hops).to.deep.equal([{ name: 'D' }])
      })

      it('say so where there is no other way', async () => {
        await close('D', 'B')
        await close('D', 'C')
        await world.dataset('d', 1, 'C')
        await ask('A')
        expect(await transfers()).to.deep.equal(['->B WAITING NO_ALLOWED_SOURCE'])
        expect(await say()).to.include('A has no link to B; C has one, and is none of them')
      })

      it('a rule that wants what brings them nearer from anywhere gets it as they need it', async () => {
        await ask('A')
        await ask(null, 'C')
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
        await copy()
        expect(await transfers()).to.deep.equal(['C>B QUEUED', 'A>C DONE'])
      })

      it('an unrestricted copy that goes over what another rule brings leaves it as it is', async () => {
        await ask('A', 'C')
        await ask(null, 'B')
        const [carrier] = await world.rows<{ set_id: number | null }>(
          'SELECT source_set_id AS set_id FROM transfers ORDER BY id LIMIT 1',
        )
        expect(carrier?.set_id).to.be.a('number')
        expect(await transfers()).to.deep.equal(['A>C QUEUED', '->B WAITING MULTIHOP'])
        await copy()
        await copy()
        expect(await rules()).to.deep.equal(['OK', 'OK'])
      })

      it('a rule that wants what brings an unrestricted copy nearer gets it from where it may', async () => {
        await ask(null)
        await world.dataset('d', 1, 'D')
        await close('D', 'B')
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'A>C QUEUED'])
        await ask('D', 'C')
        expect(await transfers()).to.deep.equal(['->B WAITING MULTIHOP', 'D>C QUEUED'])
        await copy()
        await copy()
        expect(await rules()).to.deep.equal(['OK', 'OK'])
      })

      it('what is on its way is left where the rule that is left wants it from elsewhere', async () => {
        const first = await ask('A')
        await world.dataset('d', 1, 'D')
        await ask('D', 'B|B')
        await test.db.write(e => startRemoval(e, first, world.clock.now()))
        await work()
        await world.clock.advance(MINUTE_MS)
        await work()
        expect(await transfers()).to.deep.equal(['D>B QUEUED', 'A>C CANCELLED'])
      })
    })
  })
}

/** The same database; what is asked of it is noted. */
function watching(db: Database, seen: string[]): Database {
  const watched = (executor: Executor): Executor =>
    new Proxy(executor, {
      get(target, property) {
        if (property !== 'raw') return Reflect.get(target, property)
        return (...args: Parameters<Executor['raw']>) => {
          seen.push(String(args[0]))
          return target.raw(...args)
        }
      },
    })
  return { ...db, read: watched(db.read), write: work => db.write(e => work(watched(e))) }
}
