/** A link with work, and how busy it and its two storages are. */
export interface LinkLoad {
  readonly id: number
  readonly sourceId: number
  readonly destinationId: number
  readonly weight: number
  readonly maxActive: number
  readonly active: number
  readonly servedAt: number
}

export interface StorageLoad {
  readonly outbound: number
  readonly maxOutbound: number
  readonly inbound: number
  readonly maxInbound: number
}

/** How many more transfers may run on this link now. */
export function roomOf(link: LinkLoad, source: StorageLoad, destination: StorageLoad): number {
  return Math.max(
    0,
    Math.min(
      link.maxActive - link.active,
      source.maxOutbound - source.outbound,
      destination.maxInbound - destination.inbound,
    ),
  )
}

/** A link with work, as others at its storages see it. */
export type Sharer = Pick<LinkLoad, 'sourceId' | 'destinationId' | 'weight'>

/** A link to be served, and how many one claim may take there. */
export interface ScheduledLink extends LinkLoad {
  readonly most: number
}

/**
 * The links in the order they should be served: the smallest active-to-weight share first, the longest unserved on ties.
 * Links without room are left out. `sharers`: all links with work, whoever may serve them.
 */
export function schedule(
  links: readonly LinkLoad[],
  storages: ReadonlyMap<number, StorageLoad>,
  sharers: readonly Sharer[],
): ScheduledLink[] {
  const weights = {
    out: sumBy(sharers, ({ sourceId }) => sourceId),
    in: sumBy(sharers, ({ destinationId }) => destinationId),
  }
  const open = links.flatMap(link => {
    const source = storages.get(link.sourceId)
    const destination = storages.get(link.destinationId)
    if (source === undefined || destination === undefined || roomOf(link, source, destination) === 0) return []
    const most = Math.min(
      shareOf(link, source.outbound, source.maxOutbound, weights.out.get(link.sourceId)),
      shareOf(link, destination.inbound, destination.maxInbound, weights.in.get(link.destinationId)),
    )
    return [{ ...link, most }]
  })
  const share = (link: LinkLoad): number => link.active / Math.max(1, link.weight)
  return open.sort((a, b) => share(a) - share(b) || a.servedAt - b.servedAt || a.id - b.id)
}

/**
 * What one claim may take of a storage's places: so many that the link has its share of all of them, or its share of those that
 * are free. Without it whoever comes first would take all that is free, and keep it for as long as its files take.
 */
function shareOf({ active, weight }: LinkLoad, taken: number, places: number, weights = weight): number {
  const part = weight / Math.max(weight, weights)
  return Math.max(1, Math.ceil(places * part) - active, Math.ceil((places - taken) * part))
}

function sumBy(sharers: readonly Sharer[], keyOf: (sharer: Sharer) => number): Map<number, number> {
  const sums = new Map<number, number>()
  for (const sharer of sharers) sums.set(keyOf(sharer), (sums.get(keyOf(sharer)) ?? 0) + sharer.weight)
  return sums
}
