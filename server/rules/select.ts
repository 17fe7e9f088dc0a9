import { createHash } from 'node:crypto'

export interface Candidate {
  readonly rseId: number
  /** Of the dataset, there already. */
  readonly bytesHeld: number
}

/**
 * Which storages get a dataset's copies: those that were chosen before stay, then those that hold most of it, then by chance.
 * Chance is a hash of (rule, dataset, storage): the same after a crash, spread evenly over datasets (rendezvous hashing).
 * Answers the storages to add; fewer than asked when there are not enough.
 */
export function selectRses(
  candidates: readonly Candidate[],
  chosen: ReadonlySet<number>,
  copies: number,
  seed: { ruleId: number; datasetId: number },
): number[] {
  const chance = (rseId: number): string =>
    createHash('sha256').update(`${seed.ruleId}:${seed.datasetId}:${rseId}`).digest('hex')
  return candidates
    .filter(candidate => !chosen.has(candidate.rseId))
    .map(candidate => ({ ...candidate, chance: chance(candidate.rseId) }))
    .sort((a, b) => b.bytesHeld - a.bytesHeld || (a.chance < b.chance ? -1 : 1))
    .slice(0, Math.max(0, copies - chosen.size))
    .map(candidate => candidate.rseId)
}
