import { reaper } from '../../server/deletion/reaper.ts'
import type { Verdict } from '../../server/faults/decision.ts'
import { declareReplicas } from '../../server/faults/declare.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import type { Told } from '../../server/tasks/kinds.ts'
import { claimTasks, filesOfTasks } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { moveQueued } from '../../server/transfers/replan-store.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { Encounter } from './encounters.ts'
import { FAILURE, type World } from './world.ts'

/** Who may is asked elsewhere. */
const demand = async (): Promise<void> => undefined
const FILES = [0, 1, 2].map(i => ({ did: `s:d.f${i}` }))

const reap = (world: World): Promise<unknown> => world.run(context => reaper(context, 0))
const recover = (world: World): Promise<unknown> => world.run(recoverer)

const declare =
  (as: Verdict, at: string, last = false) =>
  async (world: World): Promise<unknown> => {
    const common = {
      rse: await world.rse(at),
      accountId: world.accountId,
      demand,
      reason: '',
      last,
      files: FILES,
      first: 0,
    }
    return world.db.write(e => declareReplicas(e, { ...common, as }, world.clock.now()))
  }

async function removed(world: World): Promise<void> {
  await world.db.write(e => startRemoval(e, 1, world.clock.now()))
  await world.evaluate()
}

/** What session 1 has is copied, or is not. */
async function report(world: World, result: 'done' | 'failed' = 'done', code?: 'SOURCE_CORRUPT'): Promise<unknown> {
  const held = await world.rows<{ id: number; fence: number }>('SELECT id, fence FROM transfers WHERE session_id = 1')
  const error = { ...FAILURE, scope: 'SOURCE', code: code ?? 'SOURCE_CORRUPT', retryable: false } as const
  const outcomes = held.map(({ id: transfer, fence }) => ({
    ...{ transfer, fence, result, left: 'nothing' as const, ...(result === 'failed' && { error }) },
    ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
  }))
  return applyOutcomes(world.context, DEFAULT_RETRY_POLICY, 1, outcomes)
}

/** Session 1 tells this of each file of its task. */
async function tell(world: World, result: Told['results'][number]['result'], error?: Told['error']): Promise<void> {
  const [task] = await world.rows<{ id: number; fence: number }>('SELECT id, fence FROM tasks WHERE session_id = 1')
  if (task === undefined) return
  const files = await filesOfTasks(world.db.read, [task.id])
  const results = files.map(({ replica_id: file }) => ({ file, result, ...(error && { error }) }))
  const told = { session: 1, fence: task.fence, forgotten: false, results }
  await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, told)
}

/** Three files that rule 1 has brought from A to B. */
async function copied(world: World): Promise<void> {
  await world.dataset('d', 3, 'A')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.openSession()
  await world.openSession()
  await world.grantAll()
  await world.claim(1, 100)
  await report(world)
}

/** As `copied`; those at B are BAD, and nobody has let go of those at A. */
async function bad(world: World): Promise<void> {
  await copied(world)
  await declare('BAD', 'B')(world)
}

/** As `bad`, and session 1 deletes them. */
async function deleting(world: World): Promise<void> {
  await bad(world)
  await recover(world)
  await world.db.write(e => claimTasks(e, { sessionId: 1 }, 10, world.clock.now()))
}

/** As `bad`, and session 1 looks whether they are. */
async function looking(world: World): Promise<void> {
  await bad(world)
  await declare('GOOD', 'B')(world)
  await world.db.write(e => claimTasks(e, { sessionId: 1 }, 10, world.clock.now()))
}

/** A and B have three files that rule 1 wants at C; what brings them from A is queued. */
async function twoSources(world: World): Promise<void> {
  await world.dataset('d', 3, 'A')
  await world.dataset('d', 3, 'B')
  await world.addRule('d', 'C', 1)
  await world.evaluate()
  await world.openSession()
  await world.openSession()
  await world.grantAll()
}

