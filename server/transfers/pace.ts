/** How fast a link was: what its copies add up to. Pure. */

/** Files copied on one link. */
export interface Copied {
  readonly linkId: number
  readonly files: number
  readonly bytes: number
  readonly milliseconds: number
}

export interface DoneCopy {
  readonly linkId: number
  readonly bytes: number
  readonly milliseconds: number
}

export function sumByLink(copies: readonly DoneCopy[]): Copied[] {
  const sums = new Map<number, Copied>()
  for (const { linkId, bytes, milliseconds } of copies) {
    const before = sums.get(linkId) ?? { linkId, files: 0, bytes: 0, milliseconds: 0 }
    sums.set(linkId, {
      linkId,
      files: before.files + 1,
      bytes: before.bytes + bytes,
      milliseconds: before.milliseconds + Math.max(1, milliseconds),
    })
  }
  return [...sums.values()]
}
