import { WaybillError } from '../../shared/domain/errors.ts'
import { sees, sightOf } from '../accounts/sight.ts'
import type { Handlers } from '../app.ts'
import type { Context } from '../context.ts'
import { decodeCursor, pageOf } from '../database/cursor.ts'
import { requireRule } from '../rules/routes.ts'
import {
  attemptsOf,
  listTransfers,
  listTransfersOfRule,
  type ShownAttempt,
  type ShownTransfer,
  showTransfer,
} from './read-store.ts'

type TransferHandlers = Pick<Handlers, 'listTransfers' | 'getTransfer' | 'listRuleTransfers'>

export function transferHandlers(context: Context): TransferHandlers {
  const { db, storages } = context
  const rseNames = async (): Promise<Map<number, string>> =>
    new Map((await storages.all()).map(rse => [rse.id, rse.name]))

  return {
    async listTransfers({ query: { state, source, destination, cursor, limit }, caller }) {
      const names = await rseNames()
      const sight = sightOf(caller)
      const idOf = async (name: string | undefined, field: string): Promise<number | undefined> =>
        name === undefined ? undefined : (await storages.byName(sight, name, field)).id
      const rows = await listTransfers(db.read, sight, {
        state,
        sourceId: await idOf(source, 'source'),
        destinationId: await idOf(destination, 'destination'),
        after: decodeCursor(cursor),
        limit: limit + 1,
      })
      return pageOf(
        rows,
        limit,
        row => row.id,
        row => viewTransfer(row, names),
      )
    },
    async listRuleTransfers({ params, query: { state, cursor, limit }, caller }) {
      const names = await rseNames()
      const rule = await requireRule(db.read, sightOf(caller), params.id)
      const rows = await listTransfersOfRule(db.read, rule.id, { state, after: decodeCursor(cursor), limit: limit + 1 })
      return pageOf(
        rows,
        limit,
        row => row.id,
        row => viewTransfer(row, names),
      )
    },
    async getTransfer({ params, caller }) {
      const names = await rseNames()
      const transfer = await showTransfer(db.read, params.id)
      if (transfer === undefined || !sees(sightOf(caller), transfer.vo_id)) {
        throw transferUnknown(params.id)
      }
      const attempts = await attemptsOf(db.read, params.id)
      return { ...viewTransfer(transfer, names), attemptList: attempts.map(attempt => viewAttempt(attempt, names)) }
    },
  }
}

/** 404 TRANSFER_UNKNOWN. */
export function transferUnknown(id: number): WaybillError {
  return new WaybillError('TRANSFER_UNKNOWN', `there is no transfer ${id}`, { status: 404, field: 'id' })
}

function viewTransfer(row: ShownTransfer, names: ReadonlyMap<number, string>) {
  const reason = reasonOf(row)
  return {
    id: row.id,
    did: row.did,
    destination: names.get(row.destination_rse_id) ?? '',
    state: row.state as 'DONE',
    bytes: row.bytes,
    bytesDone: row.state === 'DONE' ? row.bytes : row.bytes_done,
    attempts: row.attempts,
    activity: row.activity,
    priority: row.priority,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    ...(row.source_rse_id === null ? {} : { source: names.get(row.source_rse_id) ?? '' }),
    ...(reason === null ? {} : { reason }),
    ...(row.hop_of === null ? {} : { hopOf: row.hop_of }),
    ...(row.not_before > 0 ? { notBefore: row.not_before } : {}),
    ...(row.replanned_at === null
      ? {}
      : {
          replanned: {
            at: row.replanned_at,
            from: names.get(row.replanned_from ?? 0) ?? '',
            code: row.replan_code ?? '',
            message: row.replan_message ?? '',
          },
        }),
  }
}

/** Why it waits, or failed. */
function reasonOf({ state, reason, via, awaits_source, awaits_token, last_error }: ShownTransfer): string | null {
  if (awaits_token !== null) return awaits_token
  if (awaits_source !== null) return awaits_source
  if (via !== null) return `${reason} (via ${via})`
  if (reason === 'BACKOFF' && last_error !== null) return `BACKOFF (${last_error})`
  return state === 'FAILED' || state === 'SETTLING' ? (last_error ?? reason) : reason
}

function viewAttempt(row: ShownAttempt, names: ReadonlyMap<number, string>) {
  const { scope, phase, code, message } = row
  return {
    outcome: row.outcome,
    startedAt: row.started_at,
    endedAt: row.ended_at,
    bytes: row.bytes,
    ...(row.source_rse_id === null ? {} : { source: names.get(row.source_rse_id) ?? '' }),
    ...(row.mode === null ? {} : { mode: row.mode }),
    ...(row.source_grant_id === null ? {} : { sourceGrant: row.source_grant_id }),
    ...(row.destination_grant_id === null ? {} : { destinationGrant: row.destination_grant_id }),
    ...(code === null ? {} : { error: { scope: scope ?? '', phase: phase ?? '', code, message: message ?? '' } }),
  }
}
