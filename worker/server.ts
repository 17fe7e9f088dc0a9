import { ApiError, type Client } from '../shared/contract/client.ts'
import { WaybillError } from '../shared/domain/errors.ts'
import { HttpFailure } from '../shared/http/failure.ts'
import { IssuerError } from '../shared/oidc/issuer-error.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'

/** The rows of the contract that a worker calls. */
export type WorkerApi = Pick<
  Client,
  | 'openSession'
  | 'heartbeat'
  | 'closeSession'
  | 'claim'
  | 'reportOutcomes'
  | 'askPermit'
  | 'acquireToken'
  | 'reportRenewal'
  | 'reportImport'
  | 'reportTask'
>

/**
 * Nobody answered, or not just now: worth repeating. 401 counts: the token ended on the way, or the server cannot get the
 * issuer's keys; the next request brings a new one.
 */
export function isAway(error: unknown): boolean {
  if (error instanceof HttpFailure) return error.kind !== 'aborted'
  if (error instanceof IssuerError) return error.code === 'ISSUER_UNREACHABLE' || error.code === 'ISSUER_BUSY'
  return error instanceof ApiError && (error.status >= 500 || [401, 408, 429].includes(error.status))
}

/** The server knows the session no more: whatever it held is settled by others. */
export function isSessionOver(error: unknown): boolean {
  return error instanceof ApiError && error.code.startsWith('SESSION_')
}

/** The request may have reached the server, and done there what it was for, though nobody heard of it. */
export function mayHaveActed(error: unknown): boolean {
  if (error instanceof HttpFailure) return !error.neverSent
  return error instanceof ApiError && error.status >= 500
}

/** For the log: a known error in words, an unknown one whole. */
export function inWords(error: unknown): object {
  return error instanceof WaybillError ? { code: error.code, why: error.message } : { err: error }
}

const FIRST_DELAY_MS = 250
const LONGEST_DELAY_MS = 10_000

/** How long to leave a server alone after `failures` failures in a row, milliseconds. `fraction` is a random number in [0, 1). */
export function backoff(failures: number, fraction: number): number {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures - 1, 20))
  return Math.round(ceiling * (0.5 + fraction / 2))
}

export interface Patience {
  readonly clock: Clock
  readonly random: Random
  readonly signal: AbortSignal
  readonly onFailure?: (error: unknown) => void
}

/** Repeats `call` while the server is away. Rejects with its refusal, or with the last error once `signal` has aborted. */
export async function untilAnswered<T>(patience: Patience, call: () => Promise<T>): Promise<T> {
  const { clock, random, signal, onFailure } = patience
  for (let failures = 1; ; failures++) {
    try {
      return await call()
    } catch (error) {
      if (signal.aborted || !isAway(error)) throw error
      onFailure?.(error)
      await clock.sleep(waitFor(error, failures, random.fraction()), signal)
      if (signal.aborted) throw error
    }
  }
}

function waitFor(error: unknown, failures: number, fraction: number): number {
  const asked = error instanceof ApiError || error instanceof IssuerError ? (error.retryAfterSeconds ?? 0) : 0
  return Math.max(asked * 1000, backoff(failures, fraction))
}
