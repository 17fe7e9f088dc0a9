import type { WatchdogSeconds } from '../../shared/contract/fields.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Clock } from '../../shared/runtime/clock.ts'
import { type Sight, sees } from '../accounts/sight.ts'
import { type Executor, query } from '../database/sql.ts'
import { Kept } from '../kept.ts'
import type { Layout } from './paths.ts'

export type AttributeValue = string | number | boolean

export interface Protocol {
  readonly url: string
  readonly priority: number
  readonly canPull: boolean
  readonly canPush: boolean
  readonly freshConnections: boolean
  readonly macaroons: boolean
  readonly redirectHosts: readonly string[]
}

/** A storage (RSE), as one VO sees it. */
export interface Rse {
  readonly id: number
  readonly name: string
  readonly voId: number
  readonly vo: string
  /** Where the VO's replicas live: an absolute path at the storage. */
  readonly prefix: string
  /** What the storage puts before the issuer's scope paths. */
  readonly basePath: string
  readonly audience: string
  readonly layout: Layout
  readonly checksum: 'adler32' | 'md5'
  readonly availabilityRead: boolean
  readonly availabilityWrite: boolean
  readonly availabilityDelete: boolean
  readonly maxInbound: number
  readonly maxOutbound: number
  readonly maxStaging: number
  readonly maxDeletions: number
  readonly checksumPolicy: 'none' | 'source' | 'destination' | 'both'
  readonly watchdogs: WatchdogSeconds
  readonly tape: boolean
  readonly multihop: boolean
  readonly capacityBytes: number | null
  readonly minFreeBytes: number | null
  /** What is registered, imported or uploaded there from now on stays when no rule asks for it any more. */
  readonly keepRegistered: boolean
  /** Between the last lock and the deletion; null: as the server is configured. */
  readonly tombstoneDelaySeconds: number | null
  readonly attributes: Readonly<Record<string, AttributeValue>>
  /** By priority: the first is used. */
  readonly protocols: readonly Protocol[]
}

/** The storages and what is said of them: few rows that everything reads and that rarely change. */
export class StorageDirectory {
  readonly #known: Kept<Rse[]>

  constructor(read: Executor, clock: Clock) {
    this.#known = new Kept(clock, () => loadRses(read))
  }

  async all(): Promise<Rse[]> {
    return this.#known.get()
  }

  /** After a change of this server's own. */
  forget(): void {
    this.#known.forget()
  }

  async ofVo(voId: number): Promise<Rse[]> {
    return (await this.all()).filter(rse => rse.voId === voId)
  }

  async seenBy(sight: Sight): Promise<Rse[]> {
    return (await this.all()).filter(rse => sees(sight, rse.voId))
  }

  /** Throws 404 RSE_UNKNOWN. */
  async byName(sight: Sight, name: string, field = 'rse'): Promise<Rse> {
    const rse = (await this.seenBy(sight)).find(candidate => candidate.name === name)
    if (rse === undefined) {
      throw new WaybillError('RSE_UNKNOWN', `there is no storage ${name}: \`waybill rse list\` shows all`, {
        status: 404,
        field,
      })
    }
    return rse
  }

  async byId(id: number): Promise<Rse> {
    const rse = (await this.all()).find(candidate => candidate.id === id)
    if (rse === undefined) throw new WaybillError('RSE_UNKNOWN', `there is no storage with the key ${id}`)
    return rse
  }
}

/** The URL that absolute paths are appended to. */
export function protocolOf(rse: Rse): Protocol {
  const [first] = rse.protocols
  if (first === undefined)
    throw new WaybillError('RSE_NO_PROTOCOL', `the storage ${rse.name} has no protocol`, { status: 409 })
  return first
}

async function loadRses(read: Executor): Promise<Rse[]> {
  const rses = await query<{
    id: number
    name: string
    vo_id: number
    vo: string
    prefix: string
    base_path: string
    audience: string
    layout: Layout
    checksum: 'adler32' | 'md5'
    availability_read: number | boolean
    availability_write: number | boolean
    availability_delete: number | boolean
    max_inbound: number
    max_outbound: number
    max_staging: number
    max_deletions: number
    checksum_policy: Rse['checksumPolicy']
    watchdogs: string
    tape: number | boolean
    multihop: number | boolean
    capacity_bytes: number | null
    min_free_bytes: number | null
    keep_registered: number | boolean
    tombstone_delay: number | null
  }>(
    read,
    `SELECT rses.*, vo_rses.vo_id, vo_rses.prefix, vo_rses.base_path, vo_rses.audience, vos.name AS vo
       FROM rses JOIN vo_rses ON vo_rses.rse_id = rses.id JOIN vos ON vos.id = vo_rses.vo_id ORDER BY rses.name`,
  )
  const attributes = await query<{ rse_id: number; key: string; value: string }>(read, 'SELECT * FROM rse_attributes')
  const protocols = await query<{
    rse_id: number
    url: string
    priority: number
    can_pull: number | boolean
    can_push: number | boolean
    fresh_connections: number | boolean
    macaroons: number | boolean
    redirect_hosts: string
  }>(read, 'SELECT * FROM rse_protocols ORDER BY priority, id')
  return rses.map(row => ({
    id: row.id,
    name: row.name,
    voId: row.vo_id,
    vo: row.vo,
    prefix: row.prefix,
    basePath: row.base_path,
    audience: row.audience,
    layout: row.layout,
    checksum: row.checksum,
    availabilityRead: Boolean(row.availability_read),
    availabilityWrite: Boolean(row.availability_write),
    availabilityDelete: Boolean(row.availability_delete),
    maxInbound: row.max_inbound,
    maxOutbound: row.max_outbound,
    maxStaging: row.max_staging,
    maxDeletions: row.max_deletions,
    checksumPolicy: row.checksum_policy,
    watchdogs: JSON.parse(row.watchdogs) as WatchdogSeconds,
    tape: Boolean(row.tape),
    multihop: Boolean(row.multihop),
    capacityBytes: row.capacity_bytes,
    minFreeBytes: row.min_free_bytes,
    keepRegistered: Boolean(row.keep_registered),
    tombstoneDelaySeconds: row.tombstone_delay,
    attributes: Object.fromEntries(
      attributes.filter(a => a.rse_id === row.id).map(a => [a.key, JSON.parse(a.value) as AttributeValue]),
    ),
    protocols: protocols
      .filter(p => p.rse_id === row.id)
      .map(p => ({
        url: p.url,
        priority: p.priority,
        canPull: Boolean(p.can_pull),
        canPush: Boolean(p.can_push),
        freshConnections: Boolean(p.fresh_connections),
        macaroons: Boolean(p.macaroons),
        redirectHosts: JSON.parse(p.redirect_hosts) as string[],
      })),
  }))
}
