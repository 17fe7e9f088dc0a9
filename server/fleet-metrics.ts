import { Counter, Gauge, type Registry } from 'prom-client'
import { ACTIVE_STATES } from '../shared/domain/transfer-state.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Database } from './database/database.ts'
import { type Executor, query, queryOne, stateList } from './database/sql.ts'

/** Scrapes within this time of each other share one look at the database. Milliseconds. */
const FRESH_MS = 5_000
const ACTIVE = stateList(ACTIVE_STATES)

/**
 * Figures of the whole database, `waybill_fleet_*`: the same from every server, read when they are scraped. The queue is
 * counted in its partial indexes, so that finished transfers cost nothing. When the database cannot be read they are
 * absent, and the figures of the process are still there.
 */
export function fleetMetrics(registry: Registry, db: Database, clock: Clock): void {
  const registers = [registry]
  const link = ['source', 'destination'] as const
  let last: { at: number; done: Promise<void> } | undefined
  const collect = (): Promise<void> => {
    const at = clock.monotonic()
    if (last === undefined || at - last.at > FRESH_MS) last = { at, done: read() }
    return last.done
  }
  const gauge = <T extends string>(name: string, help: string, labelNames: readonly T[]): Gauge<T> =>
    new Gauge({ name: `waybill_fleet_${name}`, help, labelNames, registers, collect })

  const transfers = gauge('transfers', 'Open transfers, by link and state; source is empty before one is chosen', [
    ...link,
    'state',
  ])
  const linkLimit = gauge('link_limit', 'Transfers that may be active on a link, as an admin has set it', link)
  const linkLearnt = gauge('link_learnt_limit', 'What was learnt of it: the lesser of the two counts', link)
  const storageActive = gauge('storage_active', 'Active transfers of a storage, in and out', ['rse', 'direction'])
  const storageLimit = gauge('storage_limit', 'Transfers that may be active at a storage', ['rse', 'direction'])
  const held = gauge('link_held', 'Links whose source fails: held back, or on trial', link)
  const full = gauge(
    'destination_held',
    'Storages that fail as a destination of a VO, or are full: held back, or on trial',
    ['vo', 'rse'],
  )
  const rules = gauge('rules', 'Rules by state', ['state'])
  const locks = gauge('locks', 'Locks by state', ['state'])
  const grants = gauge('grants', 'Grants by state', ['state'])
  const bundles = gauge('bundles', 'Bundles with work; not ready: a token is missing', ['ready'])
  const sessions = gauge('sessions', 'Workers whose session is alive', [])
  const drained = gauge(
    'drained_workers',
    'Workers that an admin has drained: they get no work until they are resumed',
    [],
  )
  const bad = gauge('bad_replicas', 'Replicas that are BAD or lost, and not recovered yet', ['rse'])
  const imports = gauge('imports', 'Imports by state', ['state'])
  const failures = new Counter({
    name: 'waybill_fleet_read_failures_total',
    help: 'Times that the database could not be read for these figures',
    registers,
  })
  const gauges: readonly Gauge[] = [
    transfers,
    linkLimit,
    linkLearnt,
    storageActive,
    storageLimit,
    held,
    full,
    rules,
    locks,
    grants,
    bundles,
    sessions,
    drained,
    bad,
    imports,
  ]

  function forget(): void {
    for (const each of gauges) each.reset()
    // Without labels a reset is a 0, which would be a figure.
    sessions.remove()
    drained.remove()
  }

  async function read(): Promise<void> {
    try {
      const found = await readFleet(db.read)
      forget()
      for (const { count, ...labels } of found.transfers) transfers.set(labels, count)
      for (const { max_active, learnt, ...labels } of found.links) {
        linkLimit.set(labels, max_active)
        if (learnt !== null) linkLearnt.set(labels, learnt)
      }
      for (const { rse, inbound, outbound, max_inbound, max_outbound } of found.storages) {
        storageActive.set({ rse, direction: 'in' }, inbound)
        storageActive.set({ rse, direction: 'out' }, outbound)
        storageLimit.set({ rse, direction: 'in' }, max_inbound)
        storageLimit.set({ rse, direction: 'out' }, max_outbound)
      }
      for (const labels of found.held) held.set(labels, 1)
      for (const labels of found.destinations) full.set(labels, 1)
      for (const { state, count } of found.rules) rules.set({ state }, count)
      locks.set({ state: 'OK' }, found.locks.ok)
      locks.set({ state: 'REPLICATING' }, found.locks.replicating)
      locks.set({ state: 'STUCK' }, found.locks.stuck)
      for (const { state, count } of found.grants) grants.set({ state }, count)
      bundles.set({ ready: 'true' }, found.bundles.ready)
      bundles.set({ ready: 'false' }, found.bundles.unready)
      sessions.set(found.sessions)
      drained.set(found.drained)
      for (const { rse, count } of found.bad) bad.set({ rse }, count)
      for (const { state, count } of found.imports) imports.set({ state }, count)
    } catch {
      forget()
      failures.inc()
    }
  }
}

interface LinkNames {
  source: string
  destination: string
}

interface StorageFigures {
  rse: string
  inbound: number
  outbound: number
  max_inbound: number
  max_outbound: number
}

interface Fleet {
  transfers: (LinkNames & { state: string; count: number })[]
  links: (LinkNames & { max_active: number; learnt: number | null })[]
  storages: StorageFigures[]
  held: LinkNames[]
  destinations: { vo: string; rse: string }[]
  rules: { state: string; count: number }[]
  locks: { ok: number; replicating: number; stuck: number }
  grants: { state: string; count: number }[]
  bundles: { ready: number; unready: number }
  sessions: number
  drained: number
  bad: { rse: string; count: number }[]
  imports: { state: string; count: number }[]
}

