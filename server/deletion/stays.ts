import type { ReplicaState } from '../../shared/domain/rule-state.ts'

/** What is known of a replica that no lock holds. */
export interface UnlockedFacts {
  readonly state: ReplicaState
  /** No rule brought it here, and nobody has let go of it. */
  readonly kept: boolean
  /** Some other storage has a good copy. */
  readonly goodElsewhere: boolean
  /** Somebody said that the BAD one may go, though it be all that is left. */
  readonly expendable: boolean
  /** That it is BAD only a worker has found: no person has said so. */
  readonly unconfirmed: boolean
  /** A rule asks for the file, on the file itself or on anything that holds it. */
  readonly asked: boolean
  /** Such a rule still chooses storages, or makes its locks. */
  readonly undecided: boolean
  /** Some lock on another replica of the file is not OK. */
  readonly wanting: boolean
  /** The file is being copied somewhere: from here, perhaps. */
  readonly copying: boolean
  /** A person may be putting the file there. */
  readonly uploading: boolean
  /** A worker is at it, for something else than its deletion. */
  readonly inTask: boolean
}

export const STAYS = {
  UPLOADING: 'somebody may be putting the file there',
  IN_TASK: 'a worker is at it',
  COPYING: 'the file is being copied: it may be read from there',
  KEPT: 'it was registered, imported or uploaded there, and nobody has let go of it (waybill replica release)',
  LAST_COPY: 'it is the last good copy of a file that a rule asks for',
  WANTING: 'a rule does not have all its copies of the file yet',
  ONLY_BAD: 'no storage has a good copy: what is BAD may be all that is left',
  UNCONFIRMED:
    'a worker found it BAD, and it was registered, imported or uploaded there: it goes when a person says so (waybill replica declare-bad, or release)',
  ONLY_LOST:
    'no storage has a good copy: where it was is not forgotten until somebody lets go of it (waybill replica release)',
} as const
export type StaysCode = keyof typeof STAYS

/** Why a replica without a lock is not deleted now; undefined: it may be. Pure. */
export function staysFor(facts: UnlockedFacts): StaysCode | undefined {
  if (facts.uploading) return 'UPLOADING'
  if (facts.inTask) return 'IN_TASK'
  if (facts.copying) return 'COPYING'
  if (facts.state !== 'AVAILABLE') {
    if (facts.expendable) return undefined
    if (facts.goodElsewhere) {
      return facts.state === 'BAD' && facts.kept && facts.unconfirmed ? 'UNCONFIRMED' : undefined
    }
    if (facts.state === 'BAD') return facts.kept || facts.asked ? 'ONLY_BAD' : undefined
    return facts.kept ? 'ONLY_LOST' : undefined
  }
  if (facts.kept) return 'KEPT'
  if (facts.asked && !facts.goodElsewhere) return 'LAST_COPY'
  return facts.undecided || facts.wanting ? 'WANTING' : undefined
}
