import { WaybillError } from '../../shared/domain/errors.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, lockRows, oneOf, query, queryOne, recordset, stateList } from '../database/sql.ts'

/** A DELETE may be sent for this long, and is surely over a margin later: until then nothing new begins at that path. Seconds. */
export const PERMIT_SECONDS = 30
const PERMIT_MARGIN_SECONDS = 30

/**
 * Of a path where somebody else's DELETE may still be on its way: no answer to a DELETE frees it, only time does. A dead
 * worker's late DELETE has destroyed a later attempt's good file (facts/transfers.md, DIRAC #8465).
 */
const NOBODYS_FENCE = -1

interface Place {
  directory_id: number
  name: string
  state: string
  rse_id: number
  availability_delete: number | boolean
  vo_id: number
  top: string
  /** An earlier attempt on this replica may have left what lies there; what this one did it says itself. */
  written: number | boolean
  /** A person is about to put, or has put, a file there. */
  planned: number | boolean
}

/**
 * Permission to remove what a failed attempt left: only for the current holder of the transfer, never where a replica is
 * AVAILABLE, and only if this attempt or an earlier one on this replica may have left it: a file of somebody else's stays
 * (docs/decisions/0008). Throws 409 PERMIT_REFUSED, and RSE_NOT_DELETABLE while the storage is closed for deletions. Answers
 * the directory that the clean-up token must cover.
 */
export async function grantPermit(
  executor: Executor,
  held: { sessionId: number; transfer: number; fence: number; written: boolean },
  now: number,
): Promise<{ rseId: number; voId: number; top: string }> {
  const { sessionId, transfer, fence } = held
  // Both are nobody else's until the permit can be seen: a claim after this session's end must find it, and a registration.
  const replica = await queryOne<{ id: number }>(
    executor,
    'SELECT replica_id AS id FROM transfers WHERE id = :transfer',
    { transfer },
  )
  await lockRows(executor, 'replicas', replica === undefined ? [] : [replica.id])
  await lockRows(executor, 'transfers', [transfer])
  const place = await queryOne<Place>(
    executor,
    `SELECT replicas.directory_id, replicas.name, replicas.state, replicas.rse_id, rses.availability_delete, transfers.vo_id, tops.path AS top,
            EXISTS (SELECT 1 FROM transfers AS earlier WHERE earlier.replica_id = replicas.id
                     AND earlier.written_fence IS NOT NULL AND (earlier.id <> transfers.id OR earlier.written_fence <> transfers.fence)) AS written,
            EXISTS (SELECT 1 FROM uploads WHERE uploads.replica_id = replicas.id AND uploads.until > :now) AS planned
       FROM transfers JOIN replicas ON replicas.id = transfers.replica_id JOIN rses ON rses.id = replicas.rse_id
       JOIN directories ON directories.id = replicas.directory_id
       JOIN directories AS tops ON tops.id = coalesce(directories.top_id, directories.id)
      WHERE transfers.id = :transfer AND transfers.fence = :fence AND transfers.session_id = :sessionId
        AND transfers.state IN (${stateList(ACTIVE_STATES)})`,
    { sessionId, transfer, fence, now },
  )
  if (place === undefined) throw refused(`transfer ${transfer} is not held under this session and fence`)
  if (place.state === 'AVAILABLE') throw refused('the file is verified')
  if (place.planned) throw refused('somebody has planned an upload to this place: what lies there may be theirs')
  if (!held.written && !place.written) {
    throw refused(
      'another file lies there, and nothing tells that an attempt of Waybill’s left it: it stays. Look whose it is (a worker that was killed as its COPY began may have left a part), and remove it there',
    )
  }
  if (!place.availability_delete) {
    throw new WaybillError('RSE_NOT_DELETABLE', 'nothing may be deleted at this storage now', { status: 409 })
  }
  if (held.written) {
    await query(executor, 'UPDATE transfers SET written_fence = :fence WHERE id = :transfer', { transfer, fence })
  }
  const { directory_id: directoryId, name } = place
  const until = now + (PERMIT_SECONDS + PERMIT_MARGIN_SECONDS) * 1000
  await permitPaths(executor, [{ directory_id: directoryId, name }], { transfer, fence }, now, until)
  return { rseId: place.rse_id, voId: place.vo_id, top: place.top }
}

interface Holder {
  readonly transfer: number
  readonly fence: number
}

/** A DELETE of these paths may be on its way until then, of whoever this is. */
export async function permitPaths(
  executor: Executor,
  paths: readonly { readonly directory_id: number; readonly name: string }[],
  { transfer, fence }: Holder,
  now: number,
  until: number,
): Promise<void> {
  const set = recordset(executor, 'rows', { directory_id: 'bigint', name: 'text' })
  await query(
    executor,
    `INSERT INTO permits (directory_id, name, transfer_id, fence, until)
     SELECT directory_id, name, :transfer, :fence, :until FROM ${set} AS given WHERE true ORDER BY directory_id, name
     ON CONFLICT (directory_id, name) DO UPDATE
       SET until = CASE WHEN permits.until > excluded.until THEN permits.until ELSE excluded.until END, transfer_id = excluded.transfer_id,
           fence = CASE WHEN permits.until > :now AND (permits.transfer_id <> excluded.transfer_id OR permits.fence <> excluded.fence)
             THEN ${NOBODYS_FENCE} ELSE excluded.fence END`,
    {
      transfer,
      fence,
      now,
      until,
      rows: encodeRows(paths.map(({ directory_id, name }) => ({ directory_id, name }))),
    },
  )
}

