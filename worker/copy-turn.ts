import type { TransferFailure } from '../shared/domain/transfer-error.ts'
import { transferFailure } from '../shared/storage/classify.ts'
import type { CopyOutcome } from '../shared/storage/types.ts'
import { isUnseen, NO_TURN } from './access.ts'
import type { Attempt, Workshop } from './attempt.ts'
import { activeOf, noteBelief, noteRefusal, type Tokens, tokensFor } from './copy-tokens.ts'
import { mayBeOwn } from './debris.ts'
import { failureOf } from './failure.ts'
import type { Mode } from './mode.ts'
import { watchdogsFor } from './watchdogs.ts'

/**
 * Whether a refusal may stand for a file that is there already: a token that may create, but not overwrite, lacks permission
 * then. XRootD 5.5.3 says 401, others 403 (seen, and facts/tokens.md section 1). Other modes have looked before.
 */
export function mayMeanExisting({ code, side }: TransferFailure, mode: Mode): boolean {
  return mode === 'pull' && side === 'DESTINATION' && (code === 'TOKEN_REFUSED' || code === 'PERMISSION_DENIED')
}

/** How a COPY ended, what was shown for it, and whether it may have been denied for an old token. */
interface Copied {
  readonly outcome: CopyOutcome
  readonly tokens: Tokens
  readonly mayBeToken: boolean
}

/** A COPY when its turn has come: `isFirst` under its grant at the storage that gets it. */
export async function copyInTurn(attempt: Attempt, workshop: Workshop, mode: Mode): Promise<Copied> {
  const active = activeOf(attempt, mode)
  const { isFirst, end } = active === undefined ? NO_TURN : await workshop.access.copyTurn(active, attempt.copying)
  let believed = false
  let mayBeToken = false
  try {
    // Not before: whoever was first may have found that another is needed.
    const tokens = await tokensFor(attempt, workshop, mode)
    const outcome = await copyOnce(attempt, workshop, mode, tokens, () => end(true))
    if (outcome.kind !== 'failed') {
      believed = true
      if (outcome.kind === 'done') noteBelief(attempt, workshop, tokens)
      return { outcome, tokens, mayBeToken }
    }
    const { error } = outcome
    if (mayMeanExisting(error, mode) && (await isThere(attempt, workshop).catch(falseIfUnseen))) {
      return { outcome: existing(), tokens, mayBeToken }
    }
    const isActive = active !== undefined && error.side === active.scope
    const isDenied = isActive && isFirst && error.code === 'PERMISSION_DENIED'
    believed = !isDenied && !(isActive && (error.code === 'TOKEN_REFUSED' || isUnseen(error)))
    // Before anybody else's turn: the second refusal is the last.
    if (error.code === 'TOKEN_REFUSED') noteRefusal(attempt, workshop, mode, tokens, error, isFirst)
    if (isDenied) mayBeToken = workshop.access.denied(active, activeTokenOf(mode, tokens), error)
    return { outcome, tokens, mayBeToken }
  } finally {
    end(believed)
  }
}

function activeTokenOf(mode: Mode, tokens: Tokens) {
  return mode === 'pull' ? tokens.destination : tokens.source
}

/** What could not be looked at is not known to be there: then the refusal stands. */
function falseIfUnseen(error: unknown): false {
  failureOf(error)
  return false
}

/** One COPY or PUT, and what it may have left behind. */
async function copyOnce(
  attempt: Attempt,
  workshop: Workshop,
  mode: Mode,
  tokens: Tokens,
  onBelieved: () => void = () => undefined,
): Promise<CopyOutcome> {
  const { copying, progress } = attempt
  if (copying.aborted) return { kind: 'failed', error: cancelled() }
  if (mode === 'push') {
    // XRootD 5.5.3 ignores `Overwrite: F` on push and would truncate a good file (facts/http-tpc.md section 1).
    if (await isThere(attempt, workshop)) return existing()
  }
  progress.sent = true
  progress.mode = mode
  // What an earlier COPY of this attempt may have left is still its own.
  const before = progress.left
  let taken = false
  const onTaken = () => {
    taken = true
    onBelieved()
    progress.left = 'own'
    attempt.onTaken()
  }
  const outcome = await sendCopy(attempt, workshop, mode, tokens, onTaken)
  progress.left = mayBeOwn(outcome, mode, taken) ? 'own' : before
  return outcome
}

function sendCopy(
  { transfer, source, destination, copying, progress }: Attempt,
  { watchdogs }: Workshop,
  mode: Mode,
  tokens: Tokens,
  onTaken: () => void,
): Promise<CopyOutcome> {
  const request = {
    source: source.url,
    destination: destination.url,
    overwrite: false,
    size: transfer.bytes,
    signal: copying,
    watchdogs: watchdogsFor(watchdogs, source.traits.watchdogs, destination.traits.watchdogs, mode),
    onTaken,
    onProgress: (bytes: number) => {
      progress.bytes = bytes
    },
  }
  if (mode === 'stream') {
    const { source: sourceToken, destination: destinationToken } = tokens
    return destination.storage.stream({ ...request, sourceToken, destinationToken })
  }
  const [active, activeToken, issuedToken] =
    mode === 'pull' ? [destination, tokens.destination, tokens.source] : [source, tokens.source, tokens.destination]
  const passiveToken = tokens.macaroon?.token ?? issuedToken
  const clientInfo = `job-id=${transfer.fence};file-id=${transfer.transfer};retry=0`
  return active.storage.copy({ ...request, mode, activeToken, passiveToken, clientInfo })
}

export function cancelled(): TransferFailure {
  return transferFailure('CANCELLED', 'GENERAL', 'TRANSFER', 'the transfer was cancelled')
}

function existing(): CopyOutcome {
  const words = 'there is a file already'
  return { kind: 'failed', error: transferFailure('DESTINATION_EXISTS', 'DESTINATION', 'PREPARATION', words) }
}

async function isThere({ destination, copying }: Attempt, { access }: Workshop): Promise<boolean> {
  const { storage, url } = destination
  const options = { scope: 'DESTINATION', signal: copying } as const
  return (await access.use(destination, token => storage.head(url, token, options))).exists
}
