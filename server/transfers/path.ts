/** A directed link between two storages, by their keys. */
export interface NetworkLink {
  readonly from: number
  readonly to: number
  /** At least 1. */
  readonly distance: number
  /** Its source, or what it leads to, fails now: it is taken only where there is no other way. */
  readonly held: boolean
}

export interface Network {
  readonly links: readonly NetworkLink[]
  /** The storages that copies may go over. */
  readonly through: ReadonlySet<number>
}

export interface Path {
  /** From a source to the destination, both included. */
  readonly storages: readonly number[]
  readonly cost: number
  /** Some link of it is held. */
  readonly held: boolean
}

/** A copy more is another load on two storages: Rucio's default too (facts/rules.md, "Sources, hops"). In units of distance. */
export const HOP_PENALTY = 10
/** More than any way without one costs: distances are at most 1,000. */
const HELD_COST = 1_000_000
/** Links of a way. */
export const MOST_LINKS = 4

export function linkKey(from: number, to: number): string {
  return `${from} ${to}`
}

/**
 * The cheapest way from any of the sources, by distance, with a penalty for each storage between; of equally cheap ones that of
 * fewest links, then of smallest keys. Storages are few: all ways of one link, then of two (Bellman and Ford), which keeps the
 * bound on links exact. Links in `closed` (by `linkKey`) are none. Undefined: there is no way. Pure.
 */
export function shortestPath(
  { links, through }: Network,
  sources: readonly number[],
  destination: number,
  closed: ReadonlySet<string> = new Set(),
): Path | undefined {
  const open = links.filter(({ from, to }) => !closed.has(linkKey(from, to)))
  let ends = new Map<number, Path>(sources.map(source => [source, { storages: [source], cost: 0, held: false }]))
  let best: Path | undefined
  for (let length = 1; length <= MOST_LINKS && ends.size > 0; length += 1) {
    const next = new Map<number, Path>()
    for (const link of open) {
      const before = ends.get(link.from)
      if (before === undefined || (length > 1 && !through.has(link.from))) continue
      const path = extended(before, link)
      if (isBetter(path, next.get(link.to))) next.set(link.to, path)
    }
    const arrived = next.get(destination)
    if (arrived !== undefined && (best === undefined || arrived.cost < best.cost)) best = arrived
    next.delete(destination)
    ends = next
  }
  return best
}

function extended({ storages, cost, held }: Path, link: NetworkLink): Path {
  const step = link.distance + (link.held ? HELD_COST : 0) + (storages.length > 1 ? HOP_PENALTY : 0)
  return { storages: [...storages, link.to], cost: cost + step, held: held || link.held }
}

/** Of two ways of as many links. */
function isBetter(path: Path, than: Path | undefined): boolean {
  if (than === undefined || path.cost !== than.cost) return than === undefined || path.cost < than.cost
  const differs = path.storages.findIndex((storage, i) => storage !== than.storages[i])
  return differs >= 0 && (path.storages[differs] ?? 0) < (than.storages[differs] ?? 0)
}
