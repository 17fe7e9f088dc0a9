/** How the places of a claim are shared between activities. Pure. */

/** Work of one VO and activity that is ready on a link, at one priority. */
export interface ActivityLoad {
  readonly voId: number
  readonly activity: string
  readonly priority: number
  readonly weight: number
  /** On this link, at any priority. */
  readonly active: number
  /** When the one of its bundles was served that has waited longest. */
  readonly servedAt: number
}

/** The work by its priority: the highest first, and nothing of the next before it. */
export function byPriority<A extends ActivityLoad>(work: readonly A[]): A[][] {
  const levels = new Map<number, A[]>()
  for (const load of work) levels.set(load.priority, [...(levels.get(load.priority) ?? []), load])
  return [...levels].sort(([a], [b]) => b - a).map(([, level]) => level)
}

/** Who is next: the smallest active-to-weight share first, the longest unserved on ties. */
export function compareShares(a: ActivityLoad, b: ActivityLoad): number {
  return compare({ load: a, active: a.active }, { load: b, active: b.active })
}

/** Some of the places for one activity. */
export interface Share<A extends ActivityLoad> {
  readonly load: A
  readonly places: number
}

/**
 * The places, one by one to who is next. Those that get some, in the order of their first; an activity that has been behind
 * may get all.
 */
export function shareOut<A extends ActivityLoad>(places: number, work: readonly A[]): Share<A>[] {
  const order = work.map(load => ({ load, active: load.active, places: 0 }))
  for (let left = places; left > 0; left -= 1) {
    let next = order[0]
    for (const one of order) if (next !== undefined && compare(one, next) < 0) next = one
    if (next === undefined) break
    next.active += 1
    next.places += 1
  }
  const shares = order.filter(({ places }) => places > 0)
  return shares.sort((a, b) => compareShares(a.load, b.load)).map(({ load, places }) => ({ load, places }))
}

/** By what is active now and what it gets. */
function compare(
  a: { readonly load: ActivityLoad; readonly active: number },
  b: { readonly load: ActivityLoad; readonly active: number },
): number {
  return a.active * b.load.weight - b.active * a.load.weight || a.load.servedAt - b.load.servedAt
}
