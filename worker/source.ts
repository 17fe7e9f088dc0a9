import { transferFailure } from '../shared/storage/classify.ts'
import type { FileStatus } from '../shared/storage/types.ts'
import { storageWords } from '../shared/storage/words.ts'
import type { Attempt, Workshop } from './attempt.ts'
import { type AttemptFailure, failureOf } from './failure.ts'
import { checks, inspect, knownChecksums, type Sight } from './verify.ts'

type Access = Pick<Workshop, 'access'>

/** Why the source's file is not to be copied, where its storage's policy wants that looked at. Rejects as a look does. */
export async function faultOfSource(attempt: Attempt, workshop: Access): Promise<AttemptFailure | undefined> {
  if (!checks(attempt.source.traits, 'source')) return undefined
  const sight = await lookAtSource(attempt, workshop)
  if (sight.kind === 'absent') return fault('SOURCE_MISSING', 'the source has no such file')
  if (sight.kind === 'unproven' && Object.keys(knownChecksums(attempt.transfer)).length > 0) {
    return fault('CHECKSUM_UNAVAILABLE', 'the source tells no checksum that can be compared')
  }
  return sight.kind === 'wrong' ? confirmed(attempt, workshop, sight) : undefined
}

/**
 * A copy is not what the catalogue says: is it the source's fault? The catalogue's values win, so without a checksum there
 * nobody can say. What the source does not answer leaves the failure as it is.
 */
export async function withBlame(attempt: Attempt, workshop: Access, failure: AttemptFailure): Promise<AttemptFailure> {
  if (Object.keys(knownChecksums(attempt.transfer)).length === 0) return failure
  try {
    const sight = await lookAtSource(attempt, workshop)
    return (sight.kind === 'wrong' && (await confirmed(attempt, workshop, sight))) || failure
  } catch (error) {
    failureOf(error)
    return failure
  }
}

/** What a look at the source adds to a failure of a copy that is not through. */
export async function withCause(attempt: Attempt, workshop: Access, failure: AttemptFailure): Promise<AttemptFailure> {
  // In a stream the worker itself saw that the source gives something else.
  const isOther = failure.code === 'SIZE_MISMATCH' && failure.scope === 'SOURCE'
  return isOther ? withBlame(attempt, workshop, failure) : withSilence(attempt, workshop, failure)
}

const STALLS = new Set(['TIMEOUT_NO_PROGRESS', 'TIMEOUT_NO_MARKER'])
const SILENCE = new Set(['CONNECT_FAILED', 'RESOLVE_FAILED', 'TLS_FAILED', 'TIMEOUT_CONNECT', 'TIMEOUT_HEADERS'])

/**
 * A pull of which no byte came: from a source that is switched off a destination sees nothing but a stall. A source that does
 * not answer the worker either is to blame.
 */
async function withSilence(
  { source, progress, copying }: Attempt,
  { access }: Access,
  failure: AttemptFailure,
): Promise<AttemptFailure> {
  const stalled = failure.scope === 'TRANSFER' && STALLS.has(failure.code)
  if (!stalled || progress.mode !== 'pull' || progress.bytes > 0) return failure
  try {
    await access.use(source, token => source.storage.head(source.url, token, { scope: 'SOURCE', signal: copying }))
    return failure
  } catch (error) {
    const { scope, code, message } = failureOf(error)
    if (scope !== 'SOURCE' || !SILENCE.has(code)) return failure
    const words = storageWords(`${failure.message}; nor does the source answer: ${message}`)
    return { ...failure, scope, code, message: words }
  }
}

/** It may take the source hours to sum a file: a cancellation ends it. */
function lookAtSource({ transfer, source, copying }: Attempt, { access }: Access): Promise<Sight> {
  const expected = { bytes: transfer.bytes, checksums: knownChecksums(transfer) }
  return inspect(expected, source.traits.checksum, 'source', wantDigest =>
    access.use(
      source,
      (token): Promise<FileStatus> =>
        source.storage.head(source.url, token, {
          wantDigest,
          expectedSize: transfer.bytes,
          scope: 'SOURCE',
          signal: copying,
        }),
    ),
  )
}

/** XRootD before 6.0.0 may tell another file's checksum (docs/operations.md): only what is said twice is believed. */
async function confirmed(
  attempt: Attempt,
  workshop: Access,
  first: Sight & { kind: 'wrong' },
): Promise<AttemptFailure | undefined> {
  const second = await lookAtSource(attempt, workshop)
  if (second.kind !== 'wrong' || second.message !== first.message) return undefined
  return fault('SOURCE_CORRUPT', first.message)
}

function fault(code: 'SOURCE_MISSING' | 'SOURCE_CORRUPT' | 'CHECKSUM_UNAVAILABLE', words: string): AttemptFailure {
  return transferFailure(code, 'SOURCE', 'PREPARATION', words)
}
