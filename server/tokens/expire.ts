import { GRANT_MACHINE } from '../../shared/domain/grant-state.ts'
import { statesAccepting } from '../../shared/domain/state-machine.ts'
import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { type Executor, encodeRows, oneOf, query, recordset, stateList } from '../database/sql.ts'
import { bundlesOf } from './grant-store.ts'
import type { Issuer } from './issuers.ts'

const ENDED = `state = 'EXPIRED', sealed_access = NULL, sealed_refresh = NULL, exchanged = false, lease_session_id = NULL,
       lease_until = 0, not_before = 0, failures = 0, error = NULL`
const MAY_END = stateList(statesAccepting(GRANT_MACHINE, 'expire'))

/** Each column by itself: with an OR between them PostgreSQL reads all bundles. */
function inUse(column: 'source_grant_id' | 'destination_grant_id'): string {
  return `EXISTS (SELECT 1 FROM bundles WHERE bundles.${column} = grants.id
      AND (bundles.has_work OR EXISTS (SELECT 1 FROM transfers WHERE transfers.link_id = bundles.link_id
            AND transfers.bundle_id = bundles.id AND transfers.state IN (${stateList(ACTIVE_STATES)}))))`
}

/**
 * Ends grants that nothing has asked for since `before`: what was sealed is forgotten. A bundle keeps its grants while work
 * is queued, held or to be settled: found by its link, whose active transfers are few and have an index.
 */
export async function expireGrants(executor: Executor, before: number, now: number): Promise<number> {
  const gone = await query<{ id: number }>(
    executor,
    `UPDATE grants SET ${ENDED}
      WHERE state IN (${MAY_END}) AND expires_at < :now AND wanted_at < :before AND lease_until <= :now
        AND NOT ${inUse('source_grant_id')} AND NOT ${inUse('destination_grant_id')}
      RETURNING id`,
    { before, now },
  )
  await detach(executor, gone)
  return gone.length
}

/**
 * Ends grants that the configuration has no client for (another client id, another issuer, a VO that went): nobody could
 * renew them. Their work gets others. How many those were.
 */
export async function expireForeignGrants(
  executor: Executor,
  issuers: readonly Pick<Issuer, 'id' | 'clientId' | 'voId'>[],
): Promise<number> {
  const known = recordset(executor, 'known', { issuer_id: 'bigint', client: 'text', vo_id: 'bigint' })
  const gone = await query<{ id: number }>(
    executor,
    `UPDATE grants SET ${ENDED} WHERE state IN (${MAY_END})
        AND (issuer_id, client, vo_id) NOT IN (SELECT issuer_id, client, vo_id FROM ${known} AS given) RETURNING id`,
    { known: encodeRows(issuers.map(({ id, clientId, voId }) => ({ issuer_id: id, client: clientId, vo_id: voId }))) },
  )
  await detach(executor, gone)
  return gone.length
}

async function detach(executor: Executor, gone: readonly { id: number }[]): Promise<void> {
  if (gone.length === 0) return
  const bundles = await bundlesOf(
    executor,
    gone.map(row => row.id),
  )
  await query(
    executor,
    `UPDATE bundles SET ready = false, source_grant_id = NULL, destination_grant_id = NULL
      WHERE id ${oneOf(executor, 'bundles')}`,
    { bundles: encodeRows(bundles) },
  )
}
