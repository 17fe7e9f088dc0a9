import type { GrantPurpose } from '../../shared/domain/grant-state.ts'
import { type Binding, type Executor, encodeRows, oneOf, recordset } from '../database/sql.ts'
import type { WorkerRights } from './caller.ts'

/** What a worker may serve, by keys; `undefined` is everything. Enforced in the claiming statements themselves. */
export interface WorkerReach {
  readonly voIds?: readonly number[]
  readonly rseIds?: readonly number[]
  readonly activities?: readonly string[]
  /** Keys of storages. */
  readonly links?: readonly { readonly source: number; readonly destination: number }[]
}

/** Names that no storage has are left out: they match nothing. */
export function reachOf(
  { voIds, rses, activities, links }: WorkerRights,
  known: readonly { readonly id: number; readonly name: string }[],
): WorkerReach {
  const keys = new Map(known.map(({ id, name }) => [name, id]))
  return {
    ...(voIds === undefined ? {} : { voIds }),
    ...(rses === undefined ? {} : { rseIds: rses.flatMap(name => keys.get(name) ?? []) }),
    ...(activities === undefined ? {} : { activities }),
    ...(links === undefined
      ? {}
      : {
          links: links.flatMap(link => {
            const [source, destination] = [keys.get(link.source), keys.get(link.destination)]
            return source === undefined || destination === undefined ? [] : [{ source, destination }]
          }),
        }),
  }
}

/** `AND ...` for the columns that hold a VO or storages; binds what `reachBindings` gives. Empty where all is within reach. */
export function withinReach(
  executor: Executor,
  reach: WorkerReach,
  columns: { vo: string; rses?: readonly string[] },
): string {
  const vo = reach.voIds === undefined ? '' : ` AND ${columns.vo} ${oneOf(executor, 'reachedVos')}`
  if (reach.rseIds === undefined || columns.rses === undefined) return vo
  return vo + columns.rses.map(column => ` AND ${column} ${oneOf(executor, 'reachedRses')}`).join('')
}

/** The same for copies. Without `ends` their link is known to be within reach. */
export function copiesWithinReach(
  executor: Executor,
  reach: WorkerReach,
  { vo, activity, ends }: { vo: string; activity: string; ends?: readonly [source: string, destination: string] },
): string {
  const clauses = [withinReach(executor, reach, { vo, ...(ends === undefined ? {} : { rses: ends }) })]
  if (reach.activities !== undefined) {
    clauses.push(` AND ${activity} ${oneOf(executor, 'reachedActivities', 'text')}`)
  }
  if (reach.links !== undefined && ends !== undefined) {
    clauses.push(` AND (${ends.join(', ')}) IN (SELECT source, destination FROM ${reachedLinks(executor)})`)
  }
  return clauses.join('')
}

/** What `copiesWithinReach` says, of a copy that was read; its ends are keys of storages. */
export function reachesCopy(
  { voIds, rseIds, activities, links }: WorkerReach,
  copy: { readonly voId: number; readonly activity: string; readonly source: number; readonly destination: number },
): boolean {
  const { voId, activity, source, destination } = copy
  return (
    voIds?.includes(voId) !== false &&
    rseIds?.includes(source) !== false &&
    rseIds?.includes(destination) !== false &&
    activities?.includes(activity) !== false &&
    (links?.some(link => link.source === source && link.destination === destination) ?? true)
  )
}

/** The same for imports and tasks, which are of no activity and on no link: who is confined to such takes none. */
export function storageWorkWithinReach(
  executor: Executor,
  reach: WorkerReach,
  columns: { vo: string; rse: string },
): string {
  const within = withinReach(executor, reach, { vo: columns.vo, rses: [columns.rse] })
  return servesCopiesOnly(reach) ? `${within} AND false` : within
}

type End = 'source' | 'destination'
/** At which end of a copy a grant of this purpose is used; of the others copies need none. */
const ENDS: Readonly<Partial<Record<GrantPurpose, End>>> = {
  read: 'source',
  write: 'destination',
  'clean-up': 'destination',
}

/** The same for grants. They are of no activity: one serves all work that needs the same. */
export function grantsWithinReach(
  executor: Executor,
  reach: WorkerReach,
  columns: { vo: string; rse: string; purpose: string },
): string {
  const within = withinReach(executor, reach, { vo: columns.vo, rses: [columns.rse] })
  if (!servesCopiesOnly(reach)) return within
  const at = (end: End): string => {
    const purposes = Object.entries(ENDS).flatMap(([purpose, its]) => (its === end ? [`'${purpose}'`] : []))
    const used = `${columns.purpose} IN (${purposes.join(', ')})`
    return reach.links === undefined
      ? used
      : `${used} AND ${columns.rse} IN (SELECT ${end} FROM ${reachedLinks(executor)})`
  }
  return `${within} AND (${at('source')} OR ${at('destination')})`
}

/** What `grantsWithinReach` says, of a grant that was read. */
export function reachesGrant(
  reach: WorkerReach,
  grant: { readonly vo_id: number; readonly rse_id: number; readonly purpose: GrantPurpose },
): boolean {
  const { voIds, rseIds, links } = reach
  if (voIds?.includes(grant.vo_id) === false || rseIds?.includes(grant.rse_id) === false) return false
  if (!servesCopiesOnly(reach)) return true
  const end = ENDS[grant.purpose]
  return end !== undefined && (links?.some(link => link[end] === grant.rse_id) ?? true)
}

function servesCopiesOnly({ activities, links }: WorkerReach): boolean {
  return activities !== undefined || links !== undefined
}

function reachedLinks(executor: Executor): string {
  return `${recordset(executor, 'reachedLinks', { source: 'bigint', destination: 'bigint' })} AS reached`
}

export function reachBindings({ voIds, rseIds, activities, links }: WorkerReach): Record<string, Binding> {
  return {
    ...(voIds === undefined ? {} : { reachedVos: encodeRows(voIds) }),
    ...(rseIds === undefined ? {} : { reachedRses: encodeRows(rseIds) }),
    ...(activities === undefined ? {} : { reachedActivities: encodeRows(activities) }),
    ...(links === undefined ? {} : { reachedLinks: encodeRows(links) }),
  }
}
