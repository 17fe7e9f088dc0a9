import { holdChildren, holdContents, insertContents } from '../../server/catalogue/contents-store.ts'
import { planFiles } from '../../server/catalogue/upload-store.ts'
import { queryOne } from '../../server/database/sql.ts'
import { reevaluateRules } from '../../server/rules/reevaluate.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { closeLink, putAttribute } from '../../server/storages/store.ts'
import { refreshReady } from '../../server/tokens/grant-store.ts'
import { claimToSettle } from '../../server/transfers/claim.ts'
import { hopKeeper, planHops } from '../../server/transfers/hops.ts'
import type { ReportedOutcome } from '../../server/transfers/outcome-decision.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { grantPermit } from '../../server/transfers/permits.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { moveQueued, settleLeft } from '../../server/transfers/replan-store.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { sourceSetKeeper } from '../../server/transfers/source-sets.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import { FAILURE, FENCE_BASE, type World } from './world.ts'

/** Two things that happen at once, to a database as `begin` left it. */
export interface Encounter {
  readonly begin: (world: World) => Promise<unknown>
  /** Stopped before each of its statements in turn, while `other` runs as far as it gets. */
  readonly stopped: (world: World) => Promise<unknown>
  readonly other: (world: World) => Promise<unknown>
  /** How long the first is stopped while the other gets no further. Milliseconds. */
  readonly patience?: number
  /** What the next rounds of the services do. */
  readonly afterwards?: (world: World) => Promise<unknown>
  /** What must hold then beside the invariants; a sentence where it does not. */
  readonly broken?: (world: World) => Promise<string | undefined>
}

const report =
  (world: World, result: ReportedOutcome['result'], sessionId = 1, error?: ReportedOutcome['error']) =>
  async (): Promise<unknown> => {
    const held = await world.rows<{ id: number; fence: number }>(
      'SELECT id, fence FROM transfers WHERE session_id = :sessionId ORDER BY id',
      { sessionId },
    )
    const common = { mode: 'pull' as const, cleaned: false, left: 'nothing' as const }
    const numbers = { durationMs: 1, endedMsAgo: 0, bytes: 1, ...common, result }
    const outcomes = held.map(({ id: transfer, fence }) => ({ transfer, fence, ...numbers, ...(error && { error }) }))
    return applyOutcomes(world.context, DEFAULT_RETRY_POLICY, sessionId, outcomes)
  }
const settleAs = (world: World, sessionId: number): Promise<unknown> =>
  world.db.write(e => claimToSettle(e, { sessionId, fenceBase: FENCE_BASE }, 100, world.clock.now()))
const live = (world: World, purpose: string): Promise<unknown> =>
  world.db.write(async e => {
    const grant = await queryOne<{ id: number }>(
      e,
      "UPDATE grants SET state = 'LIVE', generation = 1 WHERE purpose = :purpose RETURNING id",
      { purpose },
    )
    await refreshReady(e, [grant?.id ?? 0])
  })

/** Four files of one dataset, wanted at B by rule 1, whose transfers session 1 has claimed. Session 2 is there too. */
async function claimed(world: World): Promise<void> {
  await world.dataset('d', 4, 'A')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.grantAll()
  await world.openSession()
  await world.openSession()
  await world.claim(1, 100)
}

/** As `claimed`, but nobody has noticed yet that nothing is queued any more. */
async function hinted(world: World): Promise<void> {
  await claimed(world)
  await world.change('UPDATE bundles SET has_work = true')
  await world.change('UPDATE links SET has_work = true WHERE id IN (SELECT link_id FROM bundles)')
}

/** As `claimed`, but the only rule is gone, and there is another that is not evaluated yet. */
async function wantedAgain(world: World): Promise<void> {
  await claimed(world)
  await world.db.write(e => startRemoval(e, 1, world.clock.now()))
  await world.evaluate()
  await world.addRule('d', 'B', 1)
}

/** Four files that A and C have are queued from A to B. */
async function twoSources(world: World): Promise<void> {
  await world.dataset('d', 4, 'A')
  await world.dataset('d', 4, 'C')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.grantAll()
  for (let i = 0; i < 2; i += 1) await world.openSession()
}

