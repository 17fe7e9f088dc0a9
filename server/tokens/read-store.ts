import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, query } from '../database/sql.ts'
import type { GrantRow } from './grant-store.ts'

export interface ListedGrant extends GrantRow {
  issuer: string
}

export async function listGrants(
  read: Executor,
  sight: Sight,
  rseId: number | undefined,
  after: number,
  limit: number,
): Promise<ListedGrant[]> {
  return query<ListedGrant>(
    read,
    `SELECT grants.*, issuers.url AS issuer FROM grants JOIN issuers ON issuers.id = grants.issuer_id
      WHERE grants.id > :after AND (:rseId = 0 OR grants.rse_id = :rseId)${withinReach(read, sight, { vo: 'grants.vo_id' })}
      ORDER BY grants.id LIMIT :limit`,
    { after, limit, rseId: rseId ?? 0, ...reachBindings(sight) },
  )
}
