import { planFiles } from '../../server/catalogue/upload-store.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { spareWanted, tellRules } from '../../server/deletion/spare.ts'
import { reapReplicas, tombstones } from '../../server/deletion/store.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { markTold } from '../../server/tasks/items.ts'
import type { Told } from '../../server/tasks/kinds.ts'
import { addToTask, claimTasks, filesOfTasks } from '../../server/tasks/store.ts'
import { takeReport } from '../../server/tasks/tasks.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { endSession } from '../../server/transfers/sessions.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { Encounter } from './encounters.ts'
import { FAILURE, type World } from './world.ts'

const reap = (world: World): Promise<unknown> => world.run(context => reaper(context, 0))
/** As the reaper does it at one storage. */
const reapAt = (world: World, name: string): Promise<unknown> =>
  world.db.write(async e => {
    const { id: rseId, voId } = await world.rse(name)
    const now = world.clock.now()
    const { toDelete } = await reapReplicas(e, await tombstones(e, { voId, rseId }, { before: now, now }, 10), now, now)
    await addToTask(e, { kind: 'delete', vo_id: voId, rse_id: rseId }, toDelete, now)
  })
const take = (world: World, sessionId: number): Promise<unknown> =>
  world.db.write(e => claimTasks(e, { sessionId }, 10, world.clock.now()))

/** Session 1 tells this of each file of its task. */
async function tell(world: World, result: Told['results'][number]['result'], error?: Told['error']): Promise<void> {
  const [task] = await world.rows<{ id: number; fence: number }>('SELECT id, fence FROM tasks WHERE session_id = 1')
  if (task === undefined) return
  const files = await filesOfTasks(world.db.read, [task.id])
  const results = files.map(({ replica_id: file }) => ({ file, result, ...(error && { error }) }))
  const told = { session: 1, fence: task.fence, forgotten: false, results }
  await takeReport(world.context as TokenContext, DEFAULT_RETRY_POLICY, task.id, told)
}

/** As `takeTasks` does, which needs an issuer: what is wanted by now is not deleted. */
const tellToDelete = (world: World): Promise<unknown> =>
  world.db.write(async e => {
    const now = world.clock.now()
    const [task] = await claimTasks(e, { sessionId: 1 }, 10, now)
    const files = await filesOfTasks(e, task === undefined ? [] : [task.id])
    const untold = files.filter(({ state }) => state === 'WANTED').map(({ replica_id }) => replica_id)
    const spared = await spareWanted(e, untold, now)
    await markTold(
      e,
      untold.filter(id => !spared.replicas.has(id)),
    )
    await tellRules(e, spared, now)
  })

async function removed(world: World): Promise<void> {
  await world.db.write(e => startRemoval(e, 1, world.clock.now()))
  await world.evaluate()
}

/** What is queued is copied. */
async function bring(world: World): Promise<void> {
  await world.grantAll()
  const outcomes = (await world.claim(1, 100)).map(({ id: transfer, fence }) => ({
    ...{ transfer, fence, result: 'done' as const, left: 'nothing' as const },
    ...{ durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false },
  }))
  await applyOutcomes(world.context, DEFAULT_RETRY_POLICY, 1, outcomes)
}

/** Three files whose only good copies are at these storages, which nobody asked for since rule 1 was removed. */
async function unwanted(world: World, at = 'B', copies = 1): Promise<void> {
  await world.dataset('d', 3, 'A')
  await world.addRule('d', at, copies)
  await world.evaluate()
  await world.openSession()
  await world.openSession()
  await bring(world)
  await removed(world)
  await world.change("UPDATE replicas SET state = 'BAD' WHERE rse_id = 1")
}

/** As `unwanted`, but what B has is not the last: A has it too, and cannot be read now. Rule 2 wants it at C, and is not evaluated yet. */
async function readFromB(world: World): Promise<void> {
  await unwanted(world)
  await world.change("UPDATE replicas SET state = 'AVAILABLE' WHERE rse_id = 1")
  await world.change('UPDATE rses SET availability_read = false WHERE id = 1')
  await world.addRule('d', 'C', 1)
}

/** As `unwanted`, and session 1 has the task to delete them. Rule 2 wants them there, and is not evaluated yet. */
async function underDeletion(world: World): Promise<void> {
  await unwanted(world)
  await reap(world)
  await take(world, 1)
  await world.addRule('d', 'B', 1)
}