/** Two of them leave A for C, as the service does it. */
async function moveSome(world: World): Promise<void> {
  const [link] = await world.rows<{ id: number; source: number }>(
    'SELECT DISTINCT link_id AS id, source_rse_id AS source FROM bundles JOIN links ON links.id = link_id WHERE links.has_work',
  )
  if (link === undefined) return
  const leaving = { linkId: link.id, sourceId: link.source, run: undefined, code: 'SOURCE_SLOW', message: '' } as const
  const left = await world.db.write(e => moveQueued(e, [1, 2], leaving, world.clock.now()))
  await world.db.write(e => settleLeft(e, link.id, left))
}

/** Two files that can go from A to B over C only, and that rule 1 wants there. */
async function apart(world: World): Promise<void> {
  await world.dataset('d', 2, 'A')
  await world.change("UPDATE rses SET multihop = true WHERE name = 'C'")
  const { id: sourceId } = await world.rse('A')
  const { id: destinationId } = await world.rse('B')
  await world.db.write(e => closeLink(e, sourceId, destinationId))
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  for (let i = 0; i < 2; i += 1) await world.openSession()
}

/** As `apart`, and session 1 has what brings them to C. */
async function halfway(world: World): Promise<void> {
  await apart(world)
  world.context.storages.forget()
  await world.run(transferReleaser)
  await world.grantAll()
  await world.claim(1, 100)
}

/** Two files that A has refused both to B and to C, which are on each other's way. */
async function refused(world: World): Promise<void> {
  await world.dataset('d', 2, 'A')
  await world.change("UPDATE rses SET multihop = true WHERE name IN ('B', 'C')")
  world.context.storages.forget()
  for (const rse of ['B', 'C']) await world.addRule('d', rse, 1)
  await world.evaluate()
  await world.grantAll()
  await world.openSession()
  await world.claim(1, 100)
  const error = { ...FAILURE, scope: 'SOURCE', code: 'SOURCE_MISSING', retryable: false } as const
  await report(world, 'failed', 1, error)()
  await world.change('UPDATE transfers SET not_before = 0')
}

const planTo =
  (rse: string) =>
  async (world: World): Promise<unknown> => {
    const rows = await world.rows<{ id: number }>(
      'SELECT transfers.id FROM transfers JOIN rses ON rses.id = destination_rse_id WHERE rses.name = :rse',
      { rse },
    )
    return planHops(
      world.context,
      rows.map(row => row.id),
      world.clock.now(),
    )
  }

/** Four files that A and C have, wanted at B by a rule that is not evaluated yet: from storages of tier 1, as A is. */
async function fromTier(world: World): Promise<void> {
  await world.dataset('d', 4, 'A')
  await world.dataset('d', 4, 'C')
  const { id } = await world.rse('A')
  await world.db.write(e => putAttribute(e, id, 'tier', 1))
  world.context.storages.forget()
  world.sources = 'tier=1'
  await world.addRule('d', 'B', 1)
}

/** Now C is of tier 1, and A is not. */
async function tierMoves(world: World): Promise<void> {
  const [a, c] = [await world.rse('A'), await world.rse('C')]
  await world.db.write(async e => {
    await putAttribute(e, a.id, 'tier', 2)
    await putAttribute(e, c.id, 'tier', 1)
  })
  world.context.storages.forget()
  await world.run(sourceSetKeeper)
}

async function tierSettles(world: World): Promise<void> {
  world.context.storages.forget()
  await world.evaluate()
  await world.run(sourceSetKeeper)
  await world.run(transferReleaser)
  await world.grantAll()
}

async function fromTierOne(world: World): Promise<string | undefined> {
  const found = await world.rows<{ name: string }>(
    "SELECT DISTINCT rses.name FROM transfers LEFT JOIN rses ON rses.id = source_rse_id WHERE transfers.state = 'QUEUED'",
  )
  return found.length === 1 && found[0]?.name === 'C' ? undefined : `queued from ${found.map(row => row.name).join()}`
}

async function removed(world: World): Promise<void> {
  await world.db.write(e => startRemoval(e, 1, world.clock.now()))
  await world.evaluate()
}

async function hopsKept(world: World): Promise<void> {
  await world.evaluate()
  await world.run(hopKeeper)
  await world.run(transferReleaser)
  await world.run(hopKeeper)
  await world.grantAll()
}

/** Of files that nobody wants any more, at C. */
async function heldAtC(world: World): Promise<string | undefined> {
  const held = await world.number(
    `SELECT count(*) AS n FROM replicas JOIN rses ON rses.id = rse_id AND rses.name = 'C' WHERE lock_count > 0`,
  )
  return held === 0 ? undefined : `${held} replicas between are still held`
}

