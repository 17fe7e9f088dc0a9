import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import type { WorkerPool } from '../accounts/pools.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, encodeRows, query, queryOne, recordset, stateList } from '../database/sql.ts'

/** A worker is known by its pool and its own name, over all of its sessions. */
export interface WorkerKey {
  readonly issuer: string
  readonly client: string
  readonly worker: string
}

export interface WorkerRow extends WorkerKey {
  drained_at: number | null
  /** Of its newest session that has not ended; null: it has none. */
  started_at: number | null
  expires_at: number | null
  version: string | null
  /** Transfers under way and imports, as far as they are seen. */
  active: number
  imports: number
  /** 1 when it has work of any kind, seen or not: transfers, imports, grants that it renews. */
  busy: number
}

/** Those with a session and those that are drained, of these pools or of all, each with as much of its work as is seen. */
export async function listWorkers(
  read: Executor,
  sight: Sight,
  pools: readonly Pick<WorkerPool, 'issuer' | 'client'>[] | undefined,
  now: number,
): Promise<WorkerRow[]> {
  const within = withinReach(read, sight, { vo: 'vo_id' })
  const active = `FROM transfers WHERE session_id = sessions.id AND state IN (${stateList(ACTIVE_STATES)})`
  const imports = `FROM imports WHERE session_id = sessions.id AND state = 'LISTING'`
  const renewals = 'FROM grants WHERE lease_session_id = sessions.id AND lease_until > :now'
  const among =
    pools === undefined
      ? ''
      : `AND (issuer, client) IN (SELECT issuer, client FROM ${recordset(read, 'pools', { issuer: 'text', client: 'text' })} AS given)`
  return query<WorkerRow>(
    read,
    `SELECT issuer, client, worker, drained_at, newest.started_at, newest.expires_at, newest.version,
            coalesce(open.active, 0) AS active, coalesce(open.imports, 0) AS imports, coalesce(open.busy, 0) AS busy
       FROM workers LEFT JOIN
            (SELECT issuer, client, worker, max(id) AS newest_id, CAST(sum(active) AS bigint) AS active,
                    CAST(sum(imports) AS bigint) AS imports, max(busy) AS busy
               FROM (SELECT id, issuer, client, worker, (SELECT count(*) ${active}${within}) AS active,
                            (SELECT count(*) ${imports}${within}) AS imports,
                            CASE WHEN EXISTS (SELECT 1 ${active}) OR EXISTS (SELECT 1 ${imports})
                                   OR EXISTS (SELECT 1 ${renewals}) THEN 1 ELSE 0 END AS busy
                       FROM sessions WHERE ended_at IS NULL) AS each_open
              GROUP BY issuer, client, worker) AS open USING (issuer, client, worker)
       LEFT JOIN (SELECT id, started_at, expires_at, version FROM sessions) AS newest ON newest.id = open.newest_id
      WHERE (open.newest_id IS NOT NULL OR drained_at IS NOT NULL) ${among} ORDER BY worker, client, issuer`,
    {
      now,
      ...reachBindings(sight),
      ...(pools === undefined ? {} : { pools: encodeRows(pools.map(({ issuer, client }) => ({ issuer, client }))) }),
    },
  )
}

/** The workers that have had this name, with what else is known of it. */
export async function workersNamed(
  read: Executor,
  worker: string,
  { issuer = '', client = '' }: { issuer?: string | undefined; client?: string | undefined },
): Promise<WorkerKey[]> {
  return query<WorkerKey>(
    read,
    `SELECT issuer, client, worker FROM workers WHERE worker = :worker
        AND (:issuer = '' OR issuer = :issuer) AND (:client = '' OR client = :client) ORDER BY client, issuer`,
    { worker, issuer, client },
  )
}

/**
 * When this transaction is over the worker gets no more work, also by claims that are under way: they hold the row until they
 * are over (`holdSession`). Draining again keeps the time of the first.
 */
export async function drain(executor: Executor, key: WorkerKey, now: number): Promise<void> {
  await setDrained(executor, key, 'coalesce(drained_at, :now)', { now })
}

export async function resume(executor: Executor, key: WorkerKey): Promise<void> {
  await setDrained(executor, key, 'NULL')
}

async function setDrained(
  executor: Executor,
  key: WorkerKey,
  value: string,
  more: { now?: number } = {},
): Promise<void> {
  const { issuer, client, worker } = key
  const sql = `UPDATE workers SET drained_at = ${value} WHERE issuer = :issuer AND client = :client AND worker = :worker RETURNING worker`
  if ((await queryOne(executor, sql, { issuer, client, worker, ...more })) === undefined) {
    throw new Error(`the worker ${worker} is gone`)
  }
}