async function badSource(world: World): Promise<string | undefined> {
  const lost = await world.rows(
    `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = source_replica_id AND replicas.state <> 'AVAILABLE'
      WHERE transfers.state IN ('QUEUED', 'STAGING')`,
  )
  return lost.length === 0 ? undefined : `${lost.length} queued transfers have a source that is not good`
}

/** There is something left of each file: what is good, or else what is BAD. */
async function nothingLeft(world: World): Promise<string | undefined> {
  const gone = await world.rows(
    `SELECT id FROM dids WHERE type = 'FILE' AND NOT EXISTS
       (SELECT 1 FROM replicas WHERE file_id = dids.id AND state IN ('AVAILABLE', 'BAD'))`,
  )
  return gone.length === 0 ? undefined : `nothing is left of ${gone.length} files`
}

async function undone(world: World): Promise<string | undefined> {
  const good = await world.rows("SELECT id FROM replicas WHERE rse_id = 2 AND state <> 'BAD'")
  return good.length === 0 ? undefined : `${good.length} replicas are not BAD, as a person has said`
}

const evaluate = (world: World): Promise<unknown> => world.evaluate()
const both = (
  one: string,
  other: string,
  begin: Encounter['begin'],
  first: Encounter['stopped'],
  second: Encounter['stopped'],
  more: Pick<Encounter, 'afterwards' | 'broken'> = {},
): Record<string, Encounter> => ({
  [one]: { begin, stopped: first, other: second, ...more },
  [other]: { begin, stopped: second, other: first, ...more },
})

