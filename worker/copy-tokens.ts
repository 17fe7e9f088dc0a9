import type { Secret } from '../shared/domain/secret.ts'
import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import type { CopyOutcome } from '../shared/storage/types.ts'
import { DEFAULT_WATCHDOGS, totalLimit } from '../shared/storage/watchdogs.ts'
import type { Attempt, Workshop } from './attempt.ts'
import { mayBeStale, type Passive, passiveOf } from './macaroons.ts'
import type { Mode } from './mode.ts'
import { watchdogsFor } from './watchdogs.ts'

/** What the storages are shown in one COPY or streamed copy. */
export interface Tokens {
  readonly source: Secret
  readonly destination: Secret
  /** What the other side of the COPY is shown, if it issues tokens of its own: never the issuer's then. */
  readonly macaroon: (Passive & { readonly token: Secret; readonly reused: boolean }) | undefined
}

/** To be asked just before they are sent. Throws `TokenUnavailable` and `StorageError`. */
export async function tokensFor(attempt: Attempt, workshop: Workshop, mode: Mode): Promise<Tokens> {
  const { source, destination, transfer } = attempt
  const { access, macaroons, watchdogs } = workshop
  const tokens = { source: await access.token(source), destination: await access.token(destination) }
  const passive = passiveOf(mode, source, destination)
  if (!passive?.place.traits.macaroons) return { ...tokens, macaroon: undefined }
  const given = watchdogsFor(watchdogs, source.traits.watchdogs, destination.traits.watchdogs, mode)
  const longest = totalLimit({ ...DEFAULT_WATCHDOGS, ...given }, transfer.bytes)
  return { ...tokens, macaroon: { ...passive, ...(await macaroons.tokenFor(passive, longest)) } }
}

/**
 * What a storage refused is not shown there again. Where a refusal names no side, it may have been either's. `isFirst`: of the
 * storage that gets the COPY. The other side is spoken to by a storage, whose address it may block: its third refusal is the last.
 */
export function noteRefusal(
  attempt: Attempt,
  { access, macaroons }: Workshop,
  mode: Mode,
  tokens: Tokens,
  failure: TransferFailure,
  isFirst: boolean,
): void {
  const { macaroon } = tokens
  for (const [place, token] of placesOf(attempt, tokens)) {
    if (failure.side !== undefined && failure.side !== place.scope) continue
    if (macaroon?.place === place) macaroons.forget(macaroon, macaroon.token)
    else if (place === activeOf(attempt, mode)) {
      access.refused(place, token, failure, isFirst && failure.side === place.scope)
    } else access.denied(place, token, failure)
  }
}

/** Both storages have taken what they were shown. */
export function noteBelief(attempt: Attempt, { access }: Workshop, tokens: Tokens): void {
  for (const [place] of placesOf(attempt, tokens)) access.believed(place)
}

/** The storage that gets the COPY; undefined: none does. */
export function activeOf({ source, destination }: Attempt, mode: Mode): Attempt['source'] | undefined {
  return mode === 'stream' ? undefined : mode === 'pull' ? destination : source
}

function placesOf({ source, destination }: Attempt, tokens: Tokens) {
  return [
    [source, tokens.source],
    [destination, tokens.destination],
  ] as const
}

/** At the end of an attempt: a macaroon that may be why it failed is not shown again, and then another attempt is worth it. */
export function withoutStale({ macaroons }: Workshop, { macaroon }: Tokens, outcome: CopyOutcome): CopyOutcome {
  if (outcome.kind !== 'failed' || macaroon === undefined) return outcome
  if (!mayBeStale(outcome.error, macaroon, macaroon.reused)) return outcome
  macaroons.forget(macaroon, macaroon.token)
  return { kind: 'failed', error: { ...outcome.error, retryable: true } }
}
