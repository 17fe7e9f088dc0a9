import { WaybillError } from '../../shared/domain/errors.ts'
import { type Executor, isSqlite, query, queryOne } from './sql.ts'

/**
 * What a restored backup begins: part of every fence, so that what workers of the time after the backup still report is
 * refused. Seconds since 1970 of its beginning, so that two restores of one backup are two epochs.
 */
export type Epoch = number

/** Fences of one epoch: as often can one transfer be claimed. With seconds before it a fence stays below 2^53. */
const FENCES = 2 ** 20

/** Fences of the epoch are above this, and all older ones below. */
export function fenceBase(epoch: Epoch): number {
  return epoch * FENCES
}

/** Throws DATABASE_EMPTY. */
export async function readEpoch(executor: Executor): Promise<Epoch> {
  const row = await queryOne<{ epoch: number }>(executor, 'SELECT epoch FROM installation')
  if (row !== undefined) return row.epoch
  throw new WaybillError('DATABASE_EMPTY', 'the database has no schema: run `waybill migrate`')
}

/** `now` in epoch milliseconds. Throws DATABASE_EMPTY. */
export async function beginEpoch(executor: Executor, now: number): Promise<Epoch> {
  const next = Math.max((await readEpoch(executor)) + 1, Math.floor(now / 1000))
  await query(executor, 'UPDATE installation SET epoch = :next', { next })
  await moveSessions(executor, fenceBase(next))
  return next
}

/** Workers of the time after the backup go on asking under their sessions: none of this epoch has the number of one of those. */
async function moveSessions(executor: Executor, beyond: number): Promise<void> {
  if (!isSqlite(executor)) {
    await query(executor, "SELECT setval(pg_get_serial_sequence('sessions', 'id'), CAST(:beyond AS bigint))", {
      beyond,
    })
    return
  }
  const sql = "UPDATE sqlite_sequence SET seq = :beyond WHERE name = 'sessions' RETURNING name"
  if ((await query(executor, sql, { beyond })).length > 0) return
  await query(executor, "INSERT INTO sqlite_sequence (name, seq) VALUES ('sessions', :beyond)", { beyond })
}
