import type { WatchdogChange, WatchdogSeconds } from '../../shared/contract/fields.ts'
import { type Binding, type Executor, query, queryOne } from '../database/sql.ts'
import type { AttributeValue, Protocol, Rse } from './directory.ts'
import { checkSpace } from './space.ts'

/** What may be set of a storage, and when it is made. */
export type RseSettings = Omit<
  Rse,
  | 'id'
  | 'name'
  | 'voId'
  | 'vo'
  | 'prefix'
  | 'basePath'
  | 'audience'
  | 'layout'
  | 'checksum'
  | 'attributes'
  | 'protocols'
>

export interface NewRse extends Omit<RseSettings, 'availabilityRead' | 'availabilityWrite' | 'availabilityDelete'> {
  readonly name: string
  readonly voId: number
  readonly prefix: string
  readonly basePath: string
  readonly audience: string
  readonly layout: string
  readonly checksum: string
  readonly now: number
}

/** The columns of settings: the names are ours, the values are bound. */
const SETTABLE = {
  maxInbound: 'max_inbound',
  maxOutbound: 'max_outbound',
  maxStaging: 'max_staging',
  maxDeletions: 'max_deletions',
  availabilityRead: 'availability_read',
  availabilityWrite: 'availability_write',
  availabilityDelete: 'availability_delete',
  checksumPolicy: 'checksum_policy',
  watchdogs: 'watchdogs',
  tape: 'tape',
  multihop: 'multihop',
  capacityBytes: 'capacity_bytes',
  minFreeBytes: 'min_free_bytes',
  keepRegistered: 'keep_registered',
  tombstoneDelaySeconds: 'tombstone_delay',
} as const satisfies Record<keyof RseSettings, string>
export type RseChange = { readonly [key in keyof Omit<RseSettings, 'watchdogs'>]?: RseSettings[key] | undefined } & {
  readonly watchdogs?: WatchdogChange | undefined
}

/** What is given of the settings, by column. */
function columnsOf(change: RseChange): { columns: string[]; bindings: Record<string, Binding> } {
  const given = Object.entries(SETTABLE).flatMap(([key, column]) => {
    const value = change[key as keyof RseChange]
    return value === undefined
      ? []
      : [{ column, value: typeof value === 'object' && value !== null ? JSON.stringify(value) : value }]
  })
  return {
    columns: given.map(({ column }) => column),
    bindings: Object.fromEntries(given.map(({ column, value }) => [column, value])),
  }
}

