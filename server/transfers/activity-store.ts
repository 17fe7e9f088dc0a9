import { ACTIVE_STATES } from '../../shared/domain/transfer-state.ts'
import { reachBindings, withinReach } from '../accounts/reach.ts'
import type { Sight } from '../accounts/sight.ts'
import { type Executor, query, stateList } from '../database/sql.ts'

export interface ActivityRow {
  vo_id: number
  activity: string
  weight: number
  active: number
}

const ACTIVE = stateList(ACTIVE_STATES)

/** The activities that have a weight, or something active. */
export async function listActivities(read: Executor, sight: Sight): Promise<ActivityRow[]> {
  return query(
    read,
    `SELECT known.vo_id, known.activity, coalesce(activity_shares.weight, 1) AS weight, CAST(sum(known.active) AS bigint) AS active
       FROM (SELECT vo_id, activity, count(*) AS active FROM transfers WHERE state IN (${ACTIVE}) GROUP BY vo_id, activity
             UNION ALL SELECT vo_id, activity, 0 FROM activity_shares) AS known
       LEFT JOIN activity_shares ON activity_shares.vo_id = known.vo_id AND activity_shares.activity = known.activity
      WHERE true${withinReach(read, sight, { vo: 'known.vo_id' })}
      GROUP BY known.vo_id, known.activity, activity_shares.weight ORDER BY known.vo_id, known.activity`,
    reachBindings(sight),
  )
}

export async function putWeight(
  executor: Executor,
  share: { readonly voId: number; readonly activity: string; readonly weight: number },
): Promise<void> {
  await query(
    executor,
    `INSERT INTO activity_shares (vo_id, activity, weight) VALUES (:voId, :activity, :weight)
     ON CONFLICT (vo_id, activity) DO UPDATE SET weight = excluded.weight`,
    share,
  )
}
