import type { Service } from '../../shared/runtime/services.ts'
import { filesWithout, placeFiles } from '../catalogue/place-files.ts'
import type { Context } from '../context.ts'
import { type Executor, lockRows } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import { addToRules } from '../rules/store.ts'
import type { Rse } from '../storages/directory.ts'
import { cancelTransfers } from './cancel.ts'
import { giveUp } from './give-up.ts'
import { decideHop, withoutCircles } from './hop-decision.ts'
import {
  dropUnused,
  dueHops,
  expirePending,
  type HopRow,
  heldHops,
  holdCarriers,
  holdWaiting,
  insertHops,
  keepHops,
  releaseHops,
  waitForHops,
  waitsOf,
  wakeWaiting,
} from './hop-store.ts'
import { openTransfers } from './open.ts'
import { holdSourceSets } from './source-set-store.ts'
import { datasetsOf, type PlacedReplica, replicasAt, type Wayfarer } from './way-store.ts'
import { findWays, hasMultihop, type Way } from './ways.ts'

const HOPS_PER_ROUND = 1_000
/** So often another way is looked for at once where a path at the intermediate storage is another file's. */
const LOOKS = 3

/**
 * Sends the files of those of these transfers that have no source nearer: over other storages, one hop at a time. The transfer waits
 * until its file is there, and is planned anew from there. How many wait so; the others are left as they are.
 */
export async function planHops(context: Context, transferIds: readonly number[], now: number): Promise<number> {
  if (transferIds.length === 0 || !(await hasMultihop(context))) return 0
  const impossible = new Map<number, number[]>()
  let waiting = 0
  let open = transferIds
  for (let look = 0; look < LOOKS && open.length > 0; look += 1) {
    const ways = await findWays(context, open, now, impossible)
    const hopeless = ways.filter(({ step }) => step.type === 'give-up').map(({ transfer }) => transfer)
    if (hopeless.length > 0) await context.db.write(executor => giveUp(executor, hopeless, 'HOP_FAILED', now))
    const others = ways.filter(({ step }) => step.type !== 'give-up')
    if (others.length === 0) break
    const placing = await placingOf(context, others)
    const refused = await context.db.write(executor => setOut(executor, others, placing, now))
    waiting += others.filter(({ step }) => step.type === 'wait' || step.type === 'hop').length - refused.length
    for (const { transfer, storage } of refused) {
      impossible.set(transfer, [...(impossible.get(transfer) ?? []), storage])
    }
    open = refused.map(({ transfer }) => transfer)
  }
  return waiting
}

interface Placing {
  readonly rses: readonly Rse[]
  readonly datasets: Awaited<ReturnType<typeof datasetsOf>>
}

async function placingOf({ db, storages }: Context, ways: readonly Way[]): Promise<Placing> {
  const files = ways.flatMap(({ transfer, step }) => (step.type === 'hop' ? [transfer.file_id] : []))
  return { rses: await storages.all(), datasets: await datasetsOf(db.read, files) }
}

interface Leg {
  readonly transfer: Wayfarer
  readonly storage: number
}

/**
 * Answers those that cannot go where they were sent: the path there is another file's, the replica cannot be copied to now, or is from
 * a source that they may not have, or what brings it waits for them.
 */
async function setOut(
  executor: Executor,
  ways: readonly Way[],
  placing: Placing,
  now: number,
): Promise<{ transfer: number; storage: number }[]> {
  const legs = ways.flatMap(({ transfer, step }) => (step.type === 'hop' ? [{ transfer, storage: step.storage }] : []))
  const places = legs.map(({ transfer, storage }) => ({ file_id: transfer.file_id, rse_id: storage }))
  const made = await placeLegs(executor, legs, placing, now)
  await lockRows(
    executor,
    'replicas',
    (await replicasAt(executor, places)).map(row => row.id),
  )
  await holdSourceSets(
    executor,
    legs.map(leg => leg.transfer.source_set_id),
  )
  const ids = ways.map(({ transfer }) => transfer.id)
  const held = new Set(await holdWaiting(executor, ids, now))
  const found = new Map((await replicasAt(executor, places)).map(row => [placeKey(row.file_id, row.rse_id), row]))
  const replicaOf = ({ transfer, storage }: Leg): PlacedReplica | undefined =>
    found.get(placeKey(transfer.file_id, storage))
  const open = legs.filter(leg => held.has(leg.transfer.id) && canBeBrought(replicaOf(leg)))
  const barred = await barredLegs(executor, open, leg => replicaOf(leg)?.id ?? 0)
  const able = open.filter(leg => !barred.has(leg))

  await expirePending(executor, [
    ...able.map(({ transfer }) => transfer.id),
    ...ways.filter(({ transfer, step }) => step.type === 'none' && held.has(transfer.id)).map(way => way.transfer.id),
  ])
  for (const group of sameWish(able)) {
    const [first] = group
    const replicas = [...new Set(group.map(leg => replicaOf(leg)?.id ?? 0))]
    // Nobody waits for a tape on the way.
    if (first !== undefined) await openTransfers(executor, replicas, { ...first.transfer, archive: false }, now)
  }
  await insertHops(
    executor,
    able.map(leg => ({ transfer_id: leg.transfer.id, replica_id: replicaOf(leg)?.id ?? 0 })),
    now,
  )
  await dropUnused(executor, made)
  const waits = ways.filter(({ transfer, step }) => step.type === 'wait' && held.has(transfer.id))
  await waitForHops(
    executor,
    [...able, ...waits].map(({ transfer }) => transfer.id),
    now,
  )
  return legs
    .filter(leg => barred.has(leg) || !(canBeBrought(replicaOf(leg)) || isThere(leg, replicaOf(leg))))
    .map(({ transfer, storage }) => ({ transfer: transfer.id, storage }))
}