/** The new key, or `undefined` when the name is taken. */
export async function insertRse(executor: Executor, rse: NewRse): Promise<number | undefined> {
  const { name, voId, prefix, basePath, audience, layout, checksum, now } = rse
  const open = { availabilityRead: true, availabilityWrite: true, availabilityDelete: true }
  const { columns, bindings } = columnsOf({ ...rse, ...open })
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO rses (name, layout, checksum, created_at, ${columns.join(', ')})
     VALUES (:name, :layout, :checksum, :now, ${columns.map(column => `:${column}`).join(', ')})
     ON CONFLICT (name) DO NOTHING RETURNING id`,
    { name, layout, checksum, now, ...bindings },
  )
  if (row === undefined) return undefined
  await query(
    executor,
    `INSERT INTO vo_rses (vo_id, rse_id, prefix, base_path, audience) VALUES (:voId, :id, :prefix, :basePath, :audience)`,
    { id: row.id, voId, prefix, basePath, audience },
  )
  return row.id
}

/** Changes what is given; of the watchdogs too, where null takes back what was set. Throws 400 MIN_FREE_IMPOSSIBLE, as `checkSpace`. */
export async function updateRse(executor: Executor, id: number, change: RseChange): Promise<void> {
  const watchdogs = change.watchdogs && (await changedWatchdogs(executor, id, change.watchdogs))
  const { columns, bindings } = columnsOf({ ...change, watchdogs })
  if (columns.length === 0) return
  const sets = columns.map(column => `${column} = :${column}`)
  const [space] = await query<Pick<RseSettings, 'capacityBytes' | 'minFreeBytes'>>(
    executor,
    `UPDATE rses SET ${sets.join(', ')} WHERE id = :id RETURNING capacity_bytes AS "capacityBytes", min_free_bytes AS "minFreeBytes"`,
    { id, ...bindings },
  )
  if (space !== undefined) checkSpace(space)
}

/** With the storage locked: of two changes at a time none is lost. */
async function changedWatchdogs(executor: Executor, id: number, change: WatchdogChange): Promise<WatchdogSeconds> {
  const row = await queryOne<{ watchdogs: string }>(
    executor,
    'UPDATE rses SET watchdogs = watchdogs WHERE id = :id RETURNING watchdogs',
    { id },
  )
  const given = Object.entries(change).filter(([, seconds]) => seconds !== undefined)
  const all = { ...(JSON.parse(row?.watchdogs ?? '{}') as WatchdogSeconds), ...Object.fromEntries(given) }
  return Object.fromEntries(Object.entries(all).filter(([, seconds]) => seconds !== null))
}

export async function putAttribute(executor: Executor, id: number, key: string, value: AttributeValue): Promise<void> {
  await query(
    executor,
    `INSERT INTO rse_attributes (rse_id, key, value) VALUES (:id, :key, :value)
     ON CONFLICT (rse_id, key) DO UPDATE SET value = excluded.value`,
    { id, key, value: JSON.stringify(value) },
  )
}

export async function deleteAttribute(executor: Executor, id: number, key: string): Promise<void> {
  await query(executor, 'DELETE FROM rse_attributes WHERE rse_id = :id AND key = :key', { id, key })
}

/** What may be given of a protocol, whose URL is its key. */
export type ProtocolChange = Pick<Protocol, 'url'> & {
  readonly [key in keyof Omit<Protocol, 'url'>]?: Protocol[key] | undefined
}

/** Makes a protocol, or changes the one of the URL: what is not given stays. */
export async function putProtocol(executor: Executor, id: number, change: ProtocolChange): Promise<void> {
  const { url, priority, canPull, canPush, freshConnections, macaroons, redirectHosts } = change
  await query(
    executor,
    `INSERT INTO rse_protocols (rse_id, url, priority, can_pull, can_push, fresh_connections, macaroons, redirect_hosts)
     VALUES (:id, :url, coalesce(CAST(:priority AS integer), 0), coalesce(CAST(:canPull AS boolean), true),
             coalesce(CAST(:canPush AS boolean), true), coalesce(CAST(:freshConnections AS boolean), false),
             coalesce(CAST(:macaroons AS boolean), false), coalesce(CAST(:redirectHosts AS text), '[]'))
     ON CONFLICT (rse_id, url) DO UPDATE SET
       priority = coalesce(CAST(:priority AS integer), rse_protocols.priority),
       can_pull = coalesce(CAST(:canPull AS boolean), rse_protocols.can_pull),
       can_push = coalesce(CAST(:canPush AS boolean), rse_protocols.can_push),
       fresh_connections = coalesce(CAST(:freshConnections AS boolean), rse_protocols.fresh_connections),
       macaroons = coalesce(CAST(:macaroons AS boolean), rse_protocols.macaroons),
       redirect_hosts = coalesce(CAST(:redirectHosts AS text), rse_protocols.redirect_hosts)`,
    {
      id,
      url,
      priority: priority ?? null,
      canPull: canPull ?? null,
      canPush: canPush ?? null,
      freshConnections: freshConnections ?? null,
      macaroons: macaroons ?? null,
      redirectHosts: redirectHosts === undefined ? null : JSON.stringify(redirectHosts),
    },
  )
}

/** Removes a protocol, unless it is the only one. False when nothing was removed: it is the last, or there is none of the URL. */
export async function deleteProtocol(executor: Executor, id: number, url: string): Promise<boolean> {
  // Under the storage's lock: two that remove one each must not leave none.
  await query(executor, 'UPDATE rses SET name = name WHERE id = :id', { id })
  const rows = await query(
    executor,
    `DELETE FROM rse_protocols WHERE rse_id = :id AND url = :url
        AND EXISTS (SELECT 1 FROM rse_protocols AS others WHERE others.rse_id = :id AND others.url <> :url) RETURNING id`,
    { id, url },
  )
  return rows.length > 0
}

export interface Link {
  id: number
  source_rse_id: number
  destination_rse_id: number
  distance: number
  max_active: number
  learnt_active: number
  optimize: number | boolean
}

/** What may run on a link at a time, as far as the link itself goes. */
export function limitOf({
  max_active,
  learnt_active,
  optimize,
}: Pick<Link, 'max_active' | 'learnt_active' | 'optimize'>): number {
  return optimize ? Math.min(max_active, learnt_active) : max_active
}

/** Of a new link, before anything is learnt of it: enough to see whether more pays. */
const FIRST_LIMIT = 10

/** Makes a link, or changes it: what is not given stays, and what was learnt of it. */
export async function putLink(
  executor: Executor,
  given: {
    readonly sourceId: number
    readonly destinationId: number
    readonly distance?: number | undefined
    readonly maxActive?: number | undefined
    readonly optimize?: boolean | undefined
  },
): Promise<Link> {
  const link = await queryOne<Link>(
    executor,
    `INSERT INTO links (source_rse_id, destination_rse_id, distance, max_active, learnt_active, optimize, weight, has_work, served_at)
     VALUES (:sourceId, :destinationId, coalesce(CAST(:distance AS integer), 1), coalesce(CAST(:maxActive AS integer), 60),
             ${FIRST_LIMIT}, coalesce(CAST(:optimize AS boolean), true), 1, false, 0)
     ON CONFLICT (source_rse_id, destination_rse_id) DO UPDATE SET
       distance = coalesce(CAST(:distance AS integer), nullif(links.distance, 0), 1),
       max_active = coalesce(CAST(:maxActive AS integer), links.max_active),
       optimize = coalesce(CAST(:optimize AS boolean), links.optimize) RETURNING *`,
    {
      sourceId: given.sourceId,
      destinationId: given.destinationId,
      distance: given.distance ?? null,
      maxActive: given.maxActive ?? null,
      optimize: given.optimize ?? null,
    },
  )
  if (link === undefined) throw new Error('the link was not stored')
  return link
}

/** Closes a link: its row stays for history, its distance of 0 makes it none. */
export async function closeLink(executor: Executor, sourceId: number, destinationId: number): Promise<boolean> {
  const rows = await query(
    executor,
    `UPDATE links SET distance = 0 WHERE source_rse_id = :sourceId AND destination_rse_id = :destinationId AND distance > 0 RETURNING id`,
    { sourceId, destinationId },
  )
  return rows.length > 0
}

export async function listLinks(executor: Executor): Promise<Link[]> {
  return query<Link>(executor, 'SELECT * FROM links WHERE distance > 0 ORDER BY source_rse_id, destination_rse_id')
}
