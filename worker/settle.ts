import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import { type Attempt, type Ending, lookAtDestination, type Workshop } from './attempt.ts'
import { type AttemptFailure, failureOf, inPhase } from './failure.ts'
import { cleanUp, inTheWay } from './remove.ts'
import type { Sight } from './verify.ts'

/**
 * What two looks, some seconds apart, say of a destination where an attempt may still be copying. A file that is complete
 * and right is taken, whoever finished it; one that changed grows; one that did not is what a dead attempt left, unless only its
 * checksum is not known: then it may be right. Nothing there is believed when a second look says it again: StoRM goes on after
 * its client is gone (facts/http-tpc.md section 5).
 */
export function concludeSettling(first: Sight, second: Sight): Conclusion {
  if (second.kind === 'absent' || second.kind === 'right') return second.kind
  if (first.kind === 'absent' || first.kind === 'right') return 'growing'
  const same =
    first.size === second.size &&
    first.checksums.adler32 === second.checksums.adler32 &&
    first.checksums.md5 === second.checksums.md5
  if (!same) return 'growing'
  return second.kind === 'unproven' ? 'unproven' : 'stable'
}

export type Conclusion = 'absent' | 'right' | 'growing' | 'unproven' | 'stable'

/** What was found, and done, at a destination where the end of an attempt was not seen. */
export type Settled =
  | { readonly kind: 'absent' | 'right' | 'growing' | 'cleaned' }
  | { readonly kind: 'foreign' | 'unclear'; readonly failure: AttemptFailure }

/**
 * It may be the right file, and so it is never removed: a storage that sums lazily tells later, one that is asked for the wrong
 * checksum not before a person has looked.
 */
export function unproven(): TransferFailure {
  const words = 'a file of the right size lies at the destination, which tells no checksum that can be compared'
  return transferFailure('CHECKSUM_UNAVAILABLE', 'DESTINATION', 'FINALIZATION', words)
}

/** The second look at a destination, some seconds after the first. Rejects as the look does. */
export async function lookAgain(attempt: Attempt, workshop: Workshop, first: Sight): Promise<Conclusion> {
  await workshop.clock.sleep(workshop.settleMs, attempt.stop)
  return concludeSettling(first, await lookAtDestination(attempt, workshop))
}

export async function settleDestination(attempt: Attempt, workshop: Workshop): Promise<Settled> {
  try {
    const first = await lookAtDestination(attempt, workshop)
    if (first.kind === 'right') return { kind: 'right' }
    const found = await lookAgain(attempt, workshop, first)
    if (found === 'unproven') return { kind: 'unclear', failure: unproven() }
    if (found !== 'stable') return { kind: found }
  } catch (error) {
    return { kind: 'unclear', failure: inPhase(failureOf(error), 'FINALIZATION') }
  }
  const result = await cleanUp(attempt, workshop)
  if (result.kind === 'cleaned') return result
  return { kind: result.kind === 'foreign' ? 'foreign' : 'unclear', failure: result.failure }
}

/** A transfer that an earlier attempt left behind: the destination tells how it ended. */
export async function runSettle(attempt: Attempt, workshop: Workshop): Promise<Ending> {
  const settled = await settleDestination(attempt, workshop)
  if (attempt.stop.aborted) return { result: 'handed-back' }
  switch (settled.kind) {
    case 'absent':
    case 'growing':
      return { result: settled.kind }
    case 'right':
      return { result: 'done', bytes: 0 }
    case 'unclear':
      return { result: 'growing', failure: settled.failure }
    case 'foreign':
      return { result: 'failed', failure: inTheWay(settled.failure), cleaned: false }
    case 'cleaned': {
      const words = 'an earlier attempt ended unseen and left an incomplete or wrong file, which was removed'
      const failure = transferFailure('OUTCOME_UNKNOWN', 'TRANSFER', 'TRANSFER', words)
      return { result: 'failed', failure, cleaned: true }
    }
  }
}
