import { servesWithin, type WorkerPool } from './accounts/pools.ts'
import { reachBindings, withinReach } from './accounts/reach.ts'
import { sightOf } from './accounts/sight.ts'
import type { Handlers } from './app.ts'
import type { Context } from './context.ts'
import { type Executor, query, queryOne } from './database/sql.ts'
import { listWorkers } from './transfers/worker-store.ts'

/** What the installation is doing, whichever server is asked: as far as the caller sees it. */
export function statusHandlers(
  { db, clock, storages }: Context,
  pools: readonly WorkerPool[],
  version: string,
): Pick<Handlers, 'status'> {
  return {
    async status({ caller }) {
      const now = clock.now()
      const sight = sightOf(caller)
      const rses = await storages.seenBy(sight)
      const seenPools = sight.voIds === undefined ? undefined : pools.filter(pool => servesWithin(pool, sight, rses))
      const within = withinReach(db.read, sight, { vo: 'vo_id' })
      const seen = reachBindings(sight)
      const [rules, transfers, grants, workers, requests] = await Promise.all([
        countBy(db.read, `SELECT state, count(*) AS count FROM rules WHERE true${within} GROUP BY state`, seen),
        countBy(
          db.read,
          `SELECT state, count(*) AS count FROM transfers
            WHERE state NOT IN ('DONE', 'FAILED', 'CANCELLED')${within} GROUP BY state`,
          seen,
        ),
        countBy(db.read, `SELECT state, count(*) AS count FROM grants WHERE true${within} GROUP BY state`, seen),
        listWorkers(db.read, sight, seenPools, now),
        queryOne<{ mints: number | null; exchanges: number | null; refreshes: number | null }>(
          db.read,
          `SELECT sum(mints) AS mints, sum(exchanges) AS exchanges, sum(refreshes) AS refreshes FROM grants
            WHERE true${within}`,
          seen,
        ),
      ])
      return {
        version,
        rules,
        transfers,
        grants,
        workers: workers.flatMap(({ worker, client, active, started_at, expires_at }) =>
          started_at === null || expires_at === null || expires_at <= now
            ? []
            : [{ name: worker, client, active, sinceSeconds: Math.floor((now - started_at) / 1000) }],
        ),
        tokenRequests: {
          minted: requests?.mints ?? 0,
          exchanged: requests?.exchanges ?? 0,
          refreshed: requests?.refreshes ?? 0,
        },
      }
    },
  }
}

type Bindings = ReturnType<typeof reachBindings>

async function countBy(read: Executor, sql: string, bindings: Bindings): Promise<Record<string, number>> {
  const rows = await query<{ state: string; count: number }>(read, sql, bindings)
  return Object.fromEntries(rows.map(row => [row.state, row.count]))
}
