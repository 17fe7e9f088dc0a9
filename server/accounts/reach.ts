import { type Binding, type Executor, encodeRows, keyset } from '../database/sql.ts'

/** What a worker may serve, by keys; `undefined` is everything. Enforced in the claiming statements themselves. */
export interface WorkerReach {
  readonly voIds?: readonly number[]
  readonly rseIds?: readonly number[]
}

/** `AND ...` for the columns that hold a VO or storages; binds what `reachBindings` gives. Empty where all is within reach. */
export function withinReach(
  executor: Executor,
  reach: WorkerReach,
  columns: { vo: string; rses?: readonly string[] },
): string {
  const vo = reach.voIds === undefined ? '' : ` AND ${columns.vo} IN ${keyset(executor, 'reachedVos')}`
  if (reach.rseIds === undefined || columns.rses === undefined) return vo
  return vo + columns.rses.map(column => ` AND ${column} IN ${keyset(executor, 'reachedRses')}`).join('')
}

export function reachBindings({ voIds, rseIds }: WorkerReach): Record<string, Binding> {
  return {
    ...(voIds === undefined ? {} : { reachedVos: encodeRows(voIds) }),
    ...(rseIds === undefined ? {} : { reachedRses: encodeRows(rseIds) }),
  }
}

export function reaches(reach: WorkerReach, row: { vo_id: number; rse_id: number }): boolean {
  return (reach.voIds?.includes(row.vo_id) ?? true) && (reach.rseIds?.includes(row.rse_id) ?? true)
}
