/** Directories that one token for deletions names, at most. */
const TOPS_IN_TASK = 16

/** Those of these replicas that lie in the first so many directories. Pure. */
export function ofFewTops<T extends { readonly top_id: number }>(candidates: readonly T[]): T[] {
  const tops = new Set([...new Set(candidates.map(({ top_id }) => top_id))].slice(0, TOPS_IN_TASK))
  return candidates.filter(({ top_id }) => tops.has(top_id))
}
