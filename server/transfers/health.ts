/**
 * When a source that fails is held back, and for how long. For each link by itself: most failures of a source are told by the
 * destination that could not reach it, and another may. Pure; times in milliseconds.
 */

/** A run of failures on a link that are its source's own, not those of a file or of a token. */
export interface Health {
  readonly failures: number
  readonly since: number
  readonly holds: number
  /** 0: not held yet. In the past: on trial, one transfer at a time. */
  readonly heldUntil: number
}

export const HOLD = {
  /** Failures without a success between them. What was on its way fails at once when a storage goes away. */
  failures: 10,
  first: 15_000,
  longest: 600_000,
  /** A restart passes: work is moved elsewhere only from a source that has failed for longer. */
  beforeMoving: 30_000,
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

export function isSourceFault({ scope, code }: { readonly scope: string; readonly code: string }): boolean {
  return scope === 'SOURCE' && OWN_FAULTS.has(code)
}

/** The hold that follows failures that were just counted; undefined: none, or the one there is stands. */
export function nextHold(health: Health, now: number): { holds: number; heldUntil: number } | undefined {
  // The last of what was on its way when the hold began is no trial.
  if (health.failures < HOLD.failures || health.heldUntil > now) return undefined
  const length = Math.min(HOLD.longest, HOLD.first * 2 ** Math.min(health.holds, 10))
  return { holds: health.holds + 1, heldUntil: now + length }
}

/** Whether queued transfers leave this source for another. */
export function isToLeave(health: Health, now: number): boolean {
  return health.heldUntil > now && now - health.since >= HOLD.beforeMoving
}

/** One attempt as it ended. */
export interface EndedAttempt {
  readonly linkId: number
  /** Of the COPY that was sent: null where none was, so that nothing is known of the source. */
  readonly mode: string | null
  readonly outcome: string
  readonly startedAt: number
  readonly endedAt: number
  readonly bytes: number
  readonly error: { readonly scope: string; readonly code: string; readonly message: string } | undefined
}

/** Of one link's source; the words are those of the last. */
export interface SourceFailures {
  readonly linkId: number
  readonly count: number
  readonly code: string
  readonly message: string
}

/** Files copied on one link. */
export interface Copied {
  readonly linkId: number
  readonly files: number
  readonly bytes: number
  readonly milliseconds: number
}

/**
 * What attempts say of their links. `failing`: since when the sources of links fail; one works again when it gave a file to an
 * attempt that began after that.
 */
export function judgeAttempts(
  attempts: readonly EndedAttempt[],
  failing: ReadonlyMap<number, number>,
): { failures: SourceFailures[]; works: number[]; copied: Copied[] } {
  const failures = new Map<number, SourceFailures>()
  const works = new Set<number>()
  const copied = new Map<number, Copied>()
  for (const { linkId, mode, outcome, startedAt, endedAt, bytes, error } of attempts) {
    if (error !== undefined && isSourceFault(error)) {
      const { code, message } = error
      failures.set(linkId, { linkId, count: (failures.get(linkId)?.count ?? 0) + 1, code, message })
    }
    if (outcome !== 'done' || mode === null) continue
    if (startedAt >= (failing.get(linkId) ?? Number.POSITIVE_INFINITY)) works.add(linkId)
    const before = copied.get(linkId) ?? { linkId, files: 0, bytes: 0, milliseconds: 0 }
    copied.set(linkId, {
      linkId,
      files: before.files + 1,
      bytes: before.bytes + bytes,
      milliseconds: before.milliseconds + Math.max(1, endedAt - startedAt),
    })
  }
  return {
    // Of a source that does both the failures are no run.
    failures: [...failures.values()].filter(({ linkId }) => !works.has(linkId)),
    works: [...works],
    copied: [...copied.values()],
  }
}
