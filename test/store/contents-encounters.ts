import { startRemoval } from '../../server/rules/step-store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { Encounter } from './encounters.ts'
import type { World } from './world.ts'

/** What is in collections changes while rules are worked off. That rules are whole, and have nothing too much, the invariants say. */

/** A rule on `outer`, which holds `inner`, which holds the datasets `d` and `e`; one file is in both. */
async function nested(world: World): Promise<void> {
  for (const dataset of ['d', 'e']) await world.dataset(dataset, 2, 'A')
  await world.put('e', 'd.f0')
  await world.container('inner', ['s:d', 's:e'])
  await world.container('outer', ['s:inner'])
  await world.addRule('outer', 'B|C', 1)
}

async function evaluated(world: World): Promise<void> {
  await nested(world)
  await world.evaluate()
}

/** `inner` is in nothing. The rule is on what will hold it. */
async function apart(world: World): Promise<void> {
  await evaluated(world)
  await world.detach('outer', 'inner')
  await world.evaluate()
}

/** Somebody works off what there is, as it goes. */
const evaluate = (world: World): Promise<void> => world.evaluate()

async function settled(world: World): Promise<string | undefined> {
  const waiting = await world.number(
    `SELECT (SELECT count(*) FROM detached) + (SELECT count(*) FROM rules WHERE stage <> 'EXPANDED') AS n`,
  )
  return waiting === 0 ? undefined : 'work is left that nobody does'
}

type Deed = (world: World) => Promise<unknown>

const andEvaluate =
  (deed: Deed): Deed =>
  async world => {
    await deed(world)
    await world.evaluate()
  }

/** Enough for the other to be evaluated to its end. Milliseconds. */
const LONG = 400

/** One is stopped while the other runs, and what comes of it. */
function whenever(name: string, begin: Deed, stopped: Deed, other: Deed, patience?: number): [string, Encounter] {
  const waits = patience === undefined ? {} : { patience }
  return [name, { begin, stopped, other: andEvaluate(other), afterwards: evaluate, broken: settled, ...waits }]
}

/** Also the other way round. */
function bothWays(name: string, begin: Deed, one: Deed, other: Deed): [string, Encounter][] {
  return [whenever(name, begin, one, other), whenever(`${name}, and stopped itself`, begin, other, one)]
}

const put =
  (parent: string, child: string): Deed =>
  world =>
    world.put(parent, child)
const detach =
  (parent: string, child: string): Deed =>
  world =>
    world.detach(parent, child)
const afterDetaching =
  (parent: string, child: string): Deed =>
  async world => {
    await evaluated(world)
    await world.detach(parent, child)
  }

const removal: Deed = world => world.db.write(e => startRemoval(e, 1, world.clock.now()))

async function arrived(world: World): Promise<void> {
  const held = await world.rows<{ id: number; fence: number }>('SELECT id, fence FROM transfers WHERE session_id = 1')
  const result = { durationMs: 1, endedMsAgo: 0, bytes: 1, mode: 'pull', cleaned: false, left: 'nothing' } as const
  const outcomes = held.map(({ id: transfer, fence }) => ({ transfer, fence, result: 'done' as const, ...result }))
  await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, 1, outcomes)
}

export const CONTENTS_ENCOUNTERS: Readonly<Record<string, Encounter>> = Object.fromEntries([
  whenever('a rule is expanded from which a file is detached', nested, detach('d', 'd.f0'), evaluate),
  ...bothWays('a rule is expanded from which a dataset is detached', nested, detach('inner', 'd'), evaluate),
  ...bothWays(
    'a file is attached again that is just let go of',
    afterDetaching('d', 'd.f1'),
    evaluate,
    put('d', 'd.f1'),
  ),
  ...bothWays(
    'a dataset is attached again that is just let go of',
    afterDetaching('inner', 'd'),
    evaluate,
    put('inner', 'd'),
  ),
  ...bothWays(
    'a dataset is detached from a container that is just let go of',
    afterDetaching('outer', 'inner'),
    evaluate,
    detach('inner', 'd'),
  ),
  ...bothWays(
    'a file is detached from a dataset that is just let go of',
    afterDetaching('inner', 'd'),
    evaluate,
    detach('d', 'd.f1'),
  ),
  ...bothWays(
    'a file is detached from a dataset that is detached',
    evaluated,
    detach('inner', 'd'),
    detach('d', 'd.f1'),
  ),
  ...bothWays(
    'a file is detached from a dataset whose container is detached',
    evaluated,
    detach('outer', 'inner'),
    detach('d', 'd.f1'),
  ),
  ...bothWays('a file is attached to a dataset that is detached', evaluated, detach('inner', 'd'), put('d', 'e.f1')),
  whenever(
    'a container is attached while a file is detached from a dataset in it',
    apart,
    detach('d', 'd.f1'),
    put('outer', 'inner'),
    LONG,
  ),
  whenever(
    'a container is attached while a file is attached to a dataset in it',
    apart,
    put('d', 'e.f1'),
    put('outer', 'inner'),
    LONG,
  ),
  whenever(
    'a file is detached from a dataset whose container is just attached',
    apart,
    put('outer', 'inner'),
    detach('d', 'd.f1'),
  ),
  ...bothWays(
    'a file is detached from a dataset that a rule is added above',
    evaluated,
    world => world.addRule('inner', 'B', 1),
    detach('d', 'd.f1'),
  ),
  ...bothWays(
    'files arrive that a rule lets go of',
    async world => {
      await evaluated(world)
      await world.grantAll()
      await world.openSession()
      await world.claim(1, 100)
      await world.detach('inner', 'd')
    },
    evaluate,
    arrived,
  ),
  whenever('two servers let go of a container', afterDetaching('outer', 'inner'), evaluate, evaluate),
  ...bothWays('a rule is removed from which a dataset is detached', evaluated, detach('inner', 'd'), removal),
])
