import { ACTIVE_STATES } from '../shared/domain/transfer-state.ts'
import type { Handlers } from './app.ts'
import type { Context } from './context.ts'
import { type Executor, query, queryOne, stateList } from './database/sql.ts'

/** What the whole installation is doing, whichever server is asked. */
export function statusHandlers({ db, clock }: Context, version: string): Pick<Handlers, 'status'> {
  return {
    async status() {
      const now = clock.now()
      const [rules, transfers, grants, workers, requests] = await Promise.all([
        countBy(db.read, `SELECT state, count(*) AS count FROM rules GROUP BY state`),
        countBy(
          db.read,
          `SELECT state, count(*) AS count FROM transfers WHERE state NOT IN ('DONE', 'FAILED', 'CANCELLED') GROUP BY state`,
        ),
        countBy(db.read, 'SELECT state, count(*) AS count FROM grants GROUP BY state'),
        query<{ worker: string; client: string; started_at: number; active: number }>(
          db.read,
          `SELECT worker, client, started_at, (SELECT count(*) FROM transfers WHERE session_id = sessions.id
              AND state IN (${stateList(ACTIVE_STATES)})) AS active
             FROM sessions WHERE ended_at IS NULL AND expires_at > :now ORDER BY id LIMIT 1000`,
          { now },
        ),
        queryOne<{ mints: number | null; exchanges: number | null; refreshes: number | null }>(
          db.read,
          'SELECT sum(mints) AS mints, sum(exchanges) AS exchanges, sum(refreshes) AS refreshes FROM grants',
        ),
      ])
      return {
        version,
        rules,
        transfers,
        grants,
        workers: workers.map(({ worker, client, active, started_at }) => ({
          name: worker,
          client,
          active,
          sinceSeconds: Math.floor((now - started_at) / 1000),
        })),
        tokenRequests: {
          minted: requests?.mints ?? 0,
          exchanged: requests?.exchanges ?? 0,
          refreshed: requests?.refreshes ?? 0,
        },
      }
    },
  }
}

async function countBy(read: Executor, sql: string): Promise<Record<string, number>> {
  const rows = await query<{ state: string; count: number }>(read, sql)
  return Object.fromEntries(rows.map(row => [row.state, row.count]))
}