/** As `unwanted`; they are to be deleted, and rule 2 wants them there, and is not evaluated yet. */
async function reapedAndWanted(world: World): Promise<void> {
  await unwanted(world)
  await world.change("UPDATE replicas SET state = 'AVAILABLE' WHERE rse_id = 1")
  await reap(world)
  await world.addRule('d', 'B', 1)
}

/** Rule 1 wants three files from tape, which session 1 has asked for. */
async function askedFromTape(world: World): Promise<void> {
  await world.change("UPDATE rses SET tape = true WHERE name = 'A'")
  await world.dataset('d', 3, 'A')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.run(transferReleaser)
  await world.openSession()
  await take(world, 1)
}

/** Three files of rule 1 lie at a storage with a tape, and session 1 asks whether they are on it. */
async function archiving(world: World): Promise<void> {
  await world.change("UPDATE rses SET tape = true WHERE name = 'B'")
  await world.dataset('d', 3, 'A')
  world.archive = true
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.openSession()
  await bring(world)
  await take(world, 1)
}

async function noSource(world: World): Promise<string | undefined> {
  const lost = await world.rows(
    `SELECT transfers.id FROM transfers JOIN replicas ON replicas.id = source_replica_id AND replicas.state <> 'AVAILABLE'
      WHERE transfers.state = 'QUEUED'`,
  )
  return lost.length === 0 ? undefined : `${lost.length} queued transfers have a source that is deleted`
}

async function allGone(world: World): Promise<string | undefined> {
  const gone = await world.rows(
    `SELECT id FROM dids WHERE type = 'FILE' AND NOT EXISTS
       (SELECT 1 FROM replicas WHERE file_id = dids.id AND state = 'AVAILABLE')`,
  )
  return gone.length === 0 ? undefined : `${gone.length} files that a rule asks for have no good copy`
}

async function plannedAndDeleted(world: World): Promise<string | undefined> {
  const both = await world.rows(
    "SELECT id FROM replicas JOIN uploads ON uploads.replica_id = id WHERE state = 'BEING_DELETED'",
  )
  return both.length === 0 ? undefined : 'what a person puts there is deleted'
}

async function heldByNobody(world: World): Promise<string | undefined> {
  const lost = await world.rows(
    'SELECT tasks.id FROM tasks JOIN sessions ON sessions.id = session_id WHERE ended_at IS NOT NULL',
  )
  return lost.length === 0 ? undefined : 'a session that has ended has a task'
}

/** As `upload` does. */
async function plan(world: World): Promise<unknown> {
  const files = await world.rows<{ id: number }>("SELECT id FROM dids WHERE type = 'FILE'")
  const { id: rseId } = await world.rse('B')
  const fileIds = files.map(row => row.id)
  const expiresAt = world.clock.now() + 60_000
  const planned = { rseId, accountId: world.accountId, fileIds, expiresAt, replace: false }
  return world.db.write(e => planFiles(e, planned, world.clock.now())).catch(() => 'refused')
}

/** As `readFromB`; rule 2 could not have it brought to C, and is repaired next. */
async function toRepair(world: World): Promise<void> {
  await readFromB(world)
  await world.evaluate()
  await world.change("UPDATE transfers SET state = 'FAILED' WHERE state = 'QUEUED'")
  await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE rse_id = 3")
  await world.change("UPDATE locks SET state = 'STUCK'")
  await world.change("UPDATE rules SET state = 'STUCK', locks_stuck = 3, locks_replicating = 0, repair_at = 1")
}

