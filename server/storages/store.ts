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
} as const satisfies Record<keyof RseSettings, string>
export type RseChange = { readonly [key in keyof RseSettings]?: RseSettings[key] | undefined }

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

/** Throws 400 MIN_FREE_IMPOSSIBLE, as `checkSpace`. */
export async function updateRse(executor: Executor, id: number, change: RseChange): Promise<void> {
  const { columns, bindings } = columnsOf(change)
  if (columns.length === 0) return
  const sets = columns.map(column => `${column} = :${column}`)
  const [space] = await query<Pick<RseSettings, 'capacityBytes' | 'minFreeBytes'>>(
    executor,
    `UPDATE rses SET ${sets.join(', ')} WHERE id = :id RETURNING capacity_bytes AS "capacityBytes", min_free_bytes AS "minFreeBytes"`,
    { id, ...bindings },
  )
  if (space !== undefined) checkSpace(space)
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

export async function putProtocol(executor: Executor, id: number, protocol: Protocol): Promise<void> {
  await query(
    executor,
    `INSERT INTO rse_protocols (rse_id, url, priority, can_pull, can_push, fresh_connections, macaroons, redirect_hosts)
     VALUES (:id, :url, :priority, :canPull, :canPush, :freshConnections, :macaroons, :redirectHosts)
     ON CONFLICT (rse_id, url) DO UPDATE SET priority = excluded.priority, can_pull = excluded.can_pull,
       can_push = excluded.can_push, fresh_connections = excluded.fresh_connections, macaroons = excluded.macaroons,
       redirect_hosts = excluded.redirect_hosts`,
    { ...protocol, id, redirectHosts: JSON.stringify(protocol.redirectHosts) },
  )
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
