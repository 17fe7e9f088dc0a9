import { type Sight, sees } from '../accounts/sight.ts'
import type { Executor } from '../database/sql.ts'
import { failingDestinations, type HealthColumns } from '../transfers/health-store.ts'

/** What a storage fails with, as answers have it. */
export function viewFailing({ failures, holds, since, held_until, code, message }: HealthColumns) {
  return { failures, holds, since, code, message, ...(held_until > 0 ? { heldUntil: held_until } : {}) }
}

/** By storage: what fails there as a destination, of the VOs that the caller sees. */
export async function failingAt(read: Executor, sight: Sight) {
  const rows = (await failingDestinations(read)).filter(row => sees(sight, row.vo_id))
  return (rseId: number) => {
    const own = rows.filter(row => row.rse_id === rseId).map(row => ({ vo: row.vo, ...viewFailing(row) }))
    return own.length === 0 ? {} : { failing: own }
  }
}