/** Deletion, recalls and what asks for tape, beside what rules do. */
export const TASK_ENCOUNTERS: Readonly<Record<string, Encounter>> = {
  'replicas are reaped that a rule is just locking': {
    async begin(world) {
      await unwanted(world)
      await world.addRule('d', 'B', 1)
    },
    stopped: world => world.evaluate(),
    other: reap,
    broken: allGone,
  },
  'a rule comes to lock what is just reaped': {
    begin: world => unwanted(world),
    stopped: reap,
    async other(world) {
      await world.addRule('d', 'B', 1)
      await world.evaluate()
    },
    afterwards: world => world.evaluate(),
  },
  'a copy is planned from what is just reaped': {
    begin: readFromB,
    stopped: reap,
    other: world => world.evaluate(),
    broken: noSource,
  },
  'what a copy is just planned from is reaped': {
    begin: readFromB,
    stopped: world => world.evaluate(),
    other: reap,
    broken: noSource,
  },
  'two servers reap the two last copies of what a rule asks for': {
    async begin(world) {
      await unwanted(world, 'B|C', 2)
      await world.addRule('d', 'A', 1)
    },
    stopped: world => reapAt(world, 'B'),
    other: world => reapAt(world, 'C'),
    broken: allGone,
  },
  'two servers reap the same': { begin: world => unwanted(world), stopped: reap, other: reap },
  'a rule is repaired whose source is just reaped': {
    begin: toRepair,
    stopped: reap,
    other: world => world.run(ruleRepairer),
    broken: noSource,
  },
  'the source of a rule that is just repaired is reaped': {
    begin: toRepair,
    stopped: world => world.run(ruleRepairer),
    other: reap,
    broken: noSource,
  },
  'a person plans an upload to what is just reaped': {
    begin: world => unwanted(world),
    stopped: reap,
    other: plan,
    broken: plannedAndDeleted,
  },
  'what a person is just planning to upload is reaped': {
    begin: world => unwanted(world),
    stopped: plan,
    other: reap,
    broken: plannedAndDeleted,
  },
  'a rule comes to lock what is just gone': {
    begin: underDeletion,
    stopped: world => tell(world, 'done'),
    other: world => world.evaluate(),
  },
  'what a rule is just locking is gone': {
    begin: underDeletion,
    stopped: world => world.evaluate(),
    other: world => tell(world, 'done'),
  },
  'a worker is told to delete what a rule is just locking': {
    begin: reapedAndWanted,
    stopped: world => world.evaluate(),
    other: tellToDelete,
  },
  'a rule locks what a worker is just told to delete': {
    begin: reapedAndWanted,
    stopped: tellToDelete,
    other: world => world.evaluate(),
  },
  'two workers claim a task': {
    async begin(world) {
      await unwanted(world)
      await reap(world)
    },
    stopped: world => take(world, 1),
    other: world => take(world, 2),
    async broken(world) {
      const [task] = await world.rows<{ fence: number }>('SELECT fence FROM tasks')
      return task?.fence === 1 ? undefined : 'both have it'
    },
  },
  'a session ends to which a task is just given': {
    async begin(world) {
      await unwanted(world)
      await reap(world)
    },
    stopped: world => take(world, 1).catch(() => undefined),
    other: world => world.db.write(e => endSession(e, 1, 0, 0)),
    broken: heldByNobody,
  },
  'a task is given to a session that just ends': {
    async begin(world) {
      await unwanted(world)
      await reap(world)
    },
    stopped: world => world.db.write(e => endSession(e, 1, 0, 0)),
    other: world => take(world, 1).catch(() => undefined),
    broken: heldByNobody,
  },
  'files come from tape whose rule is just removed': {
    begin: askedFromTape,
    stopped: removed,
    other: world => tell(world, 'online'),
    afterwards: world => world.evaluate(),
  },
  'a rule is removed whose files just come from tape': {
    begin: askedFromTape,
    stopped: world => tell(world, 'online'),
    other: removed,
    afterwards: world => world.evaluate(),
  },
  'files are lost on tape whose rule is just removed': {
    begin: askedFromTape,
    stopped: removed,
    other: world => tell(world, 'failed', { ...FAILURE, scope: 'SOURCE', code: 'FILE_LOST' }),
    afterwards: world => world.evaluate(),
  },
  'a rule is removed whose files are just lost on tape': {
    begin: askedFromTape,
    stopped: world => tell(world, 'failed', { ...FAILURE, scope: 'SOURCE', code: 'FILE_LOST' }),
    other: removed,
    afterwards: world => world.evaluate(),
  },
  'a rule is removed whose files are just found on tape': {
    begin: archiving,
    stopped: world => tell(world, 'done'),
    other: removed,
    afterwards: world => world.evaluate(),
  },
  'files are found on tape whose rule is just removed': {
    begin: archiving,
    stopped: removed,
    other: world => tell(world, 'done'),
    afterwards: world => world.evaluate(),
  },
  'a rule is removed whose files are just not written to tape': {
    begin: archiving,
    stopped: world => tell(world, 'failed', FAILURE),
    other: removed,
    afterwards: world => world.evaluate(),
  },
  'files are not written to tape whose rule is just removed': {
    begin: archiving,
    stopped: removed,
    other: world => tell(world, 'failed', FAILURE),
    afterwards: world => world.evaluate(),
  },
}
