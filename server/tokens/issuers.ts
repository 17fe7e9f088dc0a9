import { WaybillError } from '../../shared/domain/errors.ts'
import type { ExchangeMode } from '../../shared/domain/grant-state.ts'
import type { IssuerClient } from '../../shared/oidc/issuer-client.ts'
import { type Executor, lockRows, query, queryOne } from '../database/sql.ts'

/** An issuer as the server uses it for one VO: its own client there, and what the issuer can do. */
export interface Issuer {
  readonly id: number
  readonly voId: number
  readonly url: string
  readonly clientId: string
  readonly exchange: ExchangeMode
  /** At most so many requests a second, by all servers, workers and VOs together. */
  readonly requestsPerSecond: number
  /** At most so many requests under way, of all of them together. */
  readonly requestsAtOnce: number
  readonly client: IssuerClient
}

export class Issuers {
  readonly #issuers: readonly Issuer[]

  /** VOs that share an issuer share its turns: the most careful of their settings is everybody's. */
  constructor(issuers: readonly Issuer[]) {
    const least = (of: Issuer, key: 'requestsPerSecond' | 'requestsAtOnce'): number =>
      Math.min(...issuers.filter(({ id }) => id === of.id).map(issuer => issuer[key]))
    this.#issuers = issuers.map(issuer => ({
      ...issuer,
      requestsPerSecond: least(issuer, 'requestsPerSecond'),
      requestsAtOnce: least(issuer, 'requestsAtOnce'),
    }))
  }

  all(): readonly Issuer[] {
    return this.#issuers
  }

  /** The issuer that storage tokens of this VO come from: the first of its configuration. Throws 409 VO_WITHOUT_ISSUER. */
  forVo(voId: number): Issuer {
    const issuer = this.#issuers.find(candidate => candidate.voId === voId)
    if (issuer === undefined) {
      throw new WaybillError('VO_WITHOUT_ISSUER', 'no issuer is configured for this VO: its storages get no tokens', {
        status: 409,
      })
    }
    return issuer
  }

  /** `undefined`: the configuration names it no more. */
  of(grant: { issuer_id: number; client: string; vo_id: number }): Issuer | undefined {
    return this.#issuers.find(
      issuer => issuer.id === grant.issuer_id && issuer.clientId === grant.client && issuer.voId === grant.vo_id,
    )
  }
}

export async function ensureIssuer(executor: Executor, url: string): Promise<number> {
  await query(executor, 'INSERT INTO issuers (url, next_at) VALUES (:url, 0) ON CONFLICT (url) DO NOTHING', { url })
  const row = await queryOne<{ id: number }>(executor, 'SELECT id FROM issuers WHERE url = :url', { url })
  if (row === undefined) throw new Error(`issuer ${url} was not inserted`)
  return row.id
}

/** Whose turn is further away than this asks again when it is due, and holds nothing up meanwhile. */
const MOST_AHEAD_MS = 5_000
/** Before it is worth asking again when as many requests are under way as may be. */
const ALL_BUSY_MS = 200

/**
 * A turn for one request to the issuer, for whoever has the lease of this grant: how long to wait before it is sent, in
 * milliseconds. Without `given` it may not be sent: as many as may be are under way, or the next turn is too far away; it is
 * worth asking again in `delayMs`. What is under way are the leases: an answer, or a lease's end, makes room.
 */
export async function takeTurn(
  executor: Executor,
  issuer: Pick<Issuer, 'id' | 'requestsPerSecond' | 'requestsAtOnce'>,
  grantId: number,
  now: number,
): Promise<{ given: boolean; delayMs: number }> {
  await lockRows(executor, 'issuers', [issuer.id])
  const busy = await queryOne<{ count: number }>(
    executor,
    'SELECT count(*) AS count FROM grants WHERE issuer_id = :id AND lease_until > :now AND id <> :grantId',
    { id: issuer.id, grantId, now },
  )
  if ((busy?.count ?? 0) >= issuer.requestsAtOnce) return { given: false, delayMs: ALL_BUSY_MS }
  const interval = Math.ceil(1000 / issuer.requestsPerSecond)
  const turn = await queryOne<{ next_at: number }>(
    executor,
    `UPDATE issuers SET next_at = CASE WHEN next_at < :now THEN :now ELSE next_at END + :interval
      WHERE id = :id AND next_at <= :latest RETURNING next_at`,
    { id: issuer.id, now, interval, latest: now + MOST_AHEAD_MS },
  )
  if (turn !== undefined) return { given: true, delayMs: Math.max(0, turn.next_at - interval - now) }
  const next = await queryOne<{ next_at: number }>(executor, 'SELECT next_at FROM issuers WHERE id = :id', {
    id: issuer.id,
  })
  return { given: false, delayMs: (next?.next_at ?? now + MOST_AHEAD_MS) - now }
}

/** The issuer asked to be left alone: nobody of the fleet sends before `until`. */
export async function holdIssuer(executor: Executor, issuerId: number, until: number): Promise<void> {
  await query(executor, 'UPDATE issuers SET next_at = :until WHERE id = :issuerId AND next_at < :until', {
    issuerId,
    until,
  })
}
