/**
 * When a source that fails is held back, and for how long. For each link by itself: most failures of a source are told by the
 * destination that could not reach it, and another may. Pure; times in milliseconds, epoch or length.
 */

/** A run of failures on a link that are its source's own, not those of a file or of a token. */
export interface Health {
  /** The first of them. */
  readonly since: number
  readonly failedAt: number
  /** The last copy on trial that is done. 0: none was. */
  readonly gaveAt: number
  /** Before the first hold: all of the run. After it: of transfers that were claimed since the last hold ended. */
  readonly failures: number
  readonly successes: number
  /** Seen by the destination, or by more than one worker: by one alone it may be that worker's own fault. */
  readonly confirmed: boolean
  /** Of the worker that saw the first. */
  readonly sessionId: number
  readonly holds: number
  /** 0: not held yet. In the past: on trial. */
  readonly heldUntil: number
  readonly code: string
  readonly message: string
}

export const HOLD = {
  /** Failures without a success between them. What was on its way fails at once when a storage goes away. */
  failures: 10,
  first: 15_000,
  longest: 600_000,
  /**
   * A restart passes: work is moved elsewhere only from a source that has failed for longer. And what one worker alone has seen
   * for so long is believed, while no other moves anything from there.
   */
  beforeMoving: 60_000,
  /** Copies on trial after which all is well. Each lets one more run. */
  successes: 20,
  /** A failure that is older has nothing to do with the next. */
  forgetAfter: 600_000,
  /** What a worker kept so long, while the server was away, tells of another time. */
  late: 60_000,
} as const

/** What says something of the storage as a whole. A file that is missing or not permitted does not, and neither does a token. */
const OWN_FAULTS: ReadonlySet<string> = new Set([
  'RESOLVE_FAILED',
  'CONNECT_FAILED',
  'TLS_FAILED',
  'CONNECTION_LOST',
  'TIMEOUT_CONNECT',
  'TIMEOUT_HEADERS',
  'TIMEOUT_NO_MARKER',
  'TIMEOUT_NO_PROGRESS',
  'STORAGE_BUSY',
  'STORAGE_ERROR',
  'TOO_MANY_REQUESTS',
  'PROTOCOL_VIOLATION',
  'SOURCE_CUT_OFF',
])

/** A failure after the copy (the worker looks at the source where no checksum is known) came with the file. */
export function isSourceFault({ scope, phase, code }: Omit<AttemptError, 'message'>): boolean {
  return scope === 'SOURCE' && phase !== 'FINALIZATION' && OWN_FAULTS.has(code)
}

interface AttemptError {
  readonly scope: string
  readonly phase: string
  readonly code: string
  readonly message: string
}

/** One attempt as it ended, with a COPY that was sent or without. */
export interface EndedAttempt {
  readonly linkId: number
  readonly sessionId: number
  /** Of the COPY that was sent; null: none was. */
  readonly mode: string | null
  readonly outcome: string
  readonly claimedAt: number
  readonly endedAt: number
  /** The source has failed this transfer before. */
  readonly again: boolean
  readonly error: AttemptError | undefined
}

/** Whether it says anything of the source: a copy from it, or a failure of its own. */
export function isEvidence({ mode, outcome, error }: EndedAttempt): boolean {
  if (outcome === 'done') return mode !== null
  return error !== undefined && isSourceFault(error)
}

/** What others see of the link. */
export interface Others {
  /** There is no other worker that could see it otherwise. */
  readonly none: boolean
  /** Sessions with a transfer on the link that moves. */
  readonly moving: readonly number[]
}

/** A link's health after attempts that are evidence; undefined: nothing is wrong. */
export function healthAfter(
  before: Health | undefined,
  attempts: readonly EndedAttempt[],
  others: Others,
  now: number,
): Health | undefined {
  const fresh = attempts.filter(({ endedAt }) => now - endedAt < HOLD.late)
  if (before === undefined || before.heldUntil === 0) {
    const old = before !== undefined && now - before.failedAt > HOLD.forgetAfter
    return inRun(old ? undefined : before, fresh, others, now)
  }
  return onTrial(before, fresh, others, now)
}

