import { type Executor, encodeRows, query, recordset } from '../database/sql.ts'
import { moveLocks } from '../rules/lock-store.ts'
import type { RuleDelta } from '../rules/store.ts'
import { markHopsOver } from '../transfers/hop-store.ts'
import { moveReplicas } from './replica-store.ts'

/** What was found of a replica: it is not the file. */
export interface Fault {
  readonly replica_id: number
  readonly transfer_id: number | null
  readonly code: string
  readonly message: string
}

/**
 * These replicas are BAD from now on: nothing is copied from them, and rules that hold them are stuck. Those that are not AVAILABLE
 * any more stay as they are. Their rows are locked; the changes for the rules' counters.
 */
export async function condemnReplicas(executor: Executor, faults: readonly Fault[], now: number): Promise<RuleDelta[]> {
  if (faults.length === 0) return []
  const columns = { replica_id: 'bigint', transfer_id: 'bigint', code: 'text', message: 'text' } as const
  const condemned = await query<{ replica_id: number }>(
    executor,
    `INSERT INTO replica_faults (replica_id, at, transfer_id, code, message)
     SELECT given.replica_id, :now, given.transfer_id, given.code, given.message
       FROM ${recordset(executor, 'rows', columns)} AS given
       JOIN replicas ON replicas.id = given.replica_id AND replicas.state = 'AVAILABLE' RETURNING replica_id`,
    { now, rows: encodeRows([...new Map(faults.map(fault => [fault.replica_id, fault])).values()]) },
  )
  const ids = condemned.map(row => row.replica_id)
  await moveReplicas(executor, ids, 'condemn', now)
  await markHopsOver(executor, ids)
  return moveLocks(executor, ids, 'lose')
}
