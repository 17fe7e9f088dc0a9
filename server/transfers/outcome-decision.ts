import type { z } from 'zod'
import type { outcome } from '../../shared/contract/routes/worker.ts'
import type { TransferCode } from '../../shared/domain/error-catalogue.ts'
import type { TransferEvent } from '../../shared/domain/transfer-state.ts'
import type { HealthSide } from './health.ts'
import type { TransferHistory } from './history.ts'
import type { Application } from './outcome-store.ts'
import { type EarlierLooks, isLastLook, lookDelay } from './settling.ts'

/** What a worker reports of an attempt, and what that comes to. Pure. */

export type ReportedOutcome = z.output<typeof outcome>

const NO_LOOKS: EarlierLooks = { looks: 0, inVain: 0 }

/**
 * A transfer is not settled for ever, and holds its slots no longer than that. Of an attempt that was interrupted nothing is left
 * when that was removed: it is as if it had never been.
 */
export function judge(
  reported: ReportedOutcome,
  looks: EarlierLooks | undefined = NO_LOOKS,
  interrupted: boolean,
): ReportedOutcome {
  if (interrupted && reported.result === 'failed' && reported.cleaned) return { ...reported, result: 'absent' }
  if (reported.result !== 'growing' || !isLastLook(looks, reported.error)) return reported
  const stillGrows = {
    scope: 'DESTINATION',
    phase: 'FINALIZATION',
    code: 'OUTCOME_UNKNOWN',
    message: 'nobody saw the attempt end, and the file at the destination still changes',
    retryable: true,
  } as const
  return { ...reported, result: 'failed', error: reported.error ?? stillGrows }
}

/** What is right is no debris, and where nothing lies there is none either. */
export function leftBy({ result, left }: ReportedOutcome): Application['left'] {
  return result === 'done' || result === 'absent' ? 'nothing' : left
}

/** Which storage failed which transfer. */
export function failedAt({ transfer, error }: ReportedOutcome): { transfer: number; scope: HealthSide }[] {
  return error?.scope === 'SOURCE' || error?.scope === 'DESTINATION' ? [{ transfer, scope: error.scope }] : []
}

/** Nothing helps at this source; another may have the file. */
export function isSourceGone({ error }: ReportedOutcome): boolean {
  return error?.scope === 'SOURCE' && !error.retryable
}

/** What a report means in the transfer's table of events. */
export function eventOf(reported: ReportedOutcome, fraction: number, history: TransferHistory = {}): TransferEvent {
  switch (reported.result) {
    case 'done':
      return { type: history.archives === true ? 'archive' : 'succeed' }
    case 'unknown':
      return { type: 'lose' }
    case 'handed-back':
      return { type: 'hand-back' }
    case 'absent':
      // A storage that always ends without an outcome and without a file is not asked for ever.
      return history.loss === undefined ? { type: 'absent' } : { type: 'fail', failure: history.loss, fraction }
    case 'growing':
      return { type: 'look-again', afterMs: lookDelay(history.looks ?? NO_LOOKS) }
    case 'failed': {
      const unexplained = {
        scope: 'GENERAL',
        phase: 'TRANSFER',
        code: 'TRANSFER_FAILED',
        message: 'the worker gave no reason',
        retryable: true,
      } as const
      const { retryAfterSeconds, ...error } = reported.error ?? { ...unexplained, retryAfterSeconds: undefined }
      const failure = {
        ...error,
        retryable: error.retryable || (isSourceGone(reported) && history.elsewhere === true),
        code: error.code as TransferCode,
        ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      }
      return { type: 'fail', failure, fraction }
    }
  }
}