/** A success ends the run. A file counts once: one that always fails makes no run. */
function inRun(
  before: Health | undefined,
  attempts: readonly EndedAttempt[],
  others: Others,
  now: number,
): Health | undefined {
  if (attempts.some(isSuccess)) return undefined
  const failed = attempts.filter(({ again }) => !again)
  const last = failed.at(-1)
  if (last?.error === undefined) return before
  const sessionId = before?.sessionId ?? last.sessionId
  const told = failed.some(attempt => attempt.mode === 'pull' || attempt.sessionId !== sessionId)
  const confirmed = before?.confirmed === true || told
  const failures = (before?.failures ?? 0) + failed.length
  const isHeld = failures >= HOLD.failures && (confirmed || isBelieved(before, others, now))
  return {
    since: before?.since ?? now,
    failedAt: now,
    gaveAt: 0,
    failures: isHeld ? 0 : failures,
    successes: 0,
    confirmed,
    sessionId,
    holds: isHeld ? 1 : 0,
    heldUntil: isHeld ? now + HOLD.first : 0,
    code: last.error.code,
    message: last.error.message,
  }
}

/**
 * Held, and then on trial: as long as more succeeds than fails it may do more. What was claimed before the hold ended is no trial;
 * but a copy that began after the first failure and is done ends a hold. A trial that the worker fails by itself proves nothing,
 * and the next is not at once either. A source that gave something and fails again is held as at first.
 */
function onTrial(before: Health, attempts: readonly EndedAttempt[], others: Others, now: number): Health | undefined {
  const succeeded = attempts.filter(attempt => isSuccess(attempt) && attempt.claimedAt >= before.since)
  const tried = attempts.filter(attempt => !isSuccess(attempt) && attempt.claimedAt >= before.heldUntil)
  const believed = isBelieved(before, others, now)
  const failed = tried.filter(attempt => attempt.mode === 'pull' || believed || attempt.sessionId !== before.sessionId)
  const failures = before.failures + failed.length
  const successes = before.successes + succeeded.length
  const { code, message } = failed.at(-1)?.error ?? before
  const failedAt = failed.length > 0 ? now : before.failedAt
  const gaveAt = succeeded.length > 0 ? now : before.gaveAt
  if (failed.length > 0 && failures > successes) {
    const holds = successes > 0 ? 0 : before.holds
    const length = Math.min(HOLD.longest, HOLD.first * 2 ** Math.min(holds, 10))
    const held = { failures: 0, successes: 0, holds: holds + 1, heldUntil: now + length }
    return { ...before, ...held, failedAt, gaveAt, code, message }
  }
  if (successes >= HOLD.successes) return undefined
  return { ...before, failures, successes, failedAt, gaveAt, heldUntil: holdAfter(), code, message }

  function holdAfter(): number {
    if (succeeded.length > 0) return Math.min(before.heldUntil, now)
    return tried.length > failed.length ? now + HOLD.first : before.heldUntil
  }
}

/** Whether what one worker alone has seen is taken for the source's fault. */
function isBelieved(before: Health | undefined, { none, moving }: Others, now: number): boolean {
  if (none) return true
  if (before === undefined || moving.some(session => session !== before.sessionId)) return false
  return now - Math.max(before.since, before.gaveAt) >= HOLD.beforeMoving
}

function isSuccess({ outcome }: EndedAttempt): boolean {
  return outcome === 'done'
}

/** Whether queued transfers leave this source for another: it has given nothing for a while, and a trial has failed too. */
export function isToLeave({ holds, successes, since, failedAt, gaveAt }: Health): boolean {
  return holds > 1 && successes === 0 && failedAt - Math.max(since, gaveAt) >= HOLD.beforeMoving
}
