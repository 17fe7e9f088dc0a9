/** How much is to be deleted at a storage. Pure. */

export interface Space {
  readonly capacityBytes: number | null
  readonly minFreeBytes: number | null
  /** Of all replicas that lie there, or come to. */
  readonly usedBytes: number
}

/** Bytes that are wanted free; undefined: all that nobody asks for goes (greedy). None where nobody can tell what is free. */
export function bytesToFree({ capacityBytes, minFreeBytes, usedBytes }: Space): number | undefined {
  if (minFreeBytes === null) return undefined
  if (capacityBytes === null) return 0
  return Math.max(0, minFreeBytes - (capacityBytes - usedBytes))
}

/** Of candidates, the oldest first: those that go however much is free, and then as many others as bring so much; `undefined`: all. */
export function toReap<T extends { readonly bytes: number; readonly purge: number | boolean }>(
  candidates: readonly T[],
  bytes: number | undefined,
): T[] {
  const purged = candidates.filter(({ purge }) => purge)
  const freed = purged.reduce((sum, candidate) => sum + candidate.bytes, 0)
  const others = candidates.filter(({ purge }) => !purge)
  return [...purged, ...firstOf(others, bytes === undefined ? undefined : bytes - freed)]
}

/** As many of the first as bring so much; `undefined`: all. A file is not cut. */
export function firstOf<T extends { readonly bytes: number }>(
  candidates: readonly T[],
  bytes: number | undefined,
): T[] {
  if (bytes === undefined) return [...candidates]
  let left = bytes
  return candidates.filter(candidate => {
    if (left <= 0) return false
    left -= candidate.bytes
    return true
  })
}
