/**
 * Which of pull and push is faster on a link: a small share of its transfers, picked by their ids, tries the other one,
 * so that both copy files of the same kinds at the same time. Pure. Why it is worth knowing: facts/http-tpc.md section
 * 8.
 */

export type Mode = 'pull' | 'push'

/** What the copies in one mode add up to. */
export interface ModeSums {
  readonly files: number
  readonly bytes: number
  /** What the files took, added up. */
  readonly milliseconds: number
  /** Attempts that failed and may be repeated: those of a file or of a token say nothing of the mode. */
  readonly failures: number
}

export interface ModesInput {
  /** What the last decision said; first that of the configuration. */
  readonly preferred: Mode
  readonly pull: ModeSums
  readonly push: ModeSums
  /** Of the last minutes only: what has begun to fail is not to wait for all that went well before. */
  readonly recent: Readonly<Record<Mode, ModeSums>>
}

export type ModeCode =
  | 'OTHER_UNTRIED'
  | 'TOO_FEW_FILES'
  | 'OTHER_FASTER'
  | 'NOT_FASTER'
  | 'PREFERRED_FAILS'
  | 'OTHER_FAILS'

export interface ModeDecision {
  readonly preferred: Mode
  /** Of a thousand transfers so many try the other mode. */
  readonly tries: number
  readonly code: ModeCode
  readonly figures: {
    readonly pull: ModeSums
    readonly push: ModeSums
    /** How much less time the mode that was not preferred takes: a logarithm, 0.18 is 1.2 times as fast. */
    readonly faster?: number
    /** What it must be for a change. */
    readonly needed?: number
  }
}

export const MODES = {
  /** Files in each mode before anything is said of speed. */
  files: 30,
  /**
   * To change must bring this at least (15 %), and so many standard errors. Back takes the same: so it does not go to
   * and fro.
   */
  worth: Math.log(1.15),
  errors: 2,
  /** So many failures, and less than this part of the attempts that succeed: the mode fails. */
  failures: 10,
  success: 0.5,
  /** Copies of the last minutes that show that the other mode still works. */
  recent: 3,
  /** Of a thousand transfers: as long as little is known, when enough is, and where the other fails. */
  tries: { learning: 100, knowing: 20, failing: 5 },
} as const

/** The mode to prefer on a link, how many transfers try the other, and why. Only for links that can do both. */
export function preferMode({ preferred, pull, push, recent }: ModesInput): ModeDecision {
  const other: Mode = preferred === 'pull' ? 'push' : 'pull'
  const sums = { pull, push }
  const [own, its] = [sums[preferred], sums[other]]
  const { learning, knowing, failing } = MODES.tries
  const lately = fails(recent[preferred])
  const figuresOf = (mode: Mode): typeof sums => (fails(recent[mode]) ? recent : sums)
  if ((lately || fails(own)) && works(its) && (!lately || stillWorks(recent[other]))) {
    return { preferred: other, tries: failing, code: 'PREFERRED_FAILS', figures: figuresOf(preferred) }
  }
  if (fails(its) || fails(recent[other])) {
    return { preferred, tries: failing, code: 'OTHER_FAILS', figures: figuresOf(other) }
  }
  if (its.files + its.failures === 0) return { preferred, tries: learning, code: 'OTHER_UNTRIED', figures: sums }
  if (Math.min(own.files, its.files) < MODES.files) {
    return { preferred, tries: learning, code: 'TOO_FEW_FILES', figures: sums }
  }
  const faster = gainOf(own, its)
  const needed = Math.max(MODES.worth, MODES.errors * errorOf(own, its))
  const figures = { ...sums, faster, needed }
  // As long as chance could hide what is worth a change, more is tried.
  const tries = lately || needed > MODES.worth ? learning : knowing
  if (faster > needed && failsLast(recent[other])) return { preferred, tries, code: 'OTHER_FAILS', figures: recent }
  if (faster > needed) return { preferred: other, tries, code: 'OTHER_FASTER', figures }
  return { preferred, tries, code: 'NOT_FASTER', figures }
}

function fails(sums: ModeSums): boolean {
  return sums.failures >= MODES.failures && successShare(sums) < MODES.success
}

/** Enough copies to rely on. */
function works(sums: ModeSums): boolean {
  return sums.files >= MODES.failures && successShare(sums) >= MODES.success
}

function stillWorks(sums: ModeSums): boolean {
  return sums.files >= MODES.recent && successShare(sums) >= MODES.success
}

/** However few it were: a mode that is left for its failures is not gone back to before some of the few that try it succeed. */
function failsLast({ files, failures }: ModeSums): boolean {
  return failures > files
}

function successShare({ files, failures }: ModeSums): number {
  return files / (files + failures)
}

/**
 * How much faster, both for a file and for a byte, the lesser of the two: where by chance one mode had larger files, it
 * looks slow for a file and fast for a byte. A failure costs what a file takes.
 */
function gainOf(own: ModeSums, its: ModeSums): number {
  const success = Math.log(successShare(its) / successShare(own))
  const perFile = Math.log(millisecondsOf(own) / own.files / (millisecondsOf(its) / its.files))
  // Empty files say nothing of bytes.
  const sizes = Math.log(Math.max(1, its.bytes / its.files) / Math.max(1, own.bytes / own.files))
  return success + Math.min(perFile, perFile + sizes)
}

function millisecondsOf({ milliseconds }: ModeSums): number {
  return Math.max(1, milliseconds)
}

/** Times of files scatter about as much as they are long. */
function errorOf(own: ModeSums, its: ModeSums): number {
  return Math.sqrt(1 / own.files + 1 / its.files)
}

/**
 * The mode for a transfer. Only a first attempt tries the other one: a transfer that it fails is not to fail in it
 * until its attempts are used up.
 */
export function modeFor(
  transferId: number,
  attempts: number,
  { preferred, tries }: Pick<ModeDecision, 'preferred' | 'tries'>,
): Mode {
  if (attempts > 0 || scattered(transferId) >= tries) return preferred
  return preferred === 'pull' ? 'push' : 'pull'
}

/**
 * From 0 to 999, evenly and without a pattern (the finalizer of MurmurHash3): ids of one dataset follow one another.
 */
function scattered(id: number): number {
  let hash = Math.imul(id ^ (id >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) % 1_000
}
