import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, query } from '../database/sql.ts'
import { pruneDeleted } from '../deletion/deleted-paths.ts'
import { releaseImports } from '../imports/store.ts'
import { spaceLostImports } from '../imports/turn-store.ts'
import { periodic } from '../periodic.ts'
import { releaseTasks } from '../tasks/store.ts'
import { loseTransfers } from './outcome-store.ts'
import { prunePermits } from './permits.ts'
import type { SessionRow } from './session-store.ts'

/** Ends a session; what it still held is settled by others from `settleAt` on. False when it had ended before. */
export async function endSession(executor: Executor, id: number, settleAt: number, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    'UPDATE sessions SET ended_at = :now WHERE id = :id AND ended_at IS NULL RETURNING id',
    { id, now },
  )
  if (rows.length === 0) return false
  await loseTransfers(executor, id, settleAt, now)
  await releaseImports(executor, id, now)
  await releaseTasks(executor, id, now)
  // Its request may still be on its way to the issuer: until the lease ends nobody else shows the same refresh token.
  await query(executor, 'UPDATE grants SET lease_session_id = NULL WHERE lease_session_id = :id', { id })
  return true
}

/** Ends the sessions whose lease ran out. Lease time is the server's clock alone. */
export function sessionReaper(context: Context): Service {
  return periodic({
    ...context,
    name: 'end dead sessions',
    interval: 1_000,
    async round() {
      const now = context.clock.now()
      const dead = await query<SessionRow>(
        context.db.read,
        'SELECT * FROM sessions WHERE ended_at IS NULL AND expires_at < :now LIMIT 20',
        { now },
      )
      for (const session of dead) {
        const ended = await context.db.write(executor => endExpired(executor, session.id, now))
        if (ended)
          context.log.warn(
            { session: session.id, worker: session.worker },
            'a worker was lost: its transfers are settled',
          )
      }
      await context.db.write(async executor => {
        await prunePermits(executor, now)
        await pruneDeleted(executor)
      })
      if (dead.length > 0) context.wake.notify('queue')
      return false
    },
  })
}

/** A heartbeat may have come since we looked. */
async function endExpired(executor: Executor, id: number, now: number): Promise<boolean> {
  const rows = await query(
    executor,
    'UPDATE sessions SET expires_at = expires_at WHERE id = :id AND ended_at IS NULL AND expires_at < :now RETURNING id',
    { id, now },
  )
  if (rows.length === 0) return false
  await spaceLostImports(executor, id, now)
  return endSession(executor, id, now, now)
}
