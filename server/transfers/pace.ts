import { errorEntry } from '../../shared/domain/error-catalogue.ts'

/** How links did: what their attempts add up to. Pure. */

/** pull, push and stream: of the last COPY that was sent. none: the attempt failed before there was one. */
export const PACED_MODES = ['pull', 'push', 'stream', 'none'] as const
export type PacedMode = (typeof PACED_MODES)[number]

/** What attempts on a link add up to. */
export interface Sums {
  /** Copied. */
  readonly files: number
  readonly bytes: number
  /** What those files took, added up. */
  readonly milliseconds: number
  /** The squares of what they took in seconds, added up. */
  readonly squaredSeconds: number
  /** Attempts that failed and may be repeated, by no fault of a file or of a token. */
  readonly failures: number
}

export interface LinkSums extends Sums {
  readonly linkId: number
  readonly mode: PacedMode
}

/** An attempt that was done, or failed in a way that says something of its link. */
export interface EndedCopy {
  readonly linkId: number
  readonly mode: PacedMode
  readonly done: boolean
  readonly bytes: number
  /** For which it held its place: from the claim until its end was known, the same as is counted as active. */
  readonly milliseconds: number
}

/** Beside what is a storage's fault: neither a file's nor a token's, nor for lack of space. */
const OF_LINKS: ReadonlySet<string> = new Set(['TRANSFER_FAILED', 'TIMEOUT_TOTAL'])

/** Whether a failure says something of the link: fewer at a time, or the other mode, might have gone well. */
export function isLinkFailure({ code, retryable }: { readonly code: string; readonly retryable: boolean }): boolean {
  return retryable && (errorEntry(code)?.holds === 'storage' || OF_LINKS.has(code))
}

export const NO_SUMS: Sums = { files: 0, bytes: 0, milliseconds: 0, squaredSeconds: 0, failures: 0 }

export function added(one: Sums, other: Sums, sign: 1 | -1 = 1): Sums {
  return {
    files: one.files + sign * other.files,
    bytes: one.bytes + sign * other.bytes,
    milliseconds: one.milliseconds + sign * other.milliseconds,
    squaredSeconds: one.squaredSeconds + sign * other.squaredSeconds,
    failures: one.failures + sign * other.failures,
  }
}

export function sumByLink(copies: readonly EndedCopy[]): LinkSums[] {
  const sums = new Map<string, LinkSums>()
  for (const copy of copies) {
    const { linkId, mode } = copy
    const key = `${linkId} ${mode}`
    sums.set(key, { linkId, mode, ...added(sums.get(key) ?? NO_SUMS, sumsOf(copy)) })
  }
  return [...sums.values()]
}

function sumsOf({ done, bytes, milliseconds }: EndedCopy): Sums {
  if (!done) return { ...NO_SUMS, failures: 1 }
  const took = Math.max(1, milliseconds)
  return { files: 1, bytes, milliseconds: took, squaredSeconds: (took / 1_000) ** 2, failures: 0 }
}
