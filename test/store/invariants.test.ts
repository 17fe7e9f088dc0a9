import { expect } from 'chai'
import fc from 'fast-check'
import { reaper } from '../../server/deletion/reaper.ts'
import { declareReplicas } from '../../server/faults/declare.ts'
import { setKept } from '../../server/faults/declare-store.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { closeLink, putLink } from '../../server/storages/store.ts'
import { claimTasks, filesOfTasks } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { hopKeeper } from '../../server/transfers/hops.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { databases } from './databases.ts'
import { brokenInvariants } from './invariants.ts'
import { FENCE_BASE, World } from './world.ts'

const RETRY = { maxAttempts: 2, soon: 5_000, later: 60_000, maxDelay: 60_000 }
const FAILURE = { scope: 'SOURCE', phase: 'TRANSFER', code: 'STORAGE_ERROR', message: '500', retryable: true } as const

const session = fc.nat(1)
const result = fc.constantFrom(
  ...(['done', 'done', 'failed', 'failed', 'failed', 'unknown', 'handed-back', 'absent', 'growing'] as const),
)

/** Rules are on these; a container holds a container and datasets, and files are in several datasets. */
const DIDS = ['d0', 'd1', 'd2', 'inner', 'outer'] as const
/** What may be attached to what, and detached. */
const PAIRS = [
  ['outer', 'inner'],
  ['outer', 'd0'],
  ['outer', 'd2'],
  ['inner', 'd0'],
  ['inner', 'd1'],
  ['d0', 'd0.f0'],
  ['d0', 'd1.f0'],
  ['d1', 'd0.f0'],
  ['d1', 'd1.f0'],
  ['d2', 'd0.f0'],
] as const

/** What may happen, in any order. Numbers pick one of what there is. */
const action = fc.oneof(
  fc.record({
    do: fc.constant('rule' as const),
    did: fc.nat(DIDS.length - 1),
    at: fc.nat(3),
    priority: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ do: fc.constant('remove' as const), which: fc.nat(5) }),
  fc.record({ do: fc.constant('attach' as const), dataset: fc.nat(2) }),
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('put' as const, 'detach' as const), pair: fc.nat(PAIRS.length - 1) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('evaluate' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('claim' as const), session, limit: fc.integer({ min: 1, max: 9 }) }),
  },
  {
    weight: 9,
    arbitrary: fc.record({
      do: fc.constant('report' as const),
      session,
      result,
      share: fc.integer({ min: 1, max: 3 }),
    }),
  },
  fc.record({ do: fc.constant('lose' as const), session }),
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('declare' as const),
      as: fc.constantFrom('BAD', 'LOST', 'GOOD'),
      at: fc.nat(2),
      file: fc.nat(11),
      last: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('release' as const), dataset: fc.nat(2), kept: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('tend' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('work' as const),
      session,
      told: fc.constantFrom('done', 'done', 'SOURCE_MISSING', 'SOURCE_CORRUPT', 'STORAGE_ERROR'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('link' as const), from: fc.nat(2), to: fc.nat(2), open: fc.boolean() }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 6, 90, 700, 90_000) }),
  },
)
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never

for (const { name, open } of databases) {
  describe(`the store on ${name}`, () => {
    it('keeps its invariants through anything that happens', async function () {
      this.timeout(300_000)
      await fc.assert(
        fc.asyncProperty(fc.array(action, { minLength: 10, maxLength: 40, size: 'max' }), async actions => {
          const { db, drop } = await open()
          try {
            const story = await Story.begin(
              await World.make(db, { rses: ['A', 'B', 'C'], storageLimit: 6, linkLimit: 5 }),
            )
            await story.letThrough()
            for (const [i, step] of actions.entries()) {
              await story.play(step)
              expect(await brokenInvariants(story.world), `after step ${i}`).to.deep.equal([])
            }
          } finally {
            await drop()
          }
        }),
        { numRuns: 40 },
      )
    })
  })
}

class Story {
  readonly world: World
  readonly #sessions: number[]
  #files = 0

  private constructor(world: World, sessions: number[]) {
    this.world = world
    this.#sessions = sessions
  }

  static async begin(world: World): Promise<Story> {
    for (const dataset of ['d0', 'd1', 'd2']) await world.dataset(dataset, 4, 'A')
    await world.container('inner', ['s:d1'])
    await world.container('outer', ['s:inner', 's:d2'])
    await world.addRule('d0', 'B', 1)
    await world.addRule('outer', 'B|C', 1)
    await world.addRule('d1', 'B|C', 2)
    await world.evaluate()
    await world.grantAll()
    return new Story(world, [await world.openSession(), await world.openSession()])
  }

  /** From A to C copies go over B. */
  async letThrough(): Promise<void> {
    await this.world.change('UPDATE rses SET multihop = true')
    const [sourceId = 0, , destinationId = 0] = await this.#rses(0, 1, 2)
    await this.world.db.write(e => closeLink(e, sourceId, destinationId))
    this.world.context.storages.forget()
  }

