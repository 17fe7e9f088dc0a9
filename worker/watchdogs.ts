import type { WatchdogSeconds } from '../shared/contract/fields.ts'
import type { Watchdogs } from '../shared/storage/types.ts'
import type { Mode } from './mode.ts'

/** As configurations have them, in milliseconds. */
export function watchdogsOf(given: WatchdogSeconds): Partial<Watchdogs> {
  const seconds = Object.entries({
    connect: given.connectSeconds,
    headers: given.headersSeconds,
    noMarker: given.noMarkerSeconds,
    noProgress: given.noProgressSeconds,
    totalBase: given.totalBaseSeconds,
    totalPerMiB: given.totalPerMibSeconds,
  })
  return Object.fromEntries(seconds.flatMap(([name, value]) => (value === undefined ? [] : [[name, value * 1000]])))
}

/**
 * The deadlines of one copy. How soon a storage answers is for the one that gets the request to say, how fast bytes move for both:
 * the longer counts. What neither says is the worker's own.
 */
export function watchdogsFor(
  own: Partial<Watchdogs>,
  source: WatchdogSeconds,
  destination: WatchdogSeconds,
  mode: Mode,
): Partial<Watchdogs> {
  const [atSource, atDestination] = [watchdogsOf(source), watchdogsOf(destination)]
  const longer = longest(atSource, atDestination)
  const { noProgress, totalBase, totalPerMiB, ...both } = longer
  const asked = mode === 'stream' ? both : mode === 'pull' ? atDestination : atSource
  return { ...own, ...asked, ...present({ noProgress, totalBase, totalPerMiB }) }
}

function longest(one: Partial<Watchdogs>, other: Partial<Watchdogs>): Partial<Watchdogs> {
  const names = Object.keys({ ...one, ...other }) as (keyof Watchdogs)[]
  return Object.fromEntries(names.map(name => [name, Math.max(one[name] ?? 0, other[name] ?? 0)]))
}

function present(given: { readonly [name in keyof Watchdogs]?: number | undefined }): Partial<Watchdogs> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}