const failFrom = (world: World, sessionId: number): Promise<unknown> =>
  report(world, 'failed', sessionId, { ...FAILURE, scope: 'SOURCE', code: 'CONNECT_FAILED' })()

export const ENCOUNTERS: Readonly<Record<string, Encounter>> = {
  'the tokens of both sides of a bundle arrive': {
    async begin(world) {
      await claimed(world)
      await world.change("UPDATE grants SET state = 'WANTED'")
      await world.change('UPDATE bundles SET ready = false')
    },
    stopped: world => live(world, 'read'),
    other: world => live(world, 'write'),
  },
  'a second rule locks replicas that are just arriving': {
    async begin(world) {
      await claimed(world)
      await world.addRule('d', 'A|B', 2)
    },
    stopped: world => world.evaluate(),
    other: world => report(world, 'done')(),
  },
  'replicas arrive that a second rule is just locking': {
    async begin(world) {
      await claimed(world)
      await world.addRule('d', 'A|B', 2)
    },
    stopped: world => report(world, 'done')(),
    other: world => world.evaluate(),
  },
  'a claim finds a bundle dry to which work comes back': {
    begin: hinted,
    stopped: world => world.claim(2, 100),
    other: world => report(world, 'handed-back')(),
  },
  'work comes back to a bundle that a claim finds dry': {
    begin: hinted,
    stopped: world => report(world, 'handed-back')(),
    other: world => world.claim(2, 100),
  },
  'work is planned into a bundle that a claim finds dry': {
    async begin(world) {
      await hinted(world)
      await world.attach('d', 'late', 'A')
    },
    stopped: world => world.claim(2, 100),
    other: world => world.evaluate(),
    afterwards: world => world.evaluate(),
  },
  'queued transfers are moved to another source while they are claimed': {
    begin: twoSources,
    stopped: moveSome,
    other: world => world.claim(2, 3),
    afterwards: world => world.grantAll(),
    broken: movedAndClaimed,
  },
  'a claim meets transfers that are just moved to another source': {
    begin: twoSources,
    stopped: world => world.claim(2, 3),
    other: moveSome,
    afterwards: world => world.grantAll(),
    broken: movedAndClaimed,
  },
  'work comes to a bundle that another source was taken for': {
    async begin(world) {
      await twoSources(world)
      await world.attach('d', 'late', 'A')
    },
    stopped: moveSome,
    other: world => world.evaluate(),
    afterwards: world => world.evaluate(),
  },
  'two servers hear of failures of one source': {
    async begin(world) {
      await twoSources(world)
      await world.claim(1, 2)
      await world.claim(2, 2)
    },
    stopped: world => failFrom(world, 1),
    other: world => failFrom(world, 2),
    async broken(world) {
      const failures = await world.number('SELECT failures AS n FROM link_health')
      return failures === 4 ? undefined : `${failures} failures were counted of 4`
    },
  },
  'a server hears of failures of a source from which another has just heard of a success': {
    async begin(world) {
      await twoSources(world)
      await world.claim(1, 2)
      await world.claim(2, 2)
      await world.change(
        `INSERT INTO link_health (link_id, since, failed_at, gave_at, failures, successes, confirmed, session_id, holds, held_until, code, message)
         SELECT min(link_id), :now, :now, 0, 9, 0, true, 1, 0, 0, 'X', 'x' FROM bundles`,
        { now: world.clock.now() },
      )
    },
    stopped: world => failFrom(world, 1),
    other: world => report(world, 'done', 2)(),
    async broken(world) {
      const [row] = await world.rows<{ failures: number; holds: number }>('SELECT failures, holds FROM link_health')
      return (row?.holds ?? 0) > 0 || row?.failures === 2 ? undefined : `a run of ${row?.failures}`
    },
  },
  'a rule wants what is handed back and wanted by nobody any more': {
    begin: wantedAgain,
    stopped: world => report(world, 'handed-back')(),
    other: world => world.evaluate(),
    afterwards: world => world.evaluate(),
  },
  'what a new rule wants is handed back as wanted by nobody': {
    begin: wantedAgain,
    stopped: world => world.evaluate(),
    other: world => report(world, 'handed-back')(),
    afterwards: world => world.evaluate(),
  },
  'a rule is removed whose files are just arriving': {
    async begin(world) {
      await claimed(world)
      await world.db.write(e => startRemoval(e, 1, world.clock.now()))
    },
    stopped: world => world.evaluate(),
    other: world => report(world, 'done')(),
    afterwards: world => world.evaluate(),
  },
  'a rule is removed while it is expanded': {
    async begin(world) {
      await claimed(world)
      await world.addRule('d', 'A|B', 2)
    },
    stopped: world => world.evaluate(),
    other: world => world.db.write(e => startRemoval(e, 2, world.clock.now())),
    afterwards: world => world.evaluate(),
    broken: async world => ((await world.number('SELECT count(*) AS n FROM rules')) === 1 ? undefined : 'it is there'),
  },
  'a rule is repaired while another transfer of it fails': {
    async begin(world) {
      await claimed(world)
      await world.change("UPDATE transfers SET state = 'FAILED', session_id = NULL WHERE id < 3")
      await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE file_id IN (1, 2) AND rse_id = 2")
      await world.change(`UPDATE locks SET state = 'STUCK' WHERE replica_id IN
        (SELECT id FROM replicas WHERE file_id IN (1, 2) AND rse_id = 2)`)
      await world.change(`UPDATE rules SET state = 'STUCK', locks_stuck = 2, locks_replicating = 2, repair_at = 1`)
    },
    stopped: world => world.run(ruleRepairer),
    other: world => report(world, 'done')(),
    afterwards: world => world.run(transferReleaser),
  },
  'a clean-up is permitted to a session that ends, and the transfer settled by another': {
    begin: claimed,
    stopped: permit,
    async other(world) {
      await world.db.write(e => endSession(e, 1, world.clock.now(), world.clock.now()))
      await settleAs(world, 2)
    },
    async broken(world) {
      const both = await world.rows(
        `SELECT transfers.id FROM transfers JOIN permits ON permits.transfer_id = transfers.id
          WHERE transfers.session_id = 2 AND permits.fence < transfers.fence`,
      )
      return both.length === 0 ? undefined : 'a DELETE may come while another settles'
    },
  },
  'a person reserves paths that are just claimed': {
    async begin(world) {
      await claimed(world)
      await report(world, 'handed-back')()
    },
    stopped: world => world.claim(2, 100),
    other: reserve,
    broken: reservedAndClaimed,
  },
  'a claim meets paths that a person is just reserving': {
    async begin(world) {
      await claimed(world)
      await report(world, 'handed-back')()
    },
    stopped: reserve,
    other: world => world.claim(2, 100),
    broken: reservedAndClaimed,
  },
  'files are sent over another storage whose rule is removed': {
    begin: apart,
    stopped: world => world.run(transferReleaser),
    other: removed,
    afterwards: hopsKept,
    broken: heldAtC,
  },
  'two servers send the same files over another storage': {
    begin: apart,
    stopped: world => world.run(transferReleaser),
    other: world => world.run(transferReleaser),
    afterwards: hopsKept,
    async broken(world) {
      const hops = await world.number('SELECT count(*) AS n FROM hops')
      return hops === 2 ? undefined : `${hops} hops for 2 files`
    },
  },
  'two servers send files over the destinations of each other': {
    begin: refused,
    stopped: planTo('B'),
    other: planTo('C'),
    async broken(world) {
      const circles = await world.number(
        `SELECT count(*) AS n FROM hops AS one JOIN hops AS other ON other.transfer_id = one.carrier_id AND other.carrier_id = one.transfer_id
          WHERE one.look_at IS NOT NULL AND other.look_at IS NOT NULL`,
      )
      const hops = await world.number('SELECT count(*) AS n FROM hops')
      return circles === 0 && hops === 2 ? undefined : `${hops} hops, ${circles} of them in a circle`
    },
  },
  'a rule is removed whose files are just arriving at the storage between': {
    begin: halfway,
    stopped: removed,
    other: world => report(world, 'done')(),
    afterwards: hopsKept,
    broken: heldAtC,
  },
  'files arrive at the storage between that nobody wants any more': {
    async begin(world) {
      await halfway(world)
      await removed(world)
    },
    stopped: world => report(world, 'done')(),
    other: world => world.run(hopKeeper),
    afterwards: hopsKept,
    broken: heldAtC,
  },
  'files at the storage between are let go while another rule comes to want them there': {
    async begin(world) {
      await halfway(world)
      await removed(world)
      await world.addRule('d', 'C', 1)
    },
    stopped: world => world.run(hopKeeper),
    other: world => world.evaluate(),
    afterwards: hopsKept,
    async broken(world) {
      const locks = await world.number('SELECT sum(lock_count) AS n FROM replicas')
      return Number(locks) === 2 ? undefined : `${locks} locks for 2 files`
    },
  },
  'transfers are opened while a storage leaves their sources': {
    begin: fromTier,
    stopped: world => world.evaluate(),
    other: tierMoves,
    afterwards: tierSettles,
    broken: fromTierOne,
  },
  'a storage leaves the sources of transfers that are just opened': {
    begin: fromTier,
    stopped: tierMoves,
    other: world => world.evaluate(),
    afterwards: tierSettles,
    broken: fromTierOne,
  },
  'transfers are planned while a storage leaves their sources': {
    async begin(world) {
      await fromTier(world)
      await world.evaluate()
      await world.change("UPDATE transfers SET state = 'WAITING', not_before = 0")
    },
    stopped: world => world.run(transferReleaser),
    other: tierMoves,
    afterwards: tierSettles,
    broken: fromTierOne,
  },
  'a dataset is attached to a container while a file is attached to it': {
    async begin(world) {
      await world.dataset('d', 4, 'A')
      await world.dataset('other', 1, 'A')
      await world.container('c', ['s:other'])
      await world.addRule('c', 'B', 1)
      await world.evaluate()
    },
    stopped: world => world.attach('d', 'late', 'A'),
    async other(world) {
      const [container, dataset] = [await world.didId('c'), await world.didId('d')]
      await world.db.write(async e => {
        const parent = { id: container, type: 'CONTAINER' as const }
        await holdContents(e, parent)
        await holdChildren(e, parent, [dataset])
        await insertContents(e, container, [dataset])
        await reevaluateRules(e, parent, [dataset])
      })
      await world.evaluate()
    },
    afterwards: world => world.evaluate(),
    async broken(world) {
      const locks = await world.number('SELECT count(*) AS n FROM locks')
      return locks === 6 ? undefined : `the rule has ${locks} locks for 6 files`
    },
  },
  'a rule is added while a file is attached below it': {
    begin: world => world.dataset('d', 4, 'A'),
    stopped: world => world.attach('d', 'late', 'A'),
    async other(world) {
      await world.addRule('d', 'B', 1)
      await world.evaluate()
    },
    afterwards: world => world.evaluate(),
    async broken(world) {
      const locks = await world.number('SELECT count(*) AS n FROM locks')
      return locks === 5 ? undefined : `the rule has ${locks} locks for 5 files`
    },
  },
  'a file is attached while a rule above it is added': {
    begin: world => world.dataset('d', 4, 'A'),
    stopped: world => world.addRule('d', 'B', 1),
    async other(world) {
      await world.attach('d', 'late', 'A')
      await world.evaluate()
    },
    afterwards: world => world.evaluate(),
    async broken(world) {
      const locks = await world.number('SELECT count(*) AS n FROM locks')
      return locks === 5 ? undefined : `the rule has ${locks} locks for 5 files`
    },
  },
}

