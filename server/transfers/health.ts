import { errorEntry } from '../../shared/domain/error-catalogue.ts'

/**
 * When a storage that fails is held back, and for how long. As a source on each link by itself: most failures of a source are told
 * by the destination that could not reach it, and another may. As a destination for each VO: one's quota is not another's. Pure;
 * times in milliseconds, epoch or length.
 */
export type HealthSide = 'SOURCE' | 'DESTINATION'

/** A run of failures that are the storage's own, not those of a file or of a token. */
export interface Health {
  /** The first of them. */
  readonly since: number
  readonly failedAt: number
  /** The last copy on trial that is done. 0: none was. */
  readonly gaveAt: number
  /** Before the first hold: all of the run. After it: of transfers that were claimed since the last hold ended. */
  readonly failures: number
  readonly successes: number
  /** Told by a storage, or seen by more than one worker: by one alone it may be that worker's own fault. */
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
  /** Space comes back when somebody makes room. */
  full: { first: 60_000, longest: 3_600_000 },
  /**
   * A restart passes: work is moved elsewhere only from a source that has failed for longer. And what one worker alone has seen
   * for so long is believed, while no other moves anything from there.
   */
  beforeMoving: 60_000,
  /** Copies on trial after which all is well. Each lets one more run. */
  successes: 20,
  /** A failure that is older has nothing to do with the next; of what has given nothing since it is remembered for longer. */
  forgetAfter: 600_000,
  keptFor: 3_600_000,
  /** What a worker kept so long, while the server was away, tells of another time. */
  late: 60_000,
} as const

/** What a storage says itself, and no worker's or network's doing. */
const ANSWERS: ReadonlySet<string> = new Set(['DESTINATION_FULL', 'TOO_MANY_REQUESTS', 'STORAGE_BUSY', 'STORAGE_ERROR'])

/**
 * Whether it says something of the storage as a whole. A failure at the source after the copy (the worker looks there where no
 * checksum is known) came with the file.
 */
export function isStorageFault(
  { scope, phase, code }: Pick<AttemptError, 'scope' | 'phase' | 'code'>,
  side: HealthSide,
): boolean {
  if (scope !== side || (side === 'SOURCE' && phase === 'FINALIZATION')) return false
  const holds = errorEntry(code)?.holds
  return holds === 'storage' || holds === 'storage-at-once'
}

interface AttemptError {
  readonly scope: string
  readonly phase: string
  readonly code: string
  readonly message: string
  readonly retryAfterSeconds?: number | undefined
}

