import { WaybillError } from '../../shared/domain/errors.ts'
import { type Executor, isSqlite, query, queryOne } from '../database/sql.ts'

export interface SessionRow {
  id: number
  issuer: string
  client: string
  worker: string
  public_jwk: string
  started_at: number
  /** Since when its worker gets no work; of the worker, not of the session. */
  drained_at: number | null
}

export interface WorkerIdentity {
  readonly issuer: string
  readonly client: string
}

export async function insertSession(
  executor: Executor,
  identity: WorkerIdentity,
  session: { worker: string; version?: string | undefined; publicJwk: string; expiresAt: number },
  now: number,
): Promise<number> {
  const { worker, version = null } = session
  await query(
    executor,
    'INSERT INTO workers (issuer, client, worker) VALUES (:issuer, :client, :worker) ON CONFLICT DO NOTHING',
    { ...identity, worker },
  )
  const row = await queryOne<{ id: number }>(
    executor,
    `INSERT INTO sessions (issuer, client, worker, version, public_jwk, started_at, expires_at)
     VALUES (:issuer, :client, :worker, :version, :publicJwk, :now, :expiresAt) RETURNING id`,
    { ...identity, ...session, version, now },
  )
  if (row === undefined) throw new Error('the session was not inserted')
  return row.id
}

const WITH_WORKER = 'sessions JOIN workers USING (issuer, client, worker)'
const ALIVE = 'id = :id AND issuer = :issuer AND client = :client AND ended_at IS NULL'

/** The caller's own living session. Throws 409 SESSION_ENDED: the worker stops what it does and begins a new one. */
export async function requireSession(executor: Executor, identity: WorkerIdentity, id: number): Promise<SessionRow> {
  const row = await queryOne<SessionRow>(executor, `SELECT * FROM ${WITH_WORKER} WHERE ${ALIVE}`, { id, ...identity })
  if (row === undefined) throw sessionEnded(id)
  return row
}

export async function extendSession(
  executor: Executor,
  identity: WorkerIdentity,
  id: number,
  expiresAt: number,
): Promise<void> {
  const rows = await query(executor, `UPDATE sessions SET expires_at = :expiresAt WHERE ${ALIVE} RETURNING id`, {
    id,
    expiresAt,
    ...identity,
  })
  if (rows.length === 0) throw sessionEnded(id)
}

/**
 * For the end of a transaction that gave work to a session: it lives and its worker is not drained, and stays so until the
 * transaction is over, or nothing was given. Without it a claim that waited could give work to a session that ended meanwhile,
 * and nobody would take it back. Throws 409 SESSION_ENDED or WORKER_DRAINED.
 */
export async function holdSession(executor: Executor, id: number): Promise<void> {
  const lock = isSqlite(executor) ? '' : 'FOR SHARE'
  const sql = `SELECT drained_at FROM ${WITH_WORKER} WHERE id = :id AND ended_at IS NULL ${lock}`
  const row = await queryOne<{ drained_at: number | null }>(executor, sql, { id })
  if (row === undefined) throw sessionEnded(id)
  if (row.drained_at !== null) throw new WaybillError('WORKER_DRAINED', 'the worker is drained', { status: 409 })
}

/** What a transaction gave to a session; nothing when its worker was drained before it was over. */
export async function unlessDrained<T>(giving: Promise<T[]>): Promise<T[]> {
  try {
    return await giving
  } catch (error) {
    if (error instanceof WaybillError && error.code === 'WORKER_DRAINED') return []
    throw error
  }
}

function sessionEnded(id: number): WaybillError {
  return new WaybillError('SESSION_ENDED', `session ${id} has ended or was never yours: open a new one`, {
    status: 409,
  })
}
