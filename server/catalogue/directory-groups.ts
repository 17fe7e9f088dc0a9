import { MAX_DIRECTORIES } from '../tokens/scopes.ts'

/** Directories of one storage that share a token. */
export interface DirectoryGroup {
  readonly rseId: number
  readonly tops: readonly string[]
}

/**
 * As few tokens as there can be for files that lie in these directories: under the layout `dataset` each dataset is one
 * directory, under `hash` and `identity` it is in many. In order, so that the same files ask for the same grants again. Pure.
 */
export function groupDirectories(places: readonly { rse_id: number; top: string }[]): DirectoryGroup[] {
  const topsOf = new Map<number, Set<string>>()
  for (const { rse_id, top } of places) topsOf.set(rse_id, (topsOf.get(rse_id) ?? new Set()).add(top))
  const groups: DirectoryGroup[] = []
  for (const [rseId, tops] of topsOf) {
    const sorted = [...tops].sort()
    for (let i = 0; i < sorted.length; i += MAX_DIRECTORIES) {
      groups.push({ rseId, tops: sorted.slice(i, i + MAX_DIRECTORIES) })
    }
  }
  return groups
}
