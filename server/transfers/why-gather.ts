import type { WorkerPool } from '../accounts/pools.ts'
import { reachesCopy, reachOf, type WorkerReach } from '../accounts/reach.ts'
import type { Executor } from '../database/sql.ts'
import { AHEAD } from '../tokens/unplanned.ts'
import { storageLoads } from './claim.ts'
import { CLOSED, NOWHERE, NOWHERE_ALLOWED } from './lost.ts'
import { why } from './why.ts'
import type { GrantFacts, HoldFacts, ReplicasFacts, StorageFacts, Why, WhyFacts, WorkersFacts } from './why-facts.ts'
import {
  bundleRows,
  destinationRows,
  grantRows,
  linkRows,
  replicaRows,
  sessionRows,
  storageRows,
  transferRows,
  type WhyTransferRow,
} from './why-store.ts'

export interface WhyOfTransfer extends Why {
  readonly id: number
  readonly did: string
  readonly state: string
  readonly source: string | undefined
  readonly destination: string
}

/** What the configuration knows of workers; `rses` are all storages there are. */
export interface Fleet {
  readonly pools: readonly WorkerPool[]
  readonly rses: readonly { readonly id: number; readonly name: string }[]
}

const REPLICAS_READ = 10

/**
 * Why each of these transfers waits: nine statements, however many they are. Counts of a queue end at `counted`. Keys that no
 * transfer has are left out.
 */
export async function whyOf(
  read: Executor,
  { pools, rses }: Fleet,
  ids: readonly number[],
  counted: number,
  now: number,
): Promise<WhyOfTransfer[]> {
  if (ids.length === 0) return []
  const rows = await transferRows(read, ids, counted, now)
  const storages = await storagesOf(read, rows)
  const links = await linksOf(read, rows, now)
  const holds = await destinationHolds(read, rows, now)
  const bundles = byId(await bundleRows(read, distinct(rows.map(row => row.bundle_id)), counted, now))
  const grants = await grantsOf(read, [...bundles.values()], now)
  const replicas = await replicasOf(read, rows)
  const workers = await workersOf(read, pools, rses, now)
  return rows.flatMap(row => {
    const destination = storages.get(row.destination_rse_id)
    if (destination === undefined) return []
    const source = storages.get(row.source_rse_id ?? 0)
    const bundle = bundles.get(row.bundle_id ?? 0)
    const facts: WhyFacts = {
      ...ownFacts(row, now),
      source,
      destination,
      link: links.get(row.link_id ?? 0),
      destinationHold: holds.get(`${row.vo_id} ${row.destination_rse_id}`),
      grants: {
        source: grants.get(bundle?.source_grant_id ?? 0),
        destination: grants.get(bundle?.destination_grant_id ?? 0),
      },
      replicas: replicas.get(row.id) ?? { total: 0, some: [] },
      queue: {
        counted,
        urgent: bundle?.urgent ?? 0,
        before: Math.min(counted, (bundle?.sooner ?? 0) + row.earlier),
        isFarBack: (bundle?.ahead ?? 0) >= AHEAD,
      },
      workers: workers(row),
    }
    const { id, did, state } = row
    return [{ id, did, state, source: source?.name, destination: destination.name, ...why(facts) }]
  })
}

function ownFacts(row: WhyTransferRow, now: number) {
  const { permit_until: until, worker, via, hop } = row
  return {
    now,
    state: row.state,
    attempts: row.attempts,
    notBefore: row.not_before,
    bytes: row.bytes,
    bytesDone: row.bytes_done,
    cancelRequested: Boolean(row.cancel_requested),
    updatedAt: row.updated_at,
    lastError: lastErrorOf(row),
    sources: row.sources ?? undefined,
    way: via === null || hop === null ? undefined : { via, hop },
    tape:
      row.tape_since === null
        ? undefined
        : {
            isAsked: row.tape_state !== 'WANTED',
            since: row.tape_since,
            error: row.tape_error ?? undefined,
            next: row.tape_next ?? now,
          },
    permit: until === null ? undefined : { until, isPersons: row.permit_transfer === 0 },
    holder:
      worker === null
        ? undefined
        : { worker, claimedAt: row.claimed_at ?? row.updated_at, isAlive: (row.session_ends ?? 0) > now },
  }
}

/** Of one that found no way over other storages any more that of the last hop; of one whose file is nowhere, that. */
function lastErrorOf({ state, reason, via, error_code: code, error_message: message }: WhyTransferRow) {
  if (state === 'FAILED' && reason === 'NO_SOURCE') return { code: reason, message: NOWHERE }
  if (state === 'FAILED' && reason === 'NO_ALLOWED_SOURCE') return { code: reason, message: NOWHERE_ALLOWED }
  if (state === 'FAILED' && reason === 'DESTINATION_CLOSED') return { code: reason, message: CLOSED }
  if (state === 'FAILED' && via !== null) return { code: 'HOP_FAILED', message: `over ${via}` }
  return code === null ? undefined : { code, message: message ?? '' }
}

