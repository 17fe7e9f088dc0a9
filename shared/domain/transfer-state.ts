import { afterFailure, DEFAULT_RETRY_POLICY, type RetryPolicy } from './retry-policy.ts'
import { type StateMachine, targetsOf } from './state-machine.ts'
import type { TransferFailure } from './transfer-error.ts'

export const TRANSFER_STATES = {
  WAITING: 'not before a time, or until a source appears',
  QUEUED: 'may be claimed',
  CLAIMED: 'a worker’s session has it',
  STAGING: 'its source is asked back from tape: nobody holds it, and it takes no slots',
  COPYING: 'the storage took the COPY: something may lie at the destination',
  SETTLING:
    'nobody saw how it ended: the destination is looked at. Nothing there (absent): nothing happened, and it is queued again',
  ARCHIVING: 'on disk, not yet on tape',
  DONE: 'its file is there and was verified',
  FAILED: 'no attempt is left: the locks on its replica are STUCK, and the repair of their rules opens another',
  CANCELLED: 'nobody wants it any more',
} as const
export type TransferState = keyof typeof TRANSFER_STATES

export type TransferEventType =
  | 'release' // what it waited for is there
  | 'starve' // no source is left
  | 'replan' // another source is better
  | 'claim'
  | 'stage' // the source is on tape
  | 'online' // it is on disk
  | 'copy'
  | 'hand-back' // the worker did not touch the storages: not an attempt
  | 'lose' // the session ended, or the COPY without an outcome
  | 'look-again' // the destination still grows
  | 'absent' // settled: nothing lies at the destination, so nothing happened
  | 'archive'
  | 'succeed'
  | 'fail'
  | 'give-up' // no way over other storages is left
  | 'cancel'

const ended = {} as const
const active = {
  'hand-back': 'QUEUED',
  lose: 'SETTLING',
  archive: 'ARCHIVING',
  succeed: 'DONE',
  fail: ['WAITING', 'FAILED', 'CANCELLED'],
} as const

/** The one table of a transfer's life. A transfer that a worker holds is not cancelled, but marked: it ends with its attempt. */
export const TRANSFER_MACHINE: StateMachine<TransferState, TransferEventType> = {
  WAITING: { release: 'QUEUED', stage: 'STAGING', 'give-up': 'FAILED', cancel: 'CANCELLED' },
  STAGING: { online: 'WAITING', fail: ['WAITING', 'FAILED', 'CANCELLED'], cancel: 'CANCELLED' },
  QUEUED: { claim: 'CLAIMED', starve: 'WAITING', replan: 'QUEUED', cancel: 'CANCELLED' },
  CLAIMED: { ...active, copy: 'COPYING', cancel: 'CLAIMED' },
  COPYING: { ...active, cancel: 'COPYING' },
  SETTLING: {
    claim: 'SETTLING',
    'hand-back': 'SETTLING',
    lose: 'SETTLING',
    'look-again': 'SETTLING',
    absent: ['QUEUED', 'CANCELLED'],
    archive: 'ARCHIVING',
    succeed: 'DONE',
    fail: ['WAITING', 'FAILED', 'CANCELLED'],
    cancel: 'SETTLING',
  },
  ARCHIVING: { succeed: 'DONE', fail: ['WAITING', 'FAILED', 'CANCELLED'], cancel: 'CANCELLED' },
  DONE: ended,
  FAILED: ended,
  CANCELLED: ended,
}

/** A worker is, or may still be, busy with it: it takes a slot at both storages. */
export const ACTIVE_STATES = ['CLAIMED', 'COPYING', 'SETTLING'] as const satisfies TransferState[]
export const ENDED_STATES = ['DONE', 'FAILED', 'CANCELLED'] as const satisfies TransferState[]

export function isEnded(state: TransferState): boolean {
  return ENDED_STATES.some(ended => ended === state)
}

/** What a decision about a transfer looks at. */
export interface TransferFacts {
  readonly state: TransferState
  /** Attempts that counted so far. */
  readonly attempts: number
  readonly cancelRequested: boolean
}

export type TransferEvent =
  | { readonly type: Exclude<TransferEventType, 'fail' | 'look-again'> }
  | { readonly type: 'look-again'; readonly afterMs: number }
  | { readonly type: 'fail'; readonly failure: TransferFailure; readonly fraction: number }

/** What follows. `notBefore` is epoch milliseconds, 0 for at once. */
export interface TransferNext {
  readonly state: TransferState
  readonly attempts: number
  readonly notBefore: number
  readonly cancelRequested: boolean
}

/** The new facts, or `undefined` when the event is refused in this state. Pure. */
export function transition(
  row: TransferFacts,
  event: TransferEvent,
  now: number,
  policy: RetryPolicy = DEFAULT_RETRY_POLICY,
): TransferNext | undefined {
  const targets = targetsOf(TRANSFER_MACHINE, row.state, event.type)
  const [only] = targets
  if (only === undefined) return undefined
  const same = { attempts: row.attempts, cancelRequested: row.cancelRequested, notBefore: 0 }
  switch (event.type) {
    case 'fail': {
      const attempts = row.attempts + 1
      if (row.cancelRequested) return { ...same, attempts, state: 'CANCELLED' }
      const next = afterFailure(policy, attempts, event.failure, event.fraction)
      if (!next.again) return { ...same, attempts, state: 'FAILED' }
      const { counted, afterMs } = next
      return { ...same, attempts: counted ? attempts : row.attempts, state: 'WAITING', notBefore: now + afterMs }
    }
    case 'absent':
      return { ...same, state: row.cancelRequested ? 'CANCELLED' : 'QUEUED' }
    case 'look-again':
      return { ...same, state: only, notBefore: now + event.afterMs }
    case 'cancel':
      return { ...same, state: only, cancelRequested: true }
    // The attempt that copied it has counted already.
    case 'succeed':
      return { ...same, attempts: row.attempts + (row.state === 'ARCHIVING' ? 0 : 1), state: only }
    case 'archive':
      return { ...same, attempts: row.attempts + 1, state: only }
    default:
      return { ...same, state: only }
  }
}
