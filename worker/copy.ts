import { oneLine } from '../shared/domain/one-line.ts'
import { mayExistAlready, mayLackParent, type TransferFailure } from '../shared/domain/transfer-error.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import type { Checksums, CopyOutcome } from '../shared/storage/types.ts'
import { type Attempt, type Ending, lookAtDestination, type Workshop } from './attempt.ts'
import { withoutStale } from './copy-tokens.ts'
import { cancelled, copyInTurn } from './copy-turn.ts'
import { mayHaveLeft } from './debris.ts'
import { type AttemptFailure, failureOf, inPhase, interrupted, TokenUnavailable } from './failure.ts'
import { chooseMode, type Mode } from './mode.ts'
import { cleanUp, inTheWay } from './remove.ts'
import { type Conclusion, lookAgain, settleDestination, unproven } from './settle.ts'
import { faultOfSource, withBlame, withCause } from './source.ts'
import type { Sight } from './verify.ts'

/** What was already done about a failure in this attempt: each remedy is tried once. */
export interface Remedied {
  readonly parent: boolean
  readonly token: boolean
}

export type Remedy = 'another-mode' | 'make-parent' | 'another-token' | 'none'

/**
 * What makes it worth sending the COPY again within the attempt. Another mode for "not supported" only, never for a refusal,
 * a missing file or a cancellation (facts/transfers.md, Mode). `mayBeToken`: it was denied to the first COPY under a grant.
 */
export function remedyFor(failure: TransferFailure, mode: Mode, done: Remedied, mayBeToken = false): Remedy {
  if (failure.code === 'NOT_SUPPORTED') return mode === 'stream' ? 'none' : 'another-mode'
  if (failure.code === 'TOKEN_REFUSED' || mayBeToken) return done.token ? 'none' : 'another-token'
  return mayLackParent(failure) && !done.parent ? 'make-parent' : 'none'
}

/** One attempt at a copy: sent, watched, verified, and cleaned up after if it failed. Rejects for faults of ours only. */
export async function runCopy(attempt: Attempt, workshop: Workshop): Promise<Ending> {
  const { progress, stop } = attempt
  const ending = await runOnce(attempt, workshop)
  if (!stop.aborted || ending.result === 'done') return ending
  if (ending.result === 'failed' && ending.cleaned) return ending
  return progress.sent ? { result: 'unknown', failure: interrupted() } : { result: 'handed-back' }
}

async function runOnce(attempt: Attempt, workshop: Workshop): Promise<Ending> {
  const { progress, stop, copying } = attempt
  const outcome = await drive(attempt, workshop)
  if (outcome.kind === 'no-token') return { result: 'handed-back', failure: outcome.error }
  if (outcome.kind === 'done') return verified(attempt, workshop, outcome.checksums)
  const failure = copying.aborted ? cancelled() : await withCause(attempt, workshop, outcome.error)
  if (outcome.kind === 'unknown' && !copying.aborted) return { result: 'unknown', failure }
  // A stop needs no clean-up of its own: the next lease settles it.
  if (stop.aborted || (progress.left !== 'own' && !mayHaveLeft(failure, progress)))
    return { result: 'failed', failure, cleaned: false }
  return copying.aborted ? afterCancel(attempt, workshop, failure) : afterFailure(attempt, workshop, failure)
}

/** no-token: the storages were not touched, and no attempt is lost to an issuer in trouble. */
type Driven = CopyOutcome | { readonly kind: 'failed' | 'no-token'; readonly error: AttemptFailure }

async function drive(attempt: Attempt, workshop: Workshop): Promise<Driven> {
  try {
    return await sendUntilTaken(attempt, workshop)
  } catch (error) {
    const waits = error instanceof TokenUnavailable && error.known && !attempt.progress.sent
    return { kind: waits ? 'no-token' : 'failed', error: failureOf(error) }
  }
}

/** Sends the COPY, in another mode or after a remedy again, until one outcome stands. */
async function sendUntilTaken(attempt: Attempt, workshop: Workshop): Promise<Driven> {
  const { source, destination, copying } = attempt
  const { modes, access } = workshop
  const wrong = await faultOfSource(attempt, workshop)
  if (wrong !== undefined) return { kind: 'failed', error: wrong }
  const pair = [source.traits.rse, destination.traits.rse] as const
  const unsupported = modes.unsupported(...pair)
  let done: Remedied = { parent: false, token: false }
  for (;;) {
    const mode = chooseMode(source.traits, destination.traits, unsupported, attempt.transfer.mode)
    const { outcome, tokens, mayBeToken } = await copyInTurn(attempt, workshop, mode)
    if (outcome.kind !== 'failed' || copying.aborted) return outcome
    const remedy = remedyFor(outcome.error, mode, done, mayBeToken)
    if (remedy === 'none') return withoutStale(workshop, tokens, outcome)
    if (remedy === 'another-mode' && mode !== 'stream') {
      unsupported.add(mode)
      modes.remember(...pair, mode)
    }
    // The next attempt is the remedy then.
    if (!(await isClear(attempt, workshop))) return { kind: 'failed', error: { ...outcome.error, retryable: true } }
    if (remedy === 'make-parent') {
      const parent = new URL('.', destination.url).href
      await access.use(destination, token => destination.storage.mkcol(parent, token, { scope: 'DESTINATION' }))
    }
    done = { parent: done.parent || remedy === 'make-parent', token: done.token || remedy === 'another-token' }
  }
}

