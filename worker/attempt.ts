import type { ClaimedTransfer, Outcome, WorkerStorage } from '../shared/contract/routes/worker.ts'
import type { Clock } from '../shared/runtime/clock.ts'
import type { Random } from '../shared/runtime/random.ts'
import type { ChecksumAlgorithm, Checksums, FileStatus, Watchdogs } from '../shared/storage/types.ts'
import type { Place, StorageAccess } from './access.ts'
import type { AttemptFailure } from './failure.ts'
import type { Macaroons } from './macaroons.ts'
import type { Mode, ModeMemory } from './mode.ts'
import type { WorkerApi } from './server.ts'
import { checks, type ExpectedFile, inspect, judgeSize, knownChecksums, type Sight, withPassed } from './verify.ts'

/** One claimed transfer under way. */
export interface Attempt {
  readonly transfer: ClaimedTransfer
  readonly source: Place & { readonly traits: WorkerStorage }
  readonly destination: Place & { readonly traits: WorkerStorage }
  /** Everything ends: the lease is over, or the worker stops. */
  readonly stop: AbortSignal
  /** Copying ends, for that or because the transfer is cancelled; clean-up goes on. */
  readonly copying: AbortSignal
  readonly progress: Progress
  /** The server is to hear soon that something of this attempt may lie at the destination. */
  readonly onTaken: () => void
}

/** What an attempt has done so far; it writes, heartbeats and the shutdown read. */
export interface Progress {
  /** A COPY or a PUT went out. */
  sent: boolean
  /**
   * What is known of the destination. own: what lies there, or comes to, may be this attempt's. nothing: it was looked at, or
   * cleaned up. unknown: what lies there is none of this attempt's (docs/decisions/0008).
   */
  left: Outcome['left'] & string
  bytes: number
  /** Of the last COPY or PUT that went out. */
  mode: Mode | undefined
}

/** What attempts work with, for as long as a session lasts. */
export interface Workshop {
  readonly api: Pick<WorkerApi, 'askPermit'>
  readonly session: number
  readonly access: StorageAccess
  readonly macaroons: Macaroons
  readonly modes: ModeMemory
  readonly clock: Clock
  readonly random: Random
  readonly watchdogs: Partial<Watchdogs>
  /** Between two looks at a file that may still grow, milliseconds. */
  readonly settleMs: number
}

/** How an attempt ended, as the contract tells them apart. */
export type Ending =
  | { readonly result: 'done'; readonly bytes: number }
  | { readonly result: 'failed'; readonly failure: AttemptFailure; readonly cleaned: boolean }
  | { readonly result: 'unknown'; readonly failure: AttemptFailure }
  | { readonly result: 'absent' }
  | { readonly result: 'handed-back'; readonly failure?: AttemptFailure }
  | { readonly result: 'growing'; readonly failure?: AttemptFailure }

/**
 * Looks at the destination and compares with the catalogue and what `passed` through the worker, or with the source if there is no
 * checksum of either. By the storage's policy it may be the size alone, of what an attempt has copied.
 */
export async function lookAtDestination(
  attempt: Attempt,
  { access }: Pick<Workshop, 'access'>,
  passed: Checksums = {},
): Promise<Sight> {
  const { transfer, destination, progress, stop } = attempt
  const look = (wantDigest?: ChecksumAlgorithm): Promise<FileStatus> =>
    access.use(destination, token =>
      destination.storage.head(destination.url, token, {
        ...(wantDigest === undefined ? {} : { wantDigest }),
        expectedSize: transfer.bytes,
        scope: 'DESTINATION',
        signal: stop,
      }),
    )
  if (!checks(destination.traits, 'destination')) {
    const size = { bytes: transfer.bytes, checksums: {} }
    if (transfer.kind === 'settle' || progress.left === 'own') return judgeSize(size, await look())
    // What somebody else may have put there: a replica of ours will be removed one day.
    const known = knownChecksums(transfer)
    const sight = await inspect(
      { bytes: transfer.bytes, checksums: known },
      destination.traits.checksum,
      'destination',
      look,
    )
    return sight.kind === 'unproven' ? judgeSize(size, { exists: true, ...sight }) : sight
  }
  return inspect(await expectedFile(attempt, access, passed), destination.traits.checksum, 'destination', look)
}

async function expectedFile(
  { transfer, source, destination, stop }: Attempt,
  access: StorageAccess,
  passed: Checksums,
): Promise<ExpectedFile> {
  const { bytes } = transfer
  const known = withPassed(knownChecksums(transfer), passed)
  if (Object.keys(known).length > 0) return { bytes, checksums: known }
  const wantDigest = destination.traits.checksum
  const found = await access.use(source, token =>
    source.storage.head(source.url, token, { wantDigest, expectedSize: bytes, scope: 'SOURCE', signal: stop }),
  )
  return { bytes, checksums: found.exists ? found.checksums : {} }
}
