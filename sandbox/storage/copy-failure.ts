import { HttpFailure } from '../../shared/http/failure.ts'
import type { Behaviour } from './behaviour.ts'
import type { Asked, CopyFailure } from './dialect.ts'
import type { Progress } from './progress.ts'
import { Refusal } from './refusal.ts'
import { RemoteRefusal } from './remote.ts'

/** A failure that its thrower has named already. */
export class CopyFailed extends Error {
  readonly failure: CopyFailure

  constructor(failure: CopyFailure) {
    super(failure.kind)
    this.failure = failure
  }
}

/** What a dialect makes a last line of, from whatever ended a copy. */
export function copyFailureOf(
  error: unknown,
  { mode }: Asked,
  progress: Progress,
  { stallSeconds }: Behaviour,
): CopyFailure {
  const { bytes } = progress
  const words = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, ' ')
  if (error instanceof CopyFailed) return error.failure
  if (error instanceof RemoteRefusal) return { kind: 'refused', status: error.status, words }
  if (error instanceof HttpFailure) {
    const sent = error.kind === 'timeout-headers' && bytes > 0
    if (error.kind === 'timeout-idle' || sent) return { kind: 'stalled', seconds: stallSeconds, bytes, words }
    if (error.kind === 'reset' && mode === 'pull' && bytes > 0)
      return { kind: 'cut-off', bytes, of: progress.expected, words }
    return { kind: 'unreached', by: error.kind, words }
  }
  return { kind: error instanceof Refusal && error.kind === 'full' ? 'full' : 'other', words }
}
