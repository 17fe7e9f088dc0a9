import { isEnded, type TransferState } from '../../shared/domain/transfer-state.ts'
import { linkKey, type Network, type Path, shortestPath } from './path.ts'

/** So often a transfer tries to get its file over another storage; its rule's repair begins anew. */
export const MOST_TRIES = 10
/** An intermediate replica is kept so long at most for a transfer that takes nothing from it: from its beginning, and from its arrival. */
export const HOP_MS = 86_400_000

/** A waiting transfer without a source that it could take its file from at once. */
export interface Stranded {
  readonly destination: number
  /** Storages that have the file and may be read. */
  readonly sources: readonly number[]
  /** A linked storage has the file, and has refused it: the last resort. */
  readonly refused: boolean
  /** Ways that were tried, ended or not. */
  readonly tried: number
  /** Some of them failed. */
  readonly failed: boolean
  /** Links that did not bring the file, or cannot, by `linkKey`. */
  readonly closed: readonly string[]
  /** Intermediate storages to which the file is on its way for this transfer. */
  readonly pending: readonly { readonly storage: number; readonly state: TransferState }[]
}

export type StrandedStep =
  /** Over this storage; what is pending is given up. */
  | { readonly type: 'hop'; readonly storage: number }
  /** What is pending is waited for. */
  | { readonly type: 'wait' }
  /** There is no way now. */
  | { readonly type: 'none' }
  /** There is no way any more: waiting changes nothing. */
  | { readonly type: 'give-up' }

export type FindPath = (sources: readonly number[], destination: number, closed: readonly string[]) => Path | undefined

/**
 * The searches of one round: transfers of a dataset have the same sources, destination and history. Direct links from the sources
 * are no way: who is stranded has been refused there.
 */
export function pathFinder(network: Network): FindPath {
  const found = new Map<string, Path | undefined>()
  return (sources, destination, closed) => {
    const key = [destination, ...sources, ...closed].join()
    if (!found.has(key)) found.set(key, shortestPath(network, sources, destination, new Set(closed)))
    return found.get(key)
  }
}

/** How a stranded transfer gets on. A held way is taken rather than none, but nothing that is under way is given up for it. Pure. */
export function decideStranded(network: Network, find: FindPath, transfer: Stranded): StrandedStep {
  const { pending, tried, failed, refused } = transfer
  const waits = pending.length > 0
  if (pending.some(hop => isUnderWay(hop.state) || isGoodWay(network, find, transfer, hop.storage)))
    return { type: 'wait' }
  const path = pathOf(find, transfer)
  const first = path?.storages[1]
  if (path === undefined || first === undefined) return { type: failed && !refused ? 'give-up' : 'none' }
  if (waits && (path.held || tried >= MOST_TRIES || pending.some(hop => hop.storage === first))) return { type: 'wait' }
  if (tried >= MOST_TRIES) return { type: refused ? 'none' : 'give-up' }
  return { type: 'hop', storage: first }
}

/** The way that a stranded transfer would take. */
export function pathOf(
  find: FindPath,
  { sources, destination, closed }: Pick<Stranded, 'sources' | 'destination' | 'closed'>,
): Path | undefined {
  const direct = sources.map(source => linkKey(source, destination))
  return find(sources, destination, [...new Set([...direct, ...closed])].sort())
}

/** One transfer waits for what another brings. */
export interface Wait {
  readonly transfer: number
  readonly carrier: number
}

/**
 * Those of these waits, in their order, with which nobody waits for himself in the end: two whose source has refused both, each on
 * the way of the other, would wait for each other. `known`: who waits already. Pure.
 */
export function withoutCircles<W extends Wait>(wanted: readonly W[], known: readonly Wait[]): W[] {
  const carriers = new Map<number, number[]>()
  const add = ({ transfer, carrier }: Wait): void =>
    void carriers.set(transfer, [...(carriers.get(transfer) ?? []), carrier])
  known.forEach(add)
  return wanted.filter(wait => {
    const isCircle = isReached(carriers, wait.carrier, wait.transfer)
    if (!isCircle) add(wait)
    return !isCircle
  })
}

function isReached(carriers: ReadonlyMap<number, readonly number[]>, from: number, transfer: number): boolean {
  const seen = new Set([from])
  for (const at of seen) for (const next of carriers.get(at) ?? []) seen.add(next)
  return seen.has(transfer)
}

/** Nothing fails between a source and the intermediate storage, nor from there on. */
function isGoodWay(
  network: Network,
  find: FindPath,
  { sources, destination, closed }: Stranded,
  over: number,
): boolean {
  const reached = network.links.some(({ from, to, held }) => to === over && !held && sources.includes(from))
  const on = network.through.has(over) ? find([over], destination, closed) : undefined
  return reached && on !== undefined && !on.held
}

export interface HopFacts {
  /** Of the transfer that goes this way, and of that which brings the intermediate replica. */
  readonly parent: TransferState
  readonly carrier: TransferState
  /** The intermediate replica is AVAILABLE. */
  readonly there: boolean
  readonly expiresAt: number
  /** 0: one of the two transfers has ended. */
  readonly lookAt: number
}

export type HopStep =
  | { readonly type: 'release' }
  | { readonly type: 'keep'; readonly expiresAt: number; readonly lookAt: number }

/**
 * Whether the intermediate replica is still locked for a transfer. While that is queued, or copies from it, it is, and while it is
 * being brought. Pure.
 */
export function decideHop({ parent, carrier, there, expiresAt, lookAt }: HopFacts, now: number): HopStep {
  if (isEnded(parent)) return { type: 'release' }
  if (!there && (isEnded(carrier) || (now >= expiresAt && !isUnderWay(carrier)))) return { type: 'release' }
  const until = there && lookAt === 0 ? now + HOP_MS : expiresAt
  if (now < until) return { type: 'keep', expiresAt: until, lookAt: until }
  return parent === 'WAITING' && there
    ? { type: 'release' }
    : { type: 'keep', expiresAt: now + HOP_MS, lookAt: now + HOP_MS }
}

function isUnderWay(state: TransferState): boolean {
  return state !== 'WAITING' && state !== 'QUEUED'
}