async function readFleet(read: Executor): Promise<Fleet> {
  const locks = await queryOne<Fleet['locks']>(
    read,
    `SELECT coalesce(sum(locks_ok), 0) AS ok, coalesce(sum(locks_replicating), 0) AS replicating,
            coalesce(sum(locks_stuck), 0) AS stuck FROM rules`,
  )
  const bundles = await queryOne<Fleet['bundles']>(
    read,
    `SELECT (SELECT count(*) FROM bundles WHERE has_work AND ready) AS ready,
            (SELECT count(*) FROM bundles WHERE has_work AND NOT ready) AS unready`,
  )
  const sessions = await queryOne<{ count: number }>(
    read,
    'SELECT count(*) AS count FROM sessions WHERE ended_at IS NULL',
  )
  const drained = await queryOne<{ count: number }>(
    read,
    'SELECT count(*) AS count FROM workers WHERE drained_at IS NOT NULL',
  )
  return {
    transfers: [...(await queued(read)), ...(await waiting(read)), ...(await active(read))],
    links: await query<Fleet['links'][number]>(
      read,
      `SELECT source.name AS source, destination.name AS destination, max_active,
              CASE WHEN optimize THEN learnt_active END AS learnt
         FROM links JOIN rses AS source ON source.id = source_rse_id
         JOIN rses AS destination ON destination.id = destination_rse_id WHERE distance > 0`,
    ),
    storages: await query<StorageFigures>(
      read,
      `SELECT name AS rse, max_inbound, max_outbound,
              (SELECT count(*) FROM transfers WHERE destination_rse_id = rses.id AND state IN (${ACTIVE})) AS inbound,
              (SELECT count(*) FROM transfers WHERE source_rse_id = rses.id AND state IN (${ACTIVE})) AS outbound
         FROM rses`,
    ),
    held: await query<LinkNames>(
      read,
      `SELECT source.name AS source, destination.name AS destination FROM link_health
         JOIN links ON links.id = link_health.link_id JOIN rses AS source ON source.id = source_rse_id
         JOIN rses AS destination ON destination.id = destination_rse_id WHERE held_until > 0`,
    ),
    destinations: await query<Fleet['destinations'][number]>(
      read,
      `SELECT vos.name AS vo, rses.name AS rse FROM destination_health JOIN vos ON vos.id = destination_health.vo_id
         JOIN rses ON rses.id = rse_id WHERE held_until > 0`,
    ),
    rules: await query<Fleet['rules'][number]>(read, 'SELECT state, count(*) AS count FROM rules GROUP BY state'),
    locks: locks ?? { ok: 0, replicating: 0, stuck: 0 },
    grants: await query<Fleet['grants'][number]>(read, 'SELECT state, count(*) AS count FROM grants GROUP BY state'),
    bundles: bundles ?? { ready: 0, unready: 0 },
    sessions: sessions?.count ?? 0,
    drained: drained?.count ?? 0,
    bad: await query<Fleet['bad'][number]>(
      read,
      `SELECT rses.name AS rse, count(*) AS count FROM replica_faults JOIN replicas ON replicas.id = replica_faults.replica_id
         JOIN rses ON rses.id = replicas.rse_id WHERE replica_faults.over_at IS NULL GROUP BY rses.name`,
    ),
    imports: await query<Fleet['imports'][number]>(read, 'SELECT state, count(*) AS count FROM imports GROUP BY state'),
  }
}

/** From the index of what may be claimed: the rows themselves are not read. */
async function queued(read: Executor): Promise<Fleet['transfers']> {
  return query(
    read,
    `SELECT source.name AS source, destination.name AS destination, 'QUEUED' AS state, sum(queued.count) AS count
       FROM (SELECT bundle_id, count(*) AS count FROM transfers WHERE state = 'QUEUED' GROUP BY bundle_id) AS queued
       JOIN bundles ON bundles.id = queued.bundle_id JOIN links ON links.id = bundles.link_id
       JOIN rses AS source ON source.id = links.source_rse_id
       JOIN rses AS destination ON destination.id = links.destination_rse_id
      GROUP BY source.name, destination.name`,
  )
}

async function waiting(read: Executor): Promise<Fleet['transfers']> {
  return query(
    read,
    `SELECT coalesce(source.name, '') AS source, destination.name AS destination, 'WAITING' AS state, waiting.count
       FROM (SELECT source_rse_id, destination_rse_id, count(*) AS count FROM transfers WHERE state = 'WAITING'
              GROUP BY source_rse_id, destination_rse_id) AS waiting
       LEFT JOIN rses AS source ON source.id = waiting.source_rse_id
       JOIN rses AS destination ON destination.id = waiting.destination_rse_id`,
  )
}

/** Few rows: the limits bound them. */
async function active(read: Executor): Promise<Fleet['transfers']> {
  return query(
    read,
    `SELECT source.name AS source, destination.name AS destination, active.state, active.count
       FROM (SELECT link_id, state, count(*) AS count FROM transfers WHERE state IN (${ACTIVE}) GROUP BY link_id, state) AS active
       JOIN links ON links.id = active.link_id JOIN rses AS source ON source.id = links.source_rse_id
       JOIN rses AS destination ON destination.id = links.destination_rse_id`,
  )
}
