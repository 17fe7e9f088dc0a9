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

/**
 * The links in the order they should be served: the smallest active-to-weight share first, the longest unserved on ties.
 * Links without room are left out.
 */
export function schedule(links: readonly LinkLoad[], storages: ReadonlyMap<number, StorageLoad>): LinkLoad[] {
  const open = links.filter(link => {
    const source = storages.get(link.sourceId)
    const destination = storages.get(link.destinationId)
    return source !== undefined && destination !== undefined && roomOf(link, source, destination) > 0
  })
  const share = (link: LinkLoad): number => link.active / Math.max(1, link.weight)
  return open.sort((a, b) => share(a) - share(b) || a.servedAt - b.servedAt || a.id - b.id)
}
