import { ApiError } from '../shared/contract/client.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import type { Attempt, Workshop } from './attempt.ts'
import { type AttemptFailure, failureOf, inPhase } from './failure.ts'
import { untilAnswered } from './server.ts'

/** Left between the last moment a DELETE may go out and the end of its permit: for the request's way to the storage. */
const MARGIN_MS = 500
/** A timer runs on the monotonic clock: the other one is looked at so often. */
const LOOK_MS = 200
/** The first permit may pass while the token of the clean-up grant is fetched. */
const PERMITS = 3

/** One moment on both clocks: the monotonic one stands still while a machine is suspended, the other can jump. */
export interface Moment {
  readonly monotonic: number
  readonly wall: number
}

export function momentOf(clock: Clock): Moment {
  return { monotonic: clock.monotonic(), wall: clock.now() }
}

/**
 * How long a DELETE may still be sent, milliseconds, by the clock that leaves less; negative: not any more. `askedAt`: before the
 * permit was asked for, so that it surely holds (a late DELETE has destroyed the good file of a later attempt:
 * facts/transfers.md, DIRAC #8465).
 */
export function permitLeft(askedAt: Moment, seconds: number, now: Moment): number {
  const passed = Math.max(now.monotonic - askedAt.monotonic, now.wall - askedAt.wall)
  return seconds * 1000 - MARGIN_MS - passed
}

/** Resolves when the permit is over, soon after a machine that was suspended goes on, or when `answered` aborts. */
export async function untilOver(clock: Clock, left: () => number, answered: AbortSignal): Promise<void> {
  while (!answered.aborted && left() > 0) await clock.sleep(Math.min(left(), LOOK_MS), answered)
}

export type CleanUp =
  | { readonly kind: 'cleaned' }
  /** It stays: it is none of ours. */
  | { readonly kind: 'foreign' | 'failed'; readonly failure: AttemptFailure }

/**
 * Removes what lies at the destination, under a permit of the server's. `cleaned`: the DELETE was answered. What this attempt
 * cannot have left goes only if the server knows of an earlier one that may have.
 */
export async function cleanUp(attempt: Attempt, workshop: Workshop): Promise<CleanUp> {
  try {
    for (let permit = 0; permit < PERMITS; permit++) {
      if (await removeUnderPermit(attempt, workshop).catch(falseIfOver)) {
        attempt.progress.left = 'nothing'
        return { kind: 'cleaned' }
      }
    }
    const message = 'every permit for the clean-up was over before the token for it came'
    return { kind: 'failed', failure: late(message) }
  } catch (error) {
    const failure = inPhase(failureOf(error), 'FINALIZATION')
    return failure.code === 'PERMIT_REFUSED' ? { kind: 'foreign', failure } : { kind: 'failed', failure }
  }
}

/** Why a transfer ends at a file that is left alone; `before`: what had gone wrong until then. */
export function inTheWay({ message }: AttemptFailure, before?: AttemptFailure): AttemptFailure {
  const words = before === undefined ? message : `${message}; before: ${before.code}, ${before.message}`
  return transferFailure('DESTINATION_EXISTS', 'DESTINATION', 'PREPARATION', words.slice(0, 1000))
}

function late(message: string): AttemptFailure {
  return { scope: 'GENERAL', phase: 'FINALIZATION', code: 'PERMIT_LATE', message, retryable: true }
}

/** The server gives the token to clean up only while there is a permit. */
function falseIfOver(error: unknown): false {
  if (error instanceof ApiError && error.code === 'PERMIT_MISSING') return false
  throw error
}

/** False when the permit did not last until the DELETE could be sent; then nothing was sent. */
async function removeUnderPermit(
  { transfer, destination, stop, progress }: Attempt,
  workshop: Workshop,
): Promise<boolean> {
  const { api, session, access, clock, random } = workshop
  let askedAt = momentOf(clock)
  const { seconds, grant } = await untilAnswered({ clock, random, signal: stop }, () => {
    askedAt = momentOf(clock)
    const { transfer: id, fence } = transfer
    const written = progress.left === 'own'
    return api.askPermit({ body: { session, transfer: id, fence, written }, signal: stop })
  })
  const place = { ...destination, grant }
  await access.token(place)
  return access.use(place, async token => {
    const left = () => permitLeft(askedAt, seconds, momentOf(clock))
    if (left() <= 0) return false
    const ended = new AbortController()
    const onStop = () => ended.abort()
    stop.addEventListener('abort', onStop, { once: true })
    const answered = new AbortController()
    // Whatever still waits for a connection when the permit ends must not go out.
    void untilOver(clock, left, answered.signal).then(() => ended.abort())
    try {
      await place.storage.remove(place.url, token, { scope: 'DESTINATION', signal: ended.signal })
      return true
    } finally {
      answered.abort()
      stop.removeEventListener('abort', onStop)
    }
  })
}