/** Whether nothing of an earlier COPY of this attempt lies at the destination, where another COPY would take it for somebody else's. */
async function isClear(attempt: Attempt, workshop: Workshop): Promise<boolean> {
  if (attempt.progress.left !== 'own') return true
  try {
    return (await lookAtDestination(attempt, workshop)).kind === 'absent'
  } catch (error) {
    failureOf(error)
    return false
  }
}

async function verified(attempt: Attempt, workshop: Workshop, passed: Checksums): Promise<Ending> {
  const { transfer } = attempt
  let sight: Sight
  try {
    sight = await lookAtDestination(attempt, workshop, passed)
  } catch (error) {
    return { result: 'unknown', failure: inPhase(failureOf(error), 'FINALIZATION') }
  }
  switch (sight.kind) {
    case 'right':
      return { result: 'done', bytes: transfer.bytes }
    case 'absent': {
      const words = 'the storage reported success, but there is no file'
      const failure = transferFailure('TRANSFER_FAILED', 'DESTINATION', 'FINALIZATION', words)
      return { result: 'failed', failure, cleaned: false }
    }
    case 'unproven':
      return { result: 'unknown', failure: unproven() }
    case 'wrong': {
      const failure = transferFailure(sight.code, 'TRANSFER', 'FINALIZATION', sight.message)
      return cleaned(attempt, workshop, await withBlame(attempt, workshop, failure))
    }
  }
}

/**
 * Nothing of ours copies any more; whether something lies there, one look tells. It may even be the right file. What is none of
 * this attempt's somebody else may be writing: while it changes it is left alone, and so it is for good where no attempt can
 * have left it.
 */
async function afterFailure(attempt: Attempt, workshop: Workshop, failure: AttemptFailure): Promise<Ending> {
  const { progress } = attempt
  let found: Conclusion
  try {
    const sight = await lookAtDestination(attempt, workshop)
    if (sight.kind !== 'wrong') found = sight.kind
    else found = progress.left === 'own' ? 'stable' : await lookAgain(attempt, workshop, sight)
  } catch (error) {
    return { result: 'unknown', failure: alsoFailed(failure, 'the look at the destination', failureOf(error)) }
  }
  switch (found) {
    case 'right':
      return { result: 'done', bytes: progress.bytes }
    case 'growing':
      return { result: 'unknown', failure }
    case 'unproven':
      return { result: 'unknown', failure: alsoFailed(unproven(), 'the copy', failure) }
    case 'absent':
      progress.left = 'nothing'
      return { result: 'failed', failure: withoutFile(failure), cleaned: false }
    case 'stable':
      return cleaned(attempt, workshop, failure)
  }
}

async function cleaned(attempt: Attempt, workshop: Workshop, failure: AttemptFailure): Promise<Ending> {
  const result = await cleanUp(attempt, workshop)
  switch (result.kind) {
    case 'cleaned':
      return { result: 'failed', failure: withoutFile(failure), cleaned: true }
    case 'foreign':
      return { result: 'failed', failure: inTheWay(result.failure, failure), cleaned: false }
    case 'failed':
      return { result: 'unknown', failure: alsoFailed(failure, 'the clean-up', result.failure) }
  }
}

/** A file that was in the way is not any more. */
function withoutFile(failure: AttemptFailure): AttemptFailure {
  return mayExistAlready(failure) ? { ...failure, retryable: true } : failure
}

/**
 * The connection was dropped. XRootD stops at its next marker, StoRM goes on, and the part may show only then
 * (facts/http-tpc.md section 5, Disconnect): so not at once, and then as for any attempt whose end nobody saw.
 */
async function afterCancel(attempt: Attempt, workshop: Workshop, failure: AttemptFailure): Promise<Ending> {
  await workshop.clock.sleep(workshop.settleMs, attempt.stop)
  const settled = await settleDestination(attempt, workshop)
  switch (settled.kind) {
    case 'right':
      return { result: 'done', bytes: attempt.progress.bytes }
    case 'absent':
    case 'cleaned':
      return { result: 'failed', failure, cleaned: settled.kind === 'cleaned' }
    case 'growing':
      return { result: 'unknown', failure }
    case 'foreign':
      return { result: 'failed', failure, cleaned: false }
    case 'unclear':
      return { result: 'unknown', failure: alsoFailed(failure, 'the clean-up', settled.failure) }
  }
}

function alsoFailed(failure: AttemptFailure, what: string, second: AttemptFailure): AttemptFailure {
  return {
    ...failure,
    message: oneLine(`${failure.message}; ${what} failed too: ${second.code}, ${second.message}`, 1000),
  }
}