/** What is found, or said, of replicas, and their recovery, beside what rules and workers do. */
export const FAULT_ENCOUNTERS: Readonly<Record<string, Encounter>> = {
  ...both(
    'replicas are declared BAD from which copies are just planned',
    'copies are planned from what is just declared BAD',
    async world => {
      await world.dataset('d', 3, 'A')
      await world.addRule('d', 'C', 1)
    },
    evaluate,
    declare('BAD', 'A'),
    { broken: badSource },
  ),
  ...both(
    'replicas are declared lost from which transfers are just released',
    'transfers are released to what is just declared lost',
    async world => {
      await twoSources(world)
      await world.change("UPDATE transfers SET state = 'WAITING', not_before = 0")
    },
    world => world.run(transferReleaser),
    declare('LOST', 'A'),
    { broken: badSource },
  ),
  ...both(
    'replicas are declared BAD to which queued transfers are just moved',
    'queued transfers are moved to what is just declared BAD',
    twoSources,
    async world => {
      const [link] = await world.rows<{ id: number; source: number }>(
        'SELECT DISTINCT link_id AS id, source_rse_id AS source FROM bundles JOIN links ON links.id = link_id WHERE links.has_work',
      )
      const leaving = {
        linkId: link?.id ?? 0,
        sourceId: link?.source ?? 0,
        run: undefined,
        code: 'SOURCE_SLOW',
      } as const
      return world.db.write(e => moveQueued(e, [1, 2, 3], { ...leaving, message: '' }, world.clock.now()))
    },
    declare('BAD', 'B'),
    { broken: badSource },
  ),
  ...both(
    'replicas are declared BAD from which transfers are just claimed',
    'transfers are claimed from what is just declared BAD',
    twoSources,
    world => world.claim(1, 100),
    declare('BAD', 'A'),
    { broken: badSource },
  ),
  ...both(
    'replicas are declared lost that a rule is just locking',
    'a rule locks what is just declared lost',
    async world => {
      await copied(world)
      await world.addRule('d', 'A', 1)
    },
    evaluate,
    declare('LOST', 'A'),
    { afterwards: evaluate },
  ),
  ...both(
    'replicas are declared BAD that a rule is just locking',
    'a rule locks what is just declared BAD',
    async world => {
      await copied(world)
      await world.addRule('d', 'A', 1)
    },
    evaluate,
    declare('BAD', 'A'),
    { afterwards: evaluate },
  ),
  ...both(
    'replicas are declared lost whose rule is just removed',
    'a rule is removed whose replicas are just declared lost',
    copied,
    removed,
    declare('LOST', 'B'),
    { afterwards: evaluate },
  ),
  ...both(
    'BAD replicas are recovered whose rule is just removed',
    'a rule is removed whose BAD replicas are just recovered',
    bad,
    removed,
    recover,
    { afterwards: evaluate },
  ),
  ...both(
    'BAD replicas are recovered that a rule is just locking',
    'a rule locks what is just recovered',
    async world => {
      await bad(world)
      await world.addRule('d', 'A|B', 2)
    },
    evaluate,
    recover,
    { afterwards: evaluate },
  ),
  ...both(
    'the good copies are declared BAD from which others are just recovered',
    'BAD replicas are recovered from what is just declared BAD',
    bad,
    recover,
    declare('BAD', 'A'),
    { broken: nothingLeft },
  ),
  ...both(
    'the good copies are reaped from which others are just recovered',
    'BAD replicas are recovered from what is just reaped',
    async world => {
      await bad(world)
      await world.change('UPDATE replicas SET kept = false, tombstone_at = 0 WHERE rse_id = 1')
    },
    recover,
    reap,
    { broken: nothingLeft },
  ),
  ...both(
    'a person asks for a look at what is just recovered',
    'BAD replicas are recovered that a person just has looked at',
    bad,
    recover,
    declare('GOOD', 'B'),
  ),
  ...both(
    'a person declares BAD what is just found to be good',
    'what a person just declares BAD is found to be good',
    async world => {
      await copied(world)
      await declare('GOOD', 'B')(world)
      await world.db.write(e => claimTasks(e, { sessionId: 1 }, 10, world.clock.now()))
    },
    declare('BAD', 'B'),
    world => tell(world, 'done'),
    { broken: undone },
  ),
  'two servers recover the same': { begin: bad, stopped: recover, other: recover },
  ...both(
    'BAD replicas are gone whose rule is just removed',
    'a rule is removed whose BAD replicas are just gone',
    deleting,
    removed,
    world => tell(world, 'done'),
    { afterwards: evaluate },
  ),
  ...both(
    'BAD replicas are gone whose good copies are just declared lost',
    'the good copies are declared lost of what is just gone',
    deleting,
    declare('LOST', 'A'),
    world => tell(world, 'done'),
    { broken: badSource },
  ),
  ...both(
    'replicas are found to be good that a rule is just locking',
    'a rule locks what is just found to be good',
    async world => {
      await looking(world)
      await world.addRule('d', 'A|B', 2)
    },
    evaluate,
    world => tell(world, 'done'),
    { afterwards: evaluate },
  ),
  ...both(
    'replicas are found to be missing whose rule is just repaired',
    'a rule is repaired whose replicas are just found to be missing',
    async world => {
      await looking(world)
      await world.change('UPDATE rules SET repair_at = 1')
    },
    world => world.run(ruleRepairer),
    world => tell(world, 'failed', { ...FAILURE, scope: 'SOURCE', code: 'SOURCE_MISSING' }),
    { broken: badSource },
  ),
  ...both(
    'a worker finds a source corrupt that is just declared lost',
    'a source is declared lost that a worker just finds corrupt',
    async world => {
      await twoSources(world)
      await world.claim(1, 100)
    },
    declare('LOST', 'A'),
    world => report(world, 'failed', 'SOURCE_CORRUPT'),
    { broken: badSource },
  ),
  ...both(
    'replicas arrive from what is just declared BAD',
    'replicas are declared BAD from which others just arrive',
    async world => {
      await twoSources(world)
      await world.claim(1, 100)
    },
    declare('BAD', 'A'),
    world => report(world),
  ),
}
