import { type Binding, type Executor, query, queryOne } from '../database/sql.ts'
import type { AttributeValue, Protocol } from './directory.ts'

export interface NewRse {
  name: string
  voId: number
  prefix: string
  basePath: string
  audience: string
  layout: string
  checksum: string
  maxInbound: number
  maxOutbound: number
  now: number
}

/** The new key, or `undefined` when the name is taken. */
export async function insertRse(executor: Executor, rse: NewRse): Promise<number | undefined> {
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO rses (name, layout, checksum, availability_read, availability_write, availability_delete,
                       max_inbound, max_outbound, created_at)
     VALUES (:name, :layout, :checksum, true, true, true, :maxInbound, :maxOutbound, :now)
     ON CONFLICT (name) DO NOTHING RETURNING id`,
    {
      name: rse.name,
      layout: rse.layout,
      checksum: rse.checksum,
      maxInbound: rse.maxInbound,
      maxOutbound: rse.maxOutbound,
      now: rse.now,
    },
  )
  if (row === undefined) return undefined
  await query(
    executor,
    `INSERT INTO vo_rses (vo_id, rse_id, prefix, base_path, audience) VALUES (:voId, :id, :prefix, :basePath, :audience)`,
    { id: row.id, voId: rse.voId, prefix: rse.prefix, basePath: rse.basePath, audience: rse.audience },
  )
  return row.id
}

/** Columns that PATCH may set: the names are ours, the values are bound. */
const SETTABLE = {
  maxInbound: 'max_inbound',
  maxOutbound: 'max_outbound',
  availabilityRead: 'availability_read',
  availabilityWrite: 'availability_write',
  availabilityDelete: 'availability_delete',
} as const
export type RseChange = { readonly [key in keyof typeof SETTABLE]?: number | boolean | undefined }

export async function updateRse(executor: Executor, id: number, change: RseChange): Promise<void> {
  const bindings: Record<string, Binding> = { id }
  const sets: string[] = []
  for (const [key, column] of Object.entries(SETTABLE)) {
    const value = change[key as keyof RseChange]
    if (value === undefined) continue
    sets.push(`${column} = :${key}`)
    bindings[key] = value
  }
  if (sets.length > 0) await query(executor, `UPDATE rses SET ${sets.join(', ')} WHERE id = :id`, bindings)
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
}

export async function putLink(
  executor: Executor,
  link: { sourceId: number; destinationId: number; distance: number; maxActive: number },
): Promise<void> {
  await query(
    executor,
    `INSERT INTO links (source_rse_id, destination_rse_id, distance, max_active, weight, has_work, served_at)
     VALUES (:sourceId, :destinationId, :distance, :maxActive, 1, false, 0)
     ON CONFLICT (source_rse_id, destination_rse_id) DO UPDATE SET distance = excluded.distance, max_active = excluded.max_active`,
    link,
  )
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
