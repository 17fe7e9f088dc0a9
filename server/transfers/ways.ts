import { isEnded } from '../../shared/domain/transfer-state.ts'
import type { Context } from '../context.ts'
import type { Executor } from '../database/sql.ts'
import type { Rse } from '../storages/directory.ts'
import { decideStranded, type FindPath, pathFinder, pathOf, type Stranded, type StrandedStep } from './hop-decision.ts'
import { linkKey, type Network } from './path.ts'
import {
  directSources,
  dueWayfarers,
  failedLinks,
  findNetwork,
  findWayfarers,
  sourcesOf,
  type TriedHop,
  triedHops,
  type Wayfarer,
} from './way-store.ts'

/** A transfer that is stranded, and how it gets on. */
export interface Way {
  readonly transfer: Wayfarer
  readonly step: StrandedStep
}

/** By transfer, the intermediate storages to which its file cannot go, as was just found out. */
export type Impossible = ReadonlyMap<number, readonly number[]>

/** Whether copies may go over any storage at all: else nothing here costs anything. */
export async function hasMultihop(context: Pick<Context, 'storages'>): Promise<boolean> {
  return (await context.storages.all()).some(isThrough)
}

function isThrough(rse: Rse): boolean {
  return rse.multihop && rse.availabilityRead && rse.availabilityWrite
}

/**
 * How those of these transfers that are due, and have no source that would give them their file at once, get on. A source that has
 * refused the file counts as none as long as there is a way over another storage: asking it again changes nothing.
 */
export async function findWays(
  context: Context,
  transferIds: readonly number[],
  now: number,
  impossible: Impossible = new Map(),
): Promise<Way[]> {
  const { read } = context.db
  const direct = await directSources(read, transferIds)
  const served = new Set(direct.filter(row => !row.refused).map(row => row.id))
  const due = await dueWayfarers(
    read,
    transferIds.filter(id => !served.has(id)),
    now,
  )
  if (due.length === 0) return []
  const networks = await networksOf(context, due)
  const refused = new Set(direct.map(row => row.id))
  const stranded = await strandedOf(read, due, refused, impossible)
  return due.flatMap((transfer, i) => {
    const known = networks.get(transfer.vo_id)
    const facts = stranded[i]
    return known === undefined || facts === undefined
      ? []
      : [{ transfer, step: decideStranded(known.network, known.find, facts) }]
  })
}

/** Those of these transfers, which the storages linked with their destination have failed, for which there is a way over others. */
export async function withWay(context: Context, transferIds: readonly number[]): Promise<Set<number>> {
  if (transferIds.length === 0 || !(await hasMultihop(context))) return new Set()
  const transfers = await findWayfarers(context.db.read, transferIds)
  const networks = await networksOf(context, transfers)
  const stranded = await strandedOf(context.db.read, transfers, new Set(), new Map())
  const found = transfers.filter((transfer, i) => {
    const known = networks.get(transfer.vo_id)
    const facts = stranded[i]
    return known !== undefined && facts !== undefined && pathOf(known.find, facts) !== undefined
  })
  return new Set(found.map(({ id }) => id))
}

interface KnownNetwork {
  readonly network: Network
  readonly find: FindPath
}

/** The storages and links of each VO among them. */
async function networksOf(context: Context, transfers: readonly Wayfarer[]): Promise<Map<number, KnownNetwork>> {
  const rses = await context.storages.all()
  const { links, full } = await findNetwork(context.db.read)
  const networks = new Map<number, KnownNetwork>()
  for (const voId of new Set(transfers.map(transfer => transfer.vo_id))) {
    const own = rses.filter(rse => rse.voId === voId)
    const ids = new Set(own.map(rse => rse.id))
    const held = new Set(full.filter(row => row.vo_id === voId).map(row => row.rse_id))
    const network = {
      through: new Set(own.filter(isThrough).map(rse => rse.id)),
      links: links
        .filter(link => ids.has(link.source_rse_id) && ids.has(link.destination_rse_id))
        .map(link => ({
          from: link.source_rse_id,
          to: link.destination_rse_id,
          distance: link.distance,
          held: Boolean(link.held) || held.has(link.destination_rse_id),
        })),
    }
    networks.set(voId, { network, find: pathFinder(network) })
  }
  return networks
}

async function strandedOf(
  read: Executor,
  transfers: readonly Wayfarer[],
  refused: ReadonlySet<number>,
  impossible: Impossible,
): Promise<Stranded[]> {
  const ids = transfers.map(({ id }) => id)
  const sources = grouped(await sourcesOf(read, ids), row => row.id)
  const hops = grouped(await triedHops(read, ids), row => row.transfer_id)
  const failed = grouped(await failedLinks(read, ids), row => row.transfer_id)
  return transfers.map(({ id, storage }) => {
    const from = (sources.get(id) ?? []).map(row => row.storage)
    const tried = hops.get(id) ?? []
    const closed = (failed.get(id) ?? []).map(row => linkKey(row.source, row.destination))
    const never = (impossible.get(id) ?? []).flatMap(to => from.map(source => linkKey(source, to)))
    return {
      destination: storage,
      sources: from,
      refused: refused.has(id),
      tried: tried.length,
      failed: tried.some(hop => hop.carrier === 'FAILED'),
      closed: [...closed, ...never],
      pending: tried.filter(isPending).map(hop => ({ storage: hop.storage, state: hop.carrier })),
    }
  })
}

function isPending({ held, there, carrier }: TriedHop): boolean {
  return Boolean(held) && !there && !isEnded(carrier)
}

function grouped<T>(rows: readonly T[], keyOf: (row: T) => number): Map<number, T[]> {
  const groups = new Map<number, T[]>()
  for (const row of rows) {
    const key = keyOf(row)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [row])
    else group.push(row)
  }
  return groups
}
