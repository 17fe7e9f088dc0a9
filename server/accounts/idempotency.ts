import { createHash } from 'node:crypto'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { Service } from '../../shared/runtime/services.ts'
import type { Context } from '../context.ts'
import { type Executor, query, queryOne } from '../database/sql.ts'
import { periodic } from '../periodic.ts'
import type { Caller } from './caller.ts'

/** How long the same key gives the same answer. Milliseconds. */
const KEPT_MS = 7 * 86_400_000

/**
 * Runs `work` in a write transaction, together with the record of its answer: the same identity, key and request again gets
 * that answer, and nothing is done twice (rucio #1411). Throws 422 IDEMPOTENCY_KEY_REUSED for another request.
 */
export async function once<Answer>(
  context: Context,
  route: string,
  request: { caller: Caller; idempotencyKey?: string; body: unknown },
  work: (executor: Executor, now: number) => Promise<Answer>,
): Promise<Answer> {
  const now = context.clock.now()
  const key = request.idempotencyKey
  if (key === undefined) return context.db.write(executor => work(executor, now))
  const identity = `${request.caller.issuer} ${request.caller.subject}`
  const asked = createHash('sha256')
    .update(JSON.stringify([route, request.body]))
    .digest('hex')
  return context.db.write(async executor => {
    // The write comes first: of two at once with one key, the second waits here and then finds the answer.
    const fresh = await query(
      executor,
      `INSERT INTO idempotency_keys (identity, key, request, answer, at) VALUES (:identity, :key, :asked, '', :now)
       ON CONFLICT (identity, key) DO NOTHING RETURNING key`,
      { identity, key, asked, now },
    )
    if (fresh.length === 0) return earlierAnswer<Answer>(executor, identity, key, asked)
    const answer = await work(executor, now)
    await query(executor, 'UPDATE idempotency_keys SET answer = :answer WHERE identity = :identity AND key = :key', {
      identity,
      key,
      answer: JSON.stringify(answer),
    })
    return answer
  })
}

/** Forgets the answers whose time is over. */
export function idempotencyPruner(context: Context): Service {
  return periodic({
    ...context,
    name: 'forget answers',
    interval: 600_000,
    async round() {
      const before = context.clock.now() - KEPT_MS
      await context.db.write(executor => query(executor, 'DELETE FROM idempotency_keys WHERE at < :before', { before }))
      return false
    },
  })
}

async function earlierAnswer<Answer>(
  executor: Executor,
  identity: string,
  key: string,
  asked: string,
): Promise<Answer> {
  const row = await queryOne<{ request: string; answer: string }>(
    executor,
    'SELECT request, answer FROM idempotency_keys WHERE identity = :identity AND key = :key',
    { identity, key },
  )
  if (row?.request === asked) return JSON.parse(row.answer) as Answer
  throw new WaybillError(
    'IDEMPOTENCY_KEY_REUSED',
    'this Idempotency-Key was used for another request: take a new one',
    {
      status: 422,
      field: 'Idempotency-Key',
    },
  )
}