/** As the plan of `upload --replace` does. */
async function reserve(world: World): Promise<unknown> {
  const files = await world.rows<{ file_id: number }>(
    'SELECT file_id FROM transfers JOIN replicas ON replicas.id = replica_id',
  )
  const plan = {
    rseId: (await world.rse('B')).id,
    accountId: world.accountId,
    fileIds: files.map(row => row.file_id),
    expiresAt: world.clock.now() + 60_000,
    replace: true,
  }
  return world.db.write(e => planFiles(e, plan, world.clock.now())).catch(codeOf)
}

/** By session 1, which may have written what lies there. */
async function permit(world: World): Promise<unknown> {
  const [row] = await world.rows<{ id: number; fence: number }>('SELECT id, fence FROM transfers ORDER BY id')
  const held = { sessionId: 1, transfer: row?.id ?? 0, fence: row?.fence ?? 0, written: true }
  return world.db.write(e => grantPermit(e, held, world.clock.now())).catch(codeOf)
}

async function movedAndClaimed(world: World): Promise<string | undefined> {
  const rows = await world.rows("SELECT id FROM transfers WHERE state = 'CLAIMED' AND replan_id IS NOT NULL")
  return rows.length === 0 ? undefined : 'a transfer was moved under a worker’s hands'
}

async function reservedAndClaimed(world: World): Promise<string | undefined> {
  const both = await world.rows("SELECT id FROM transfers, permits WHERE transfers.state = 'CLAIMED'")
  return both.length === 0 ? undefined : 'a worker writes where a person may delete'
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'refused'
}
