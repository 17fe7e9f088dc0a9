import { expect } from 'chai'
import { putLink, putProtocol } from '../../server/storages/store.ts'
import { decisionsBeyond, decisionsOf, KEPT_DECISIONS, pruneDecisions } from '../../server/transfers/decision-store.ts'
import { type Look, TUNING } from '../../server/transfers/link-tuning.ts'
import { optimizeLinks } from '../../server/transfers/optimize.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { describeClaimed } from '../../server/transfers/read-store.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FAILURE, World } from './world.ts'

const LOOK_MS = 5_000
const FILE_MS = 1_000

for (const { name, open } of databases) {
  describe(`the limits of links on ${name}`, () => {
    let test: TestDatabase
    let world: World
    let session: number
    let link: { sourceId: number; destinationId: number }

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'], optimize: true, linkLimit: 60 })
      session = await world.openSession(1e9)
      link = { sourceId: (await world.rse('A')).id, destinationId: (await world.rse('B')).id }
      await world.dataset('d', 4_000, 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      await world.grantAll()
    })
    afterEach(() => test.drop())

    const limit = (): Promise<number> => world.number('SELECT learnt_active AS n FROM links WHERE has_work')
    const decisions = () => decisionsOf(world.db.read, link, 1_000)

    /** The link copies for so long what its limit allows, a file a second each; `look` is called every five. */
    async function work(ms: number, look: () => Promise<unknown>, result: 'done' | 'failed' = 'done'): Promise<void> {
      for (let passed = 0; passed < ms; passed += LOOK_MS) {
        const claimed = await world.claim(session, 1_000)
        await look()
        await world.clock.advance(LOOK_MS)
        const common = { endedMsAgo: 0, bytes: 1_000_000, cleaned: false, left: 'own' as const, durationMs: FILE_MS }
        const failed = result === 'failed' ? { error: { ...FAILURE, code: 'TRANSFER_FAILED' } } : {}
        const outcomes = claimed.map(({ id, fence }) => ({
          transfer: id,
          fence,
          result,
          mode: id % 2 === 0 ? ('pull' as const) : ('push' as const),
          ...common,
          ...failed,
        }))
        await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      }
    }

    it('begin with ten, and are raised once a minute as long as it pays', async () => {
      expect(await world.claim(session, 1_000)).to.have.length(10)
      await world.change("UPDATE transfers SET state = 'QUEUED', session_id = NULL WHERE state = 'CLAIMED'")
      const looks: Look[] = []
      await work(6 * TUNING.window, () => optimizeLinks(world.context, looks, world.clock.now()))
      expect(await limit()).to.be.above(12)
      const codes = (await decisions()).map(({ code }) => code).reverse()
      expect(codes.slice(0, 2)).to.deep.equal(['PROBE_UP', 'INCREASE_PAYS'])
      const [last] = await decisions()
      expect(last?.sentence).to.match(/^\d+ -> \d+: /)
      expect(JSON.parse(last?.figures ?? '')).to.include({ maximum: 60, failures: 0 })
    })

    it('are raised as well where all that runs ends at once, and a look in four finds nothing', async () => {
      const looks: Look[] = []
      let count = 0
      const look = async () => {
        count += 1
        if (count % 4 > 0) return optimizeLinks(world.context, looks, world.clock.now())
        await world.change("UPDATE transfers SET state = 'WAITING' WHERE state = 'CLAIMED'")
        await optimizeLinks(world.context, looks, world.clock.now())
        return world.change("UPDATE transfers SET state = 'CLAIMED' WHERE state = 'WAITING' AND session_id IS NOT NULL")
      }
      await work(6 * TUNING.window, look)
      expect((await decisions()).map(({ code }) => code)).to.not.include('DEMAND_BELOW_LIMIT')
      expect(await limit()).to.be.above(12)
    })

    it('are in force with the next claim, and the lesser of what was learnt and set counts', async () => {
      await world.change('UPDATE links SET learnt_active = 17')
      expect(await world.claim(session, 1_000)).to.have.length(17)
      await world.change('UPDATE links SET max_active = 20, learnt_active = 40')
      expect(await world.claim(session, 1_000)).to.have.length(3)
    })

    it('that an admin fixes are left alone, and go on where they were', async () => {
      const looks: Look[] = []
      const look = () => optimizeLinks(world.context, looks, world.clock.now())
      await work(3 * TUNING.window, look)
      const [learnt, count] = [await limit(), (await decisions()).length]
      const set = (optimize: boolean) =>
        world.db.write(e => putLink(e, { ...link, distance: 1, maxActive: 50, optimize }))
      await set(false)
      expect(await world.claim(session, 1_000)).to.have.length(50)
      await work(2 * TUNING.window, look)
      expect([await limit(), (await decisions()).length]).to.deep.equal([learnt, count])
      expect(await set(true)).to.include({ learnt_active: learnt, max_active: 50 })
    })

    it('rest on nothing that was told late: it held its place for the server, not for its copy', async () => {
      const claimed = await world.claim(session, 3)
      const common = { cleaned: false, left: 'own', durationMs: FILE_MS, bytes: 1, mode: 'pull' } as const
      const failed = { result: 'failed', error: { ...FAILURE, code: 'TRANSFER_FAILED' } } as const
      const outcomes = [
        { endedMsAgo: 20_000, result: 'done' as const },
        { endedMsAgo: 20_000, ...failed },
        { endedMsAgo: 500, result: 'done' as const },
      ].map((outcome, i) => ({ transfer: claimed[i]?.id ?? 0, fence: claimed[i]?.fence ?? 0, ...common, ...outcome }))
      await world.clock.advance(20_000)
      await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, session, outcomes)
      expect(await world.rows('SELECT files, failures FROM link_minutes')).to.deep.equal([{ files: 1, failures: 0 }])
    })

    it('are decided once by several servers', async () => {
      const [one, other]: [Look[], Look[]] = [[], []]
      await work(4 * TUNING.window, () =>
        Promise.all([one, other].map(looks => optimizeLinks(world.context, looks, world.clock.now()))),
      )
      const times = (await decisions()).filter(({ subject }) => subject === 'limit').map(({ at }) => at)
      expect(times.length).to.be.above(1)
      expect(new Set(times).size).to.equal(times.length)
    })

    it('wait for their own looks when a server has just started', async () => {
      const looks: Look[] = []
      await work(TUNING.window, () => optimizeLinks(world.context, looks, world.clock.now()))
      const fresh: Look[] = []
      const before = await world.number('SELECT measured_at AS n FROM link_tuning')
      await work(5 * LOOK_MS, () => optimizeLinks(world.context, fresh, world.clock.now()))
      expect(await world.number('SELECT measured_at AS n FROM link_tuning')).to.equal(before)
      await work(2 * LOOK_MS, () => optimizeLinks(world.context, fresh, world.clock.now()))
      expect(await world.number('SELECT measured_at AS n FROM link_tuning')).to.be.above(before)
    })

    it('are halved in an outage, and what was learnt comes back after it', async () => {
      await world.change('UPDATE links SET learnt_active = 40')
      const looks: Look[] = []
      const look = () => optimizeLinks(world.context, looks, world.clock.now())
      await work(2 * TUNING.window, look)
      // The first may end a trial only.
      await work(4 * TUNING.window, look, 'failed')
      expect(await limit()).to.be.below(21)
      expect((await decisions()).map(({ code }) => code)).to.include('OUTAGE')
      await world.change("UPDATE transfers SET not_before = 0, state = 'QUEUED' WHERE state = 'WAITING'")
      await world.change('UPDATE bundles SET has_work = true')
      await work(6 * TUNING.window, look)
      expect((await decisions()).map(({ code }) => code)).to.include('AFTER_OUTAGE')
      expect(await limit()).to.be.above(30)
    })

    it('and modes are told with the claim: a first attempt may try the other', async () => {
      const protocol = { url: 'https://x.example.org', priority: 0, canPull: true, canPush: true }
      for (const id of [link.sourceId, link.destinationId]) {
        const more = { freshConnections: false, macaroons: false, redirectHosts: [] }
        await world.db.write(e => putProtocol(e, id, { ...protocol, ...more }))
      }
      world.context.storages.forget()
      const looks: Look[] = []
      await work(2 * TUNING.window, () => optimizeLinks(world.context, looks, world.clock.now()))
      const claimed = await describeClaimed(world.db.read, await world.claim(session, 3))
      expect(claimed.map(row => [row.preferred_mode, row.mode_tries])).to.deep.equal(
        Array.from({ length: 3 }, () => ['pull', 100]),
      )
      expect((await decisions()).filter(({ subject }) => subject === 'mode').map(({ code }) => code)).to.include(
        'NOT_FASTER',
      )
      await world.change('UPDATE links SET optimize = false')
      const [fixed] = await describeClaimed(world.db.read, await world.claim(session, 1))
      expect(fixed?.preferred_mode ?? null).to.equal(null)
    })

    it('have as many decisions as are kept', async () => {
      await world.change(
        `INSERT INTO link_decisions (link_id, at, subject, before, after, code, figures, sentence)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
         SELECT (SELECT min(id) FROM links), i, 'limit', '1', '2', 'PROBE_UP', '{}', '' FROM n`,
        { rows: KEPT_DECISIONS.each + 20 },
      )
      const ends = await world.rows<{ source_rse_id: number; destination_rse_id: number }>(
        'SELECT * FROM links ORDER BY id',
      )
      const [first] = ends
      const beyond = await decisionsBeyond(world.db.read)
      expect(beyond).to.have.length(1)
      await world.db.write(e => pruneDecisions(e, 30, beyond))
      const at = { sourceId: first?.source_rse_id ?? 0, destinationId: first?.destination_rse_id ?? 0 }
      const kept = await decisionsOf(world.db.read, at, 10_000)
      expect([kept.length, kept.at(-1)?.at]).to.deep.equal([KEPT_DECISIONS.each - 9, 30])
    })
  })
}
