import type { z } from 'zod'
import { ApiError } from '../shared/contract/client.ts'
import type { transferError } from '../shared/contract/routes/worker.ts'
import type { TransferPhase, TransferScope } from '../shared/domain/error-catalogue.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { oneLine } from '../shared/domain/one-line.ts'
import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import { HttpFailure } from '../shared/http/failure.ts'
import { StorageError } from '../shared/storage/types.ts'

/** What went wrong in an attempt. Its code is a storage's, or one of the server's or issuer's for a token that was not to be had. */
export interface AttemptFailure extends Omit<TransferFailure, 'code'> {
  readonly code: string
}

interface TokenUnavailableOptions {
  readonly retryable: boolean
  readonly retryAfterSeconds?: number | undefined
  /** The server knows of it, and gives out no work under this grant until it can be used again. */
  readonly known?: boolean
}

/** A token that cannot be had. The storage may be healthy, so the scope is TOKEN. */
export class TokenUnavailable extends WaybillError {
  readonly failure: AttemptFailure
  readonly known: boolean

  constructor(code: string, message: string, options: TokenUnavailableOptions) {
    super(code, message, { status: 502 })
    this.name = 'TokenUnavailable'
    const { retryable, retryAfterSeconds, known = false } = options
    this.known = known
    this.failure = {
      scope: 'TOKEN',
      phase: 'PREPARATION',
      code,
      message,
      retryable,
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    }
  }
}

/** The failure behind what an attempt throws. What only a fault of ours can be is thrown again. */
export function failureOf(error: unknown): AttemptFailure {
  if (error instanceof StorageError || error instanceof TokenUnavailable) return error.failure
  if (error instanceof ApiError) return general(error.code, `the rules server refused: ${error.message}`)
  if (error instanceof HttpFailure) return general('SERVER_UNREACHABLE', error.message)
  throw error
}

function general(code: string, message: string): AttemptFailure {
  return { scope: 'GENERAL', phase: 'PREPARATION', code, message, retryable: true }
}

/** The worker stopped while something may have been going on. */
export function interrupted(): AttemptFailure {
  return general('INTERRUPTED', 'the worker stopped before it saw the end')
}

/** A fault of ours: what it was stands in the log only. */
export function workerFault(): AttemptFailure {
  return general('WORKER_FAULT', 'the worker failed; the cause is in its log')
}

/** The same failure at another point of the attempt. */
export function inPhase(failure: AttemptFailure, phase: TransferPhase): AttemptFailure {
  return { ...failure, phase }
}

/** 429, or with the time that it asks for: whatever else is sent meanwhile is too much. */
export function asksForRest({ code, retryAfterSeconds }: AttemptFailure): boolean {
  return code === 'TOO_MANY_REQUESTS' || retryAfterSeconds !== undefined
}

/** Which of the two storages a failure speaks of; undefined: neither, or both. */
export function sideOf({ scope, side }: { scope: TransferScope; side?: 'SOURCE' | 'DESTINATION' }) {
  return scope === 'SOURCE' || scope === 'DESTINATION' ? scope : side
}

/** As the contract has it: bounded, and nothing beside its fields. */
export function reportedError(failure: AttemptFailure): z.input<typeof transferError> {
  const { scope, phase, code, message, retryable, retryAfterSeconds } = failure
  return {
    scope,
    phase,
    code: /^[A-Z][A-Z_]{2,60}$/.test(code) ? code : 'WORKER_FAULT',
    message: oneLine(message, 1000),
    retryable,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  }
}
