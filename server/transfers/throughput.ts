/**
 * What a link carries at one limit, so that two limits can be compared although no two minutes carry the same files,
 * nor the same sizes. All are natural logarithms: a difference of 0.05 is 5 %. Pure.
 */

/** What a link did over a stretch of time. */
export interface LinkWindow {
  /** How long it was, in milliseconds. */
  readonly length: number
  /** Copied: those that ended in it. */
  readonly files: number
  readonly bytes: number
  /** What those files took, added up. */
  readonly milliseconds: number
  /** The squares of what they took in seconds, added up: over the sum it is how long the file of a byte takes. */
  readonly squaredSeconds: number
  /** Attempts that failed in it and may be repeated. Those of a file or of a token say nothing of the link. */
  readonly failures: number
  /** How many transfers ran, on average over time. */
  readonly active: number
  /** Of the looks at it the part that found its limit reached. What ends and begins in bulk leaves places empty between. */
  readonly full: number
  /** Transfers that waited for a place at its end, counted up to a bound. */
  readonly queued: number
}

export const NOTHING: LinkWindow = {
  length: 0,
  files: 0,
  bytes: 0,
  milliseconds: 0,
  squaredSeconds: 0,
  failures: 0,
  active: 0,
  full: 0,
  queued: 0,
}

export function together(one: LinkWindow, next: LinkWindow): LinkWindow {
  const length = one.length + next.length
  const mean = (of: 'active' | 'full'): number => (one[of] * one.length + next[of] * next.length) / Math.max(1, length)
  return {
    length,
    files: one.files + next.files,
    bytes: one.bytes + next.bytes,
    milliseconds: one.milliseconds + next.milliseconds,
    squaredSeconds: one.squaredSeconds + next.squaredSeconds,
    failures: one.failures + next.failures,
    active: mean('active'),
    full: mean('full'),
    queued: next.queued,
  }
}

/** The part of the attempts that copied their file; 1 where there was none. */
export function successShare({ files, failures }: LinkWindow): number {
  return files + failures === 0 ? 1 : files / (files + failures)
}

/**
 * How long a file takes in milliseconds, each counted by its time: where a few large files carry most of the bytes they
 * are what lasts. Only for a window in which files were copied.
 */
export function lastingOf({ files, milliseconds, squaredSeconds }: LinkWindow): number {
  return Math.max(milliseconds / files, (1_000_000 * squaredSeconds) / Math.max(1, milliseconds))
}

/** The mean of some windows at one limit. */
export interface Level {
  /** Log of the files a second. */
  readonly pace: number
  /** Log of their mean size in bytes. */
  readonly size: number
  /** Windows that it rests on; old ones fade. */
  readonly count: number
}

export const NO_LEVEL: Level = { pace: 0, size: 0, count: 0 }

/**
 * Files a second by Little's law: those that ran, over what one takes. To count those that ended would err by what was
 * half done at both ends, which is most of it where few and large files run. A failure counts twice: for the place that
 * it took, and for the attempt that it still costs. Only for a window in which files were copied.
 */
export function levelOf(window: LinkWindow): Level {
  const { files, bytes, milliseconds, active } = window
  const each = Math.max(1, milliseconds) / files / 1_000
  const pace = Math.log(Math.max(active, 0.01) / each) + 2 * Math.log(successShare(window))
  return { pace, size: Math.log(Math.max(1, bytes / files)), count: 1 }
}

/** Windows after which an old one counts a third. */
export const MEMORY = 7

export function joined(level: Level, next: Level): Level {
  const count = Math.min(level.count, MEMORY - 1) + 1
  const part = 1 / count
  return {
    pace: level.pace + (next.pace - level.pace) * part,
    size: level.size + (next.size - level.size) * part,
    count,
  }
}

/**
 * How the time of a file grows with its size on this link: 0 not at all (all is overhead: small files, counted by files
 * a second), 1 in proportion (large ones, counted by bytes a second). Learnt from windows at one limit whose mean sizes
 * differ: sums of squares and products of their deviations.
 */
export interface SizeEffect {
  readonly squares: number
  readonly products: number
}

export const NO_EFFECT: SizeEffect = { squares: 0, products: 0 }
const EFFECT_KEPT = 0.98
/** Half and half, as long as sizes do not vary and it does not matter; more variation than this outweighs it. */
const UNKNOWN = { squares: 0.05, products: 0.025 }

export function withDeviation(effect: SizeEffect, level: Level, next: Level): SizeEffect {
  const size = next.size - level.size
  const slower = level.pace - next.pace
  return {
    squares: effect.squares * EFFECT_KEPT + size * size,
    products: effect.products * EFFECT_KEPT + size * slower,
  }
}

/** How much more `next` carries, with the difference in sizes taken out of it. */
export function gainOf(level: Level, next: Level, effect: SizeEffect): number {
  const share = (effect.products + UNKNOWN.products) / (effect.squares + UNKNOWN.squares)
  return next.pace - level.pace + Math.min(1, Math.max(0, share)) * (next.size - level.size)
}

/** Means of sizes that differ by more are of other work: what one limit did with it says nothing of another. */
const OTHER_SIZES = Math.log(4)

export function isOtherWork(level: Level, next: Level): boolean {
  return level.count > 0 && Math.abs(next.size - level.size) > OTHER_SIZES
}

/** How much windows at one limit scatter: the variance of one. */
export const NOISE = { first: 0.01, least: 0.001, most: 0.25, kept: 0.95 } as const

export function withScatter(noise: number, gain: number, count: number): number {
  // What scatters against a mean of few scatters more.
  const seen = (gain * gain * count) / (count + 1)
  // A surprise counts as three deviations at most: it is a change, not noise.
  const next = noise * NOISE.kept + Math.min(seen, 9 * noise) * (1 - NOISE.kept)
  return Math.min(NOISE.most, Math.max(NOISE.least, next))
}

/** The standard error of the difference of two means. */
export function errorOf(noise: number, one: Level, other: Level): number {
  return Math.sqrt(noise * (1 / Math.max(1, one.count) + 1 / Math.max(1, other.count)))
}