async function storagesOf(read: Executor, rows: readonly WhyTransferRow[]): Promise<Map<number, StorageFacts>> {
  const ids = distinct(rows.flatMap(row => [row.source_rse_id, row.destination_rse_id]))
  const loads = await storageLoads(read, ids)
  const known = await storageRows(read, ids)
  return new Map(
    known.map(({ id, name, availability_read, availability_write }) => {
      const { inbound = 0, maxInbound = 0, outbound = 0, maxOutbound = 0 } = loads.get(id) ?? {}
      const open = { isReadable: Boolean(availability_read), isWritable: Boolean(availability_write) }
      return [id, { name, ...open, inbound, maxInbound, outbound, maxOutbound }]
    }),
  )
}

async function linksOf(read: Executor, rows: readonly WhyTransferRow[], now: number) {
  const links = await linkRows(read, distinct(rows.map(row => row.link_id)), now)
  return new Map(
    links.map(row => {
      const { distance, active, claim_limit: limit, max_active: maxActive } = row
      return [row.id, { distance, active, limit, maxActive, hold: holdOf(row) }]
    }),
  )
}

/** By VO and storage. */
async function destinationHolds(read: Executor, rows: readonly WhyTransferRow[], now: number) {
  const found = await destinationRows(read, distinct(rows.map(row => row.destination_rse_id)), now)
  return new Map(
    found.flatMap(row => {
      const hold = holdOf(row)
      return hold === undefined ? [] : [[`${row.vo_id} ${row.rse_id}`, { ...hold, room: row.room }]]
    }),
  )
}

type Nullable<T> = { readonly [K in keyof T]: T[K] | null }

function holdOf({
  since,
  held_until: heldUntil,
  successes,
  code,
  message,
}: Nullable<{ since: number; held_until: number; successes: number; code: string; message: string }>):
  | HoldFacts
  | undefined {
  if (heldUntil === null) return undefined
  return { since: since ?? 0, heldUntil, successes: successes ?? 0, code: code ?? '', message: message ?? '' }
}

async function grantsOf(
  read: Executor,
  bundles: readonly { source_grant_id: number | null; destination_grant_id: number | null }[],
  now: number,
): Promise<Map<number, GrantFacts>> {
  const ids = distinct(bundles.flatMap(row => [row.source_grant_id, row.destination_grant_id]))
  const rows = await grantRows(read, ids, now)
  return new Map(
    rows.map(({ id, state, error, not_before: notBefore, usable, long_lived }) => [
      id,
      { id, state, error, notBefore, isUsable: Boolean(usable), isLongLived: Boolean(long_lived) },
    ]),
  )
}

async function replicasOf(read: Executor, rows: readonly WhyTransferRow[]): Promise<Map<number, ReplicasFacts>> {
  const waiting = rows.filter(({ state }) => state === 'WAITING').map(row => row.id)
  const found = new Map<number, ReplicasFacts>()
  for (const { transfer_id, total, storage, state, availability_read, linked, allowed } of await replicaRows(
    read,
    waiting,
    REPLICAS_READ,
  )) {
    const open = { isReadable: Boolean(availability_read), isLinked: Boolean(linked), isAllowed: Boolean(allowed) }
    const replica = { storage, state, ...open }
    found.set(transfer_id, { total, some: [...(found.get(transfer_id)?.some ?? []), replica] })
  }
  return found
}

/** Which workers there are for a transfer. Sessions of a pool that the configuration names no more can take nothing. */
async function workersOf(
  read: Executor,
  pools: readonly WorkerPool[],
  rses: Fleet['rses'],
  now: number,
): Promise<(row: WhyTransferRow) => WorkersFacts> {
  const reaches = pools.map(({ issuer, client, rights }) => ({ issuer, client, reach: reachOf(rights, rses) }))
  const sessions = (await sessionRows(read, now)).map(({ issuer, client, drained_at, busy }) => ({
    isDrained: drained_at !== null,
    busy,
    reaches: reaches.filter(pool => pool.issuer === issuer && pool.client === client).map(({ reach }) => reach),
  }))
  return ({ vo_id: voId, activity, source_rse_id, destination_rse_id: destination }) => {
    const copy = { voId, activity, source: source_rse_id ?? 0, destination }
    const serves = (reach: WorkerReach): boolean => reachesCopy(reach, copy)
    const seen = sessions.filter(session => session.reaches.some(({ voIds }) => voIds?.includes(voId) !== false))
    const serving = seen.filter(session => !session.isDrained && session.reaches.some(serves))
    return {
      alive: seen.length,
      drained: seen.filter(({ isDrained }) => isDrained).length,
      serving: serving.length,
      busy: serving.reduce((sum, { busy }) => sum + busy, 0),
    }
  }
}

function distinct(ids: readonly (number | null)[]): number[] {
  return [...new Set(ids.filter(id => id !== null))]
}

function byId<Row extends { readonly id: number }>(rows: readonly Row[]): Map<number, Row> {
  return new Map(rows.map(row => [row.id, row]))
}
