import { createHash } from 'node:crypto'

/** A storage that the rule's expression names, as it stands for one unit of what is to be placed: a dataset, a file, or all of the rule. */
export interface Candidate {
  readonly rseId: number
  readonly writable: boolean
  /** Of the unit, AVAILABLE there already. */
  readonly bytesHeld: number
  /** Of the unit, on its way there for somebody else. */
  readonly bytesComing: number
  /** Of the rule's weight attribute; 1 where the rule names none; 0: the storage has no such attribute, or none above 0. */
  readonly weight: number
  /** Bytes that the account may still lock there. */
  readonly quotaLeft: number
  /** Bytes that may still come there. */
  readonly spaceLeft: number
}

/** Why a storage that the expression names cannot take a copy. */
export type LeftOutWhy = 'NOT_WRITABLE' | 'NO_WEIGHT' | 'QUOTA' | 'NO_SPACE'

export interface LeftOut {
  readonly rseId: number
  readonly why: LeftOutWhy
}

export interface Selection {
  /** In the order of preference; fewer than asked where there are not enough. */
  readonly added: readonly number[]
  readonly leftOut: readonly LeftOut[]
}

/**
 * Which storages get the copies of a unit of `bytes`: those chosen before stay; then those that have, or are getting, most of it
 * (facts/rules.md, "A rule"); then by chance, in proportion to the weights. Chance is a hash of (seed, storage): the same after a crash and
 * in a dry run, and spread evenly over the units of a rule. What a storage holds wholly it may keep, writable or not, full or not: only
 * quota counts all bytes. `together`: whether quota has room for copies at all of these.
 */
export function selectRses(
  candidates: readonly Candidate[],
  chosen: ReadonlySet<number>,
  { copies, bytes }: { readonly copies: number; readonly bytes: number },
  seed: string,
  together: (rseIds: readonly number[]) => boolean = () => true,
): Selection {
  const missing = Math.max(0, copies - chosen.size)
  if (missing === 0) return { added: [], leftOut: [] }
  const possible: Candidate[] = []
  const leftOut: LeftOut[] = []
  for (const candidate of candidates) {
    if (chosen.has(candidate.rseId)) continue
    const why = obstacle(candidate, bytes)
    if (why === undefined) possible.push(candidate)
    else leftOut.push({ rseId: candidate.rseId, why })
  }
  const preferred = possible
    .map(({ rseId, bytesHeld, bytesComing, weight }) => ({
      rseId,
      there: bytesHeld + bytesComing,
      held: bytesHeld,
      turn: turnOf(`${seed}:${rseId}`, weight),
    }))
    .sort((a, b) => b.there - a.there || b.held - a.held || a.turn - b.turn || a.rseId - b.rseId)
    .map(({ rseId }) => rseId)
  const added: number[] = []
  for (const rseId of preferred) {
    if (added.length === missing) break
    if (together([...added, rseId])) added.push(rseId)
    else leftOut.push({ rseId, why: 'QUOTA' })
  }
  return { added, leftOut }
}

function obstacle(candidate: Candidate, bytes: number): LeftOutWhy | undefined {
  const { writable, bytesHeld, bytesComing, weight, quotaLeft, spaceLeft } = candidate
  const whole = bytesHeld > 0 && bytesHeld >= bytes
  if (!writable && !whole) return 'NOT_WRITABLE'
  if (weight <= 0) return 'NO_WEIGHT'
  if (bytes > quotaLeft) return 'QUOTA'
  if (!whole && bytes - bytesHeld - bytesComing > spaceLeft) return 'NO_SPACE'
  return undefined
}

/** Weighted rendezvous hashing: the least of exponentially distributed turns comes first with a chance in proportion to its weight. */
function turnOf(text: string, weight: number): number {
  const hash = createHash('sha256').update(text).digest()
  return -Math.log((hash.readUIntBE(0, 6) + 0.5) / 2 ** 48) / weight
}