/** One attempt as it ended, with a COPY that was sent or without. */
export interface EndedAttempt {
  readonly linkId: number
  readonly voId: number
  readonly destinationId: number
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

/** Whether it says anything of the storage: a copy from it or to it, or a failure of its own. */
export function isEvidence({ mode, outcome, error }: EndedAttempt, side: HealthSide): boolean {
  if (outcome === 'done') return mode !== null
  return error !== undefined && isStorageFault(error, side)
}

/** What others see of the storage. */
export interface Others {
  /** There is no other worker that could see it otherwise. */
  readonly none: boolean
  /** Sessions with a transfer from there, or to there, that moves. */
  readonly moving: readonly number[]
}

/** A storage's health after attempts that are evidence; undefined: nothing is wrong. */
export function healthAfter(
  before: Health | undefined,
  attempts: readonly EndedAttempt[],
  side: HealthSide,
  others: Others,
  now: number,
): Health | undefined {
  const fresh = attempts.filter(({ endedAt }) => now - endedAt < HOLD.late)
  const isOld = before !== undefined && isForgotten(before, now)
  if (before === undefined || isOld) return inRun(undefined, fresh, side, others, now)
  return before.heldUntil === 0
    ? inRun(before, fresh, side, others, now)
    : onTrial(restedLonger(before, fresh, now), fresh, side, others, now)
}

/** Also what is on trial and did something: where little is sent so many successes as end a trial may never come. */
function isForgotten({ failedAt, heldUntil, successes }: Health, now: number): boolean {
  return (heldUntil === 0 || successes > 0) && now - Math.max(failedAt, heldUntil) > HOLD.forgetAfter
}

/** What was on its way when it was held still says when to come back: it may be later. */
function restedLonger(before: Health, attempts: readonly EndedAttempt[], now: number): Health {
  const asked = attempts.filter(({ endedAt }) => endedAt < before.heldUntil)
  const until = asked.map(({ endedAt, error }) => endedAt + (error?.retryAfterSeconds ?? 0) * 1000)
  return { ...before, heldUntil: Math.max(before.heldUntil, ...until.filter(at => at > now)) }
}

/** A success ends the run, unless the storage asks for rest itself. A file counts once: one that always fails makes no run. */
function inRun(
  before: Health | undefined,
  attempts: readonly EndedAttempt[],
  side: HealthSide,
  others: Others,
  now: number,
): Health | undefined {
  const asked = attempts.filter(asksForRest)
  if (asked.length === 0 && attempts.some(isSuccess)) return undefined
  const failed = asked.length > 0 ? asked : attempts.filter(({ again }) => !again)
  const last = failed.at(-1)
  if (last?.error === undefined) return before
  const sessionId = before?.sessionId ?? last.sessionId
  const told = failed.some(attempt => isTold(attempt, side) || attempt.sessionId !== sessionId)
  const confirmed = before?.confirmed === true || told
  const failures = (before?.failures ?? 0) + failed.length
  const many = failures >= HOLD.failures && (confirmed || isBelieved(before, others, now))
  const isHeld = many || asked.length > 0
  return {
    since: asked.length > 0 ? now : (before?.since ?? now),
    failedAt: now,
    gaveAt: 0,
    failures: isHeld ? 0 : failures,
    successes: 0,
    confirmed,
    sessionId,
    holds: isHeld ? 1 : 0,
    heldUntil: isHeld ? now + holdLength(last.error, 0) : 0,
    code: last.error.code,
    message: last.error.message,
  }
}

/**
 * Held, and then on trial: as long as more succeeds than fails it may do more. What was claimed before the hold ended is no trial;
 * but a copy that began after the first failure and is done ends a hold. A trial that the worker fails by itself proves nothing,
 * and the next is not at once either. A storage that did something and fails again is held as at first. One that asks for rest is
 * held at once, whatever has succeeded.
 */
function onTrial(
  before: Health,
  attempts: readonly EndedAttempt[],
  side: HealthSide,
  others: Others,
  now: number,
): Health | undefined {
  const succeeded = attempts.filter(attempt => isSuccess(attempt) && attempt.claimedAt >= before.since)
  const tried = attempts.filter(attempt => !isSuccess(attempt) && attempt.claimedAt >= before.heldUntil)
  const believed = isBelieved(before, others, now)
  const asked = attempts.filter(attempt => attempt.endedAt >= before.heldUntil && asksForRest(attempt))
  const proven = tried.filter(attempt => isTold(attempt, side) || believed || attempt.sessionId !== before.sessionId)
  const failed = asked.length > 0 ? asked : proven
  const failures = before.failures + failed.length
  const successes = before.successes + succeeded.length
  const error = failed.at(-1)?.error
  const { code, message } = error ?? before
  const failedAt = failed.length > 0 ? now : before.failedAt
  const gaveAt = succeeded.length > 0 ? now : before.gaveAt
  if (error !== undefined && (asked.length > 0 || failures > successes)) {
    const holds = successes > 0 ? 0 : before.holds
    const held = { failures: 0, successes: 0, holds: holds + 1, heldUntil: now + holdLength(error, holds) }
    // What began before it asked does not end its rest. One that has given nothing goes on failing since then.
    const since = asked.length > 0 && successes > 0 ? now : before.since
    return { ...before, ...held, since, failedAt, gaveAt, code, message }
  }
  if (successes >= HOLD.successes) return undefined
  return { ...before, failures, successes, failedAt, gaveAt, heldUntil: holdAfter(), code, message }

  function holdAfter(): number {
    if (succeeded.length > 0) return Math.min(before.heldUntil, now)
    return tried.length > failed.length ? now + HOLD.first : before.heldUntil
  }
}

/** Whether there is anything to judge where nothing failed before: a success among failures is all well. */
export function mayFail(attempts: readonly EndedAttempt[]): boolean {
  return attempts.every(({ error }) => error !== undefined) || attempts.some(asksForRest)
}

/** The storage said when to come back, or is full: but one file that is too large for what is left must not hold up the others. */
function asksForRest({ again, error }: EndedAttempt): boolean {
  if (error === undefined) return false
  const isFull = errorEntry(error.code)?.holds === 'storage-at-once'
  return (error.retryAfterSeconds ?? 0) > 0 || (isFull && !again)
}

/** As long as the storage asked for, or as is usual; doubled with each hold before. */
function holdLength({ code, retryAfterSeconds = 0 }: AttemptError, holds: number): number {
  const { first, longest } = errorEntry(code)?.holds === 'storage-at-once' ? HOLD.full : HOLD
  const asked = retryAfterSeconds * 1000
  return Math.max(asked, Math.min(longest, (asked || first) * 2 ** Math.min(holds, 10)))
}

/** By a storage: the one that drove the copy, of the other; or the one that failed, in its answer. */
function isTold({ mode, error }: EndedAttempt, side: HealthSide): boolean {
  return mode === (side === 'SOURCE' ? 'pull' : 'push') || (error !== undefined && ANSWERS.has(error.code))
}

/** Whether what one worker alone has seen is taken for the storage's fault. */
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