  async play(step: Action): Promise<void> {
    const { world } = this
    const { db, clock } = world
    switch (step.do) {
      case 'rule': {
        const [at = 'B', copies = 1] = ([['B'], ['C'], ['B|C', 2], ['A|B|C', 2]] as const)[step.at] ?? []
        await world.addRule(DIDS[step.did] ?? 'd0', at, copies, step.priority).catch(() => undefined)
        return
      }
      case 'remove': {
        const rules = await world.rows<{ id: number }>("SELECT id FROM rules WHERE stage <> 'REMOVING'")
        const rule = rules[step.which % Math.max(1, rules.length)]
        if (rule !== undefined) await db.write(e => startRemoval(e, rule.id, clock.now()))
        return
      }
      case 'attach':
        this.#files += 1
        return world.attach(`d${step.dataset}`, `new${this.#files}`, 'A')
      case 'put':
      case 'detach': {
        const [parent, child] = PAIRS[step.pair] ?? PAIRS[0]
        return world[step.do](parent, child)
      }
      case 'evaluate':
        await world.evaluate()
        return world.grantAll()
      case 'claim': {
        const session = this.#sessions[step.session] ?? 0
        const settled = await db.write(e =>
          claimToSettle(e, { sessionId: session, fenceBase: FENCE_BASE }, step.limit, clock.now()),
        )
        if (settled.length < step.limit) await world.claim(session, step.limit - settled.length)
        return
      }
      case 'report':
        return this.#report(this.#sessions[step.session] ?? 0, step.result, step.share)
      case 'declare': {
        const rse = await world.rse(['A', 'B', 'C'][step.at] ?? '')
        const did = `s:d${Math.floor(step.file / 4)}.f${step.file % 4}`
        const given = {
          rse,
          as: step.as,
          last: step.last,
          reason: '',
          accountId: world.accountId,
          demand: async () => undefined,
        }
        await db.write(e => declareReplicas(e, { ...given, files: [{ did }], first: 0 }, clock.now()))
        return
      }
      case 'release': {
        const rse = await world.rse('A')
        const files = [0, 1, 2, 3].map(i => world.didId(`d${step.dataset}.f${i}`))
        const ids = await Promise.all(files)
        await db.write(e => setKept(e, rse.id, ids, step.kept, clock.now()))
        return
      }
      case 'tend':
        await world.run(recoverer)
        return world.run(context => reaper(context, 0))
      case 'work':
        return this.#work(this.#sessions[step.session] ?? 0, step.told)
      case 'lose':
        await db.write(e => endSession(e, this.#sessions[step.session] ?? 0, clock.now(), clock.now()))
        this.#sessions[step.session] = await world.openSession()
        return
      case 'link': {
        const [sourceId = 0, destinationId = 0] = await this.#rses(step.from, step.to)
        const way = { sourceId, destinationId, distance: 1, maxActive: 5, optimize: false }
        if (!step.open) await db.write(e => closeLink(e, sourceId, destinationId))
        else if (sourceId !== destinationId) await db.write(e => putLink(e, way))
        return
      }
      case 'wait': {
        await clock.advance(step.seconds * 1000)
        await world.run(ruleRepairer)
        await world.run(hopKeeper)
        await world.run(transferReleaser)
        return world.grantAll()
      }
    }
  }

  /** A worker takes the next tasks at storages, and tells the same of all their files. */
  async #work(sessionId: number, told: 'done' | 'SOURCE_MISSING' | 'SOURCE_CORRUPT' | 'STORAGE_ERROR'): Promise<void> {
    const { db, clock, context } = this.world
    const tasks = await db.write(e => claimTasks(e, { sessionId }, 10, clock.now()))
    for (const { id, fence, kind } of tasks) {
      const files = await filesOfTasks(db.read, [id])
      // What is missing is deleted.
      const failed = told !== 'done' && (kind === 'look' || told === 'STORAGE_ERROR')
      const error = { ...FAILURE, code: told, retryable: false }
      const results = files.map(({ replica_id: file }) => ({
        ...{ file, result: failed ? ('failed' as const) : ('done' as const), ...(failed && { error }) },
      }))
      await takeReport(context as TokenContext, RETRY, id, { session: sessionId, fence, forgotten: false, results })
    }
  }

  async #rses(...places: number[]): Promise<number[]> {
    const rses = await Promise.all(['A', 'B', 'C'].map(name => this.world.rse(name)))
    return places.map(place => rses[place]?.id ?? 0)
  }

  async #report(session: number, result: ReportedOutcome['result'], share: number): Promise<void> {
    const held = await this.world.rows<{ id: number; fence: number }>(
      'SELECT id, fence FROM transfers WHERE session_id = :session',
      { session },
    )
    const some = held.filter((_, i) => i % share === 0)
    const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: true, left: 'nothing' as const }
    const outcomes = some.map(({ id: transfer, fence }) => ({
      transfer,
      fence,
      result,
      ...numbers,
      ...(result === 'failed' ? { error: FAILURE } : {}),
    }))
    await applyOutcomes(this.world.context, RETRY, session, outcomes)
  }
}
