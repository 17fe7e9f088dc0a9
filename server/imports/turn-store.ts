import { type Executor, query } from '../database/sql.ts'

export interface Turn {
  /** QUEUED: it is tried again from `notBefore` on. */
  readonly state: 'QUEUED' | 'FAILED'
  readonly notBefore: number
  readonly failures: number
  readonly error: string
}

/** Its worker cannot go on. */
export async function endTurn(executor: Executor, id: number, turn: Turn, now: number): Promise<void> {
  await query(
    executor,
    `UPDATE imports SET state = :state, not_before = :notBefore, failures = :failures, error = :error, session_id = NULL, updated_at = :now
      WHERE id = :id AND state = 'LISTING'`,
    { ...turn, id, now },
  )
}

/** Whoever lists it uses this grant. */
export async function setImportGrant(executor: Executor, id: number, grantId: number): Promise<void> {
  await query(executor, 'UPDATE imports SET grant_id = :grantId WHERE id = :id', { id, grantId })
}

/** One whose storage may not be read any more waits until it may. */
export async function yieldIfClosed(executor: Executor, id: number, now: number): Promise<void> {
  await query(
    executor,
    `UPDATE imports SET state = 'QUEUED', session_id = NULL, updated_at = :now
      WHERE id = :id AND state = 'LISTING'
        AND NOT EXISTS (SELECT 1 FROM rses WHERE rses.id = imports.rse_id AND rses.availability_read)`,
    { id, now },
  )
}

/**
 * The worker of a session is lost. It may be what it was listing that ended it: an import of which it had handed in nothing waits from
 * the second time on, half a minute and then twice as long each time, up to half an hour.
 */
export async function spaceLostImports(executor: Executor, sessionId: number, now: number): Promise<void> {
  await query(
    executor,
    `UPDATE imports SET failures = failures + 1, error = :error,
        not_before = CAST(:now AS bigint) + CASE WHEN failures = 0 THEN 0 WHEN failures < 7 THEN 15000 * (1 << failures) ELSE 1800000 END
      WHERE session_id = :sessionId AND state = 'LISTING' AND part = 0`,
    { sessionId, now, error: 'WORKER_LOST: its worker was lost before it handed in anything' },
  )
}