/** It came meanwhile, and is a source now. */
function isThere({ transfer }: Leg, replica: PlacedReplica | undefined): boolean {
  return replica?.state === 'AVAILABLE' && transfer.source_set_id === null
}

/**
 * Those whose file is being brought by a transfer that waits for theirs, or from where they may not have it. What brings them is
 * locked, so that of two only one goes.
 */
async function barredLegs(
  executor: Executor,
  legs: readonly Leg[],
  replicaOf: (leg: Leg) => number,
): Promise<Set<Leg>> {
  const carriers = new Map((await holdCarriers(executor, legs.map(replicaOf))).map(row => [row.replica_id, row]))
  const joining = legs.flatMap(leg => {
    const carrier = carriers.get(replicaOf(leg))
    if (carrier === undefined) return []
    const { source_set_id: set } = leg.transfer
    return [
      { transfer: leg.transfer.id, carrier: carrier.id, leg, isFrom: set === null || set === carrier.source_set_id },
    ]
  })
  const waits = joining.filter(wait => wait.isFrom)
  const known = await waitsOf(
    executor,
    [...carriers.values()].map(row => row.id),
  )
  const free = new Set(withoutCircles(waits, known))
  return new Set(joining.filter(wait => !wait.isFrom || !free.has(wait)).map(({ leg }) => leg))
}

/** The replicas made. Storages and files in the order of their keys, as everybody makes them. */
async function placeLegs(
  executor: Executor,
  legs: readonly Leg[],
  { rses, datasets }: Placing,
  now: number,
): Promise<number[]> {
  const made: number[] = []
  for (const storage of [...new Set(legs.map(leg => leg.storage))].sort((a, b) => a - b)) {
    const rse = rses.find(candidate => candidate.id === storage)
    if (rse === undefined) continue
    const fileIds = legs.filter(leg => leg.storage === storage).map(({ transfer }) => transfer.file_id)
    const files = await filesWithout(executor, rse.id, [...new Set(fileIds)])
    const placed = await placeFiles(executor, rse, files, file => datasets.get(file.id), now)
    made.push(...placed.map(replica => replica.id))
  }
  return made
}

/** Not a BAD one: what lies there would be in the way. */
function canBeBrought(replica: PlacedReplica | undefined): boolean {
  return replica?.state === 'COPYING' || replica?.state === 'UNAVAILABLE'
}

const placeKey = (fileId: number, rseId: number): string => `${fileId} ${rseId}`

/** Legs whose transfers are alike in all that their hops take from them. */
function sameWish(legs: readonly Leg[]): Leg[][] {
  const groups = new Map<string, Leg[]>()
  for (const leg of legs) {
    const { vo_id, account_id, activity, priority, source_set_id } = leg.transfer
    const key = JSON.stringify([vo_id, account_id, activity, priority, source_set_id])
    groups.set(key, [...(groups.get(key) ?? []), leg])
  }
  return [...groups.values()]
}

/**
 * Looks at intermediate replicas whose time has come: what brings them, or who waits for them, has ended, or they were kept long
 * enough. Those that nobody holds any more get a tombstone.
 */
export function hopKeeper(context: Context): Service {
  return periodic({
    ...context,
    name: 'keep hops',
    interval: 1_000,
    async round() {
      const now = context.clock.now()
      const due = await dueHops(context.db.read, now, HOPS_PER_ROUND)
      if (due.length > 0) await context.db.write(executor => lookAtHops(executor, due, now))
      return due.length === HOPS_PER_ROUND
    },
  })
}

async function lookAtHops(executor: Executor, due: readonly HopRow[], now: number): Promise<void> {
  await lockRows(
    executor,
    'replicas',
    due.map(hop => hop.replica_id),
  )
  await lockRows(
    executor,
    'transfers',
    due.flatMap(hop => [hop.transfer_id, hop.carrier_id]),
  )
  const hops = await heldHops(
    executor,
    due.map(hop => hop.id),
  )
  const decided = hops.map(hop => {
    const { parent, carrier, there, expires_at: expiresAt, look_at: lookAt } = hop
    return { hop, step: decideHop({ parent, carrier, there: Boolean(there), expiresAt, lookAt }, now) }
  })
  const over = decided.filter(({ step }) => step.type === 'release').map(({ hop }) => hop.id)
  await keepHops(
    executor,
    decided.flatMap(({ hop, step }) =>
      step.type === 'keep' ? [{ id: hop.id, expires_at: step.expiresAt, look_at: step.lookAt }] : [],
    ),
  )
  const deltas = await cancelTransfers(executor, await releaseHops(executor, over, now), now)
  await wakeWaiting(
    executor,
    hops.map(hop => hop.transfer_id),
  )
  await addToRules(executor, deltas, now)
}
