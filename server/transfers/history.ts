import type { TransferCode, TransferPhase, TransferScope } from '../../shared/domain/error-catalogue.ts'
import type { TransferFailure } from '../../shared/domain/transfer-error.ts'
import { type Executor, encodeRows, oneOf, query, recordset } from '../database/sql.ts'
import { type EarlierLooks, isInVain } from './settling.ts'
import { ALLOWED } from './sources.ts'

/** What a report's meaning depends on beside itself. */
export interface TransferHistory {
  /** The copy counts when it is on tape. */
  readonly archives?: boolean
  /** How the try ended whose destination was looked at, if that was a storage's doing. */
  readonly loss?: TransferFailure | undefined
  /** Another storage has the file, and has not failed this transfer yet. */
  readonly elsewhere?: boolean
  /** Looks at the destination since the attempt that is being settled. */
  readonly looks?: EarlierLooks | undefined
}

interface LossRow {
  transfer_id: number
  scope: TransferScope
  phase: TransferPhase
  code: TransferCode
  message: string
}

/**
 * How the last try of these transfers ended, of those that ended as unknown by a storage's doing. A worker that stopped
 * (INTERRUPTED) or was lost (it reported nothing) is nobody's failure.
 */
export async function earlierLosses(
  executor: Executor,
  transferIds: readonly number[],
): Promise<Map<number, TransferFailure>> {
  if (transferIds.length === 0) return new Map()
  const rows = await query<LossRow>(
    executor,
    `SELECT transfer_id, scope, phase, code, message FROM attempts
      WHERE outcome = 'unknown' AND code IS NOT NULL AND code <> 'INTERRUPTED' AND id IN (
        SELECT max(id) FROM attempts WHERE transfer_id ${oneOf(executor, 'ids')}
           AND outcome NOT IN ('growing', 'handed-back') GROUP BY transfer_id)`,
    { ids: encodeRows(transferIds) },
  )
  return new Map(rows.map(({ transfer_id, ...failure }) => [transfer_id, { ...failure, retryable: true }]))
}

/** How often the destinations of these transfers were looked at since their last attempt. */
export async function earlierLooks(
  executor: Executor,
  transferIds: readonly number[],
): Promise<Map<number, EarlierLooks>> {
  if (transferIds.length === 0) return new Map()
  const rows = await query<{ transfer_id: number; scope: string | null; code: string | null; looks: number }>(
    executor,
    `SELECT transfer_id, scope, code, count(*) AS looks FROM attempts
      WHERE transfer_id ${oneOf(executor, 'ids')} AND outcome = 'growing' AND id > coalesce(
        (SELECT max(id) FROM attempts AS ending WHERE ending.transfer_id = attempts.transfer_id
            AND ending.outcome NOT IN ('growing', 'handed-back')), 0)
      GROUP BY transfer_id, scope, code`,
    { ids: encodeRows(transferIds) },
  )
  const found = new Map<number, EarlierLooks>()
  for (const { transfer_id, scope, code, looks } of rows) {
    const before = found.get(transfer_id) ?? { looks: 0, inVain: 0 }
    const inVain = scope !== null && code !== null && isInVain({ scope, code }) ? looks : 0
    found.set(transfer_id, { looks: before.looks + looks, inVain: before.inVain + inVain })
  }
  return found
}

/** Of these transfers those that could take their file from another storage, one that has not failed them yet. */
export async function withAnotherSource(executor: Executor, transferIds: readonly number[]): Promise<Set<number>> {
  if (transferIds.length === 0) return new Set()
  const rows = await query<{ id: number }>(
    executor,
    `SELECT DISTINCT transfers.id FROM transfers JOIN replicas AS own ON own.id = transfers.replica_id
       JOIN replicas AS source ON source.file_id = own.file_id AND source.state = 'AVAILABLE'
        AND source.rse_id <> transfers.source_rse_id
       JOIN rses ON rses.id = source.rse_id AND rses.availability_read
       JOIN links ON links.source_rse_id = source.rse_id AND links.destination_rse_id = own.rse_id AND links.distance > 0
      WHERE transfers.id ${oneOf(executor, 'ids')} AND ${ALLOWED} AND NOT EXISTS (SELECT 1 FROM attempts
        WHERE attempts.transfer_id = transfers.id AND attempts.source_rse_id = source.rse_id AND attempts.scope = 'SOURCE')`,
    { ids: encodeRows(transferIds) },
  )
  return new Set(rows.map(row => row.id))
}

/** Those of these transfers that the storage in this scope has failed before: their present source, or their destination. */
export async function failedBefore(
  executor: Executor,
  failures: readonly { transfer: number; scope: 'SOURCE' | 'DESTINATION' }[],
): Promise<Set<number>> {
  if (failures.length === 0) return new Set()
  const rows = await query<{ id: number }>(
    executor,
    `SELECT DISTINCT transfers.id FROM ${recordset(executor, 'rows', { transfer: 'bigint', scope: 'text' })} AS given
       JOIN transfers ON transfers.id = given.transfer
       JOIN attempts ON attempts.transfer_id = transfers.id AND attempts.scope = given.scope
      WHERE given.scope = 'DESTINATION' OR attempts.source_rse_id = transfers.source_rse_id`,
    { rows: encodeRows(failures) },
  )
  return new Set(rows.map(row => row.id))
}