/** The DELETEs of these replicas' paths were answered: they are free at once, unless an older permit is still out. */
export async function dropPathPermits(
  executor: Executor,
  replicaIds: readonly number[],
  { transfer, fence }: Holder,
): Promise<void> {
  await query(
    executor,
    `DELETE FROM permits WHERE transfer_id = :transfer AND fence = :fence AND (directory_id, name) IN
       (SELECT directory_id, name FROM replicas WHERE id ${oneOf(executor, 'replicas')})`,
    { transfer, fence, replicas: encodeRows(replicaIds) },
  )
}

function refused(why: string): WaybillError {
  return new WaybillError('PERMIT_REFUSED', `nothing may be removed: ${why}`, { status: 409 })
}

/**
 * Keeps the paths of these replicas free of workers: a person has a token with which they may be removed, and nothing says
 * when it is used. AVAILABLE ones are left alone. How many were reserved. No worker has them, nor a permit there.
 */
export async function reservePaths(executor: Executor, replicaIds: readonly number[], until: number): Promise<number> {
  const reserved = await query(
    executor,
    `INSERT INTO permits (directory_id, name, transfer_id, fence, until)
     SELECT directory_id, name, 0, ${NOBODYS_FENCE}, :until FROM replicas
      WHERE state <> 'AVAILABLE' AND id ${oneOf(executor, 'replicas')}
     ON CONFLICT (directory_id, name) DO UPDATE SET transfer_id = 0, fence = ${NOBODYS_FENCE},
       until = CASE WHEN permits.until > excluded.until THEN permits.until ELSE excluded.until END
     RETURNING directory_id`,
    { replicas: encodeRows(replicaIds), until },
  )
  return reserved.length
}

/**
 * A worker's DELETE may still arrive at these paths: what a person puts there now could be gone a moment later. Throws 409
 * PATH_BEING_CLEANED. What is AVAILABLE is no worker's to remove, unless it was registered where a deleted file lay a moment ago.
 */
export async function refuseWhileCleaned(
  executor: Executor,
  replicaIds: readonly number[],
  now: number,
): Promise<void> {
  const late = await queryOne<{ name: string; until: number }>(
    executor,
    `SELECT permits.name, permits.until FROM replicas
       JOIN permits ON permits.directory_id = replicas.directory_id AND permits.name = replicas.name
      WHERE replicas.id ${oneOf(executor, 'replicas')} AND (replicas.state <> 'AVAILABLE' OR permits.transfer_id < 0)
        AND permits.transfer_id <> 0 AND permits.until > :now ORDER BY permits.until DESC LIMIT 1`,
    { replicas: encodeRows(replicaIds), now },
  )
  if (late === undefined) return
  const seconds = Math.ceil((late.until - now) / 1000)
  const message = `a worker may still remove what a failed attempt left at ${late.name}: try again in ${seconds} s`
  throw new WaybillError('PATH_BEING_CLEANED', message, { status: 409, field: 'files' })
}

/** The DELETEs under these permits were answered: the paths are free at once, unless an older permit is still out. */
export async function dropPermits(
  executor: Executor,
  held: readonly { transfer: number; fence: number }[],
): Promise<void> {
  if (held.length === 0) return
  const set = recordset(executor, 'rows', { transfer: 'bigint', fence: 'bigint' })
  await query(
    executor,
    `DELETE FROM permits WHERE (transfer_id, fence) IN (SELECT given.transfer, given.fence FROM ${set} AS given)`,
    { rows: encodeRows(held.map(({ transfer, fence }) => ({ transfer, fence }))) },
  )
}

/**
 * Whether a transfer of this session has leave to remove something at this storage now: only then is the token for it given
 * out. The plus keeps the storage's directories, of which there may be millions, from being gone through.
 */
export async function holdsPermit(read: Executor, sessionId: number, rseId: number, now: number): Promise<boolean> {
  const row = await queryOne(
    read,
    `SELECT 1 FROM transfers JOIN permits ON permits.transfer_id = transfers.id AND permits.until > :now
       JOIN directories ON directories.id = permits.directory_id AND +directories.rse_id = :rseId
      WHERE transfers.session_id = :sessionId LIMIT 1`,
    { sessionId, rseId, now },
  )
  return row !== undefined
}

/** Whether a DELETE of the path of this replica (an alias of `replicas`) may still arrive. Binds `:now`. */
export function underPermit(alias: string): string {
  return `EXISTS (SELECT 1 FROM permits WHERE permits.directory_id = ${alias}.directory_id AND permits.name = ${alias}.name
    AND permits.until > :now)`
}

/** Permits, and plans of uploads, that are over. */
export async function prunePermits(executor: Executor, now: number): Promise<void> {
  await query(executor, 'DELETE FROM permits WHERE until < :now', { now })
  await query(executor, 'DELETE FROM uploads WHERE until < :now', { now })
}
