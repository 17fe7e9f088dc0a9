import { WaybillError } from '../../shared/domain/errors.ts'
import { type Executor, encodeRows, oneOf, queryOne } from '../database/sql.ts'

/**
 * What a person puts where a file is being deleted would go with it. Throws 409 REPLICA_BEING_DELETED. The replicas' rows are
 * locked.
 */
export async function refuseWhileDeleted(executor: Executor, replicaIds: readonly number[]): Promise<void> {
  const row = await queryOne<{ name: string }>(
    executor,
    `SELECT name FROM replicas WHERE state = 'BEING_DELETED' AND id ${oneOf(executor, 'replicas')} LIMIT 1`,
    { replicas: encodeRows(replicaIds) },
  )
  if (row === undefined) return
  const message = `${row.name} is being deleted there: try again when that is over`
  throw new WaybillError('REPLICA_BEING_DELETED', message, { status: 409, field: 'files' })
}
