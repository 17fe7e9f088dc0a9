import { expect } from 'chai'
import { claimWork } from '../../server/transfers/claim-work.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { databases, type TestDatabase } from './databases.ts'
import { FENCE_BASE, World } from './world.ts'

const PLACES = 12
/** What is queued at each source for the shared destination, and for how many rounds a file from there is copied. */
const LINKS = {
  SLOW: { files: 300, rounds: 20 },
  FAST: { files: 500, rounds: 1 },
  SMALL: { files: 60, rounds: 4 },
} as const
type Source = keyof typeof LINKS
const SOURCES = Object.keys(LINKS) as Source[]
const ROUNDS = 60

for (const { name, open } of databases) {
  describe(`links into one storage, on ${name}`, () => {
    let test: TestDatabase
    let world: World

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: [...SOURCES, 'TARGET'], storageLimit: PLACES })
      for (const source of SOURCES) {
        await world.dataset(source, LINKS[source].files, source)
        await world.addRule(source, 'TARGET', 1)
      }
      await world.evaluate()
      await world.grantAll()
    })
    afterEach(() => test.drop())

    /** The active transfers of each link after each round, when what is free was claimed by a worker that takes all it gets. */
    async function run(): Promise<Record<Source, number>[]> {
      const sessionId = await world.openSession(1e9)
      const ids = new Map<number, Source>()
      for (const source of SOURCES) ids.set((await world.rse(source)).id, source)
      const history: Record<Source, number>[] = []
      for (let round = 0; round < ROUNDS; round += 1) {
        for (;;) {
          const claimed = await claimWork(world.context, { sessionId, fenceBase: FENCE_BASE }, 1_000)
          if (claimed.length === 0) break
          await world.clock.advance(1)
        }
        const held = await world.rows<{ id: number; fence: number; source: number; claimed_at: number }>(
          "SELECT id, fence, source_rse_id AS source, claimed_at FROM transfers WHERE state = 'CLAIMED'",
        )
        const active = { SLOW: 0, FAST: 0, SMALL: 0 }
        for (const { source } of held) active[ids.get(source) ?? 'SLOW'] += 1
        history.push(active)
        await world.clock.advance(1_000)
        const now = world.clock.now()
        const over = held.filter(({ source, claimed_at }) => {
          const { rounds } = LINKS[ids.get(source) ?? 'SLOW']
          return now - claimed_at > (rounds - 0.5) * 1_000
        })
        const done = { result: 'done', mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false } as const
        const outcomes = over.map(({ id, fence }) => ({ transfer: id, fence, ...done, left: 'own' as const }))
        if (outcomes.length > 0) await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, sessionId, outcomes)
      }
      return history
    }

    it('have it full at any time, and each its share of the places, however fast they are and whatever waits', async () => {
      const history = await run()
      for (const active of history) expect(active.SLOW + active.FAST + active.SMALL).to.equal(PLACES)
      // Whoever came first has all places until its files are copied.
      const settled = history.slice(LINKS.SLOW.rounds + 5)
      for (const active of settled.slice(0, 8)) expect(active).to.deep.equal({ SLOW: 4, FAST: 4, SMALL: 4 })
      for (const active of settled) {
        expect(active.SLOW).to.be.at.least(4)
        expect(active.FAST).to.be.at.least(4)
      }
    }).timeout(60_000)

    it('share by their weights', async () => {
      const { id } = await world.rse('FAST')
      await world.change('UPDATE links SET weight = 4 WHERE source_rse_id = :id', { id })
      const [, ...history] = await run()
      expect(history[LINKS.SLOW.rounds + 5]).to.deep.equal({ SLOW: 2, FAST: 8, SMALL: 2 })
    }).timeout(60_000)
  })
}
