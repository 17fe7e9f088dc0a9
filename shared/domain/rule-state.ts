import type { StateMachine } from './state-machine.ts'

/** facts/rules.md, "A rule". */
export type RuleState = 'REPLICATING' | 'OK' | 'STUCK' | 'SUSPENDED' | 'WAITING_APPROVAL' | 'INJECT'
export type LockState = 'REPLICATING' | 'OK' | 'STUCK'
export type ReplicaState = 'AVAILABLE' | 'UNAVAILABLE' | 'COPYING' | 'BEING_DELETED' | 'BAD' | 'TEMPORARY_UNAVAILABLE'

/** What a rule's state follows from: nothing else is stored about it. */
export interface RuleFacts {
  /** All choices were made and all locks exist. */
  readonly expanded: boolean
  readonly locksReplicating: number
  readonly locksStuck: number
  /** Files that could get no lock at all: no free path. */
  readonly problems: number
  /** Why it could not choose as many storages as it wants copies: the rule's `error`. */
  readonly error: string | null
}

/** STUCK wins over REPLICATING: what needs a person, or repair, is shown first. */
export function ruleState(facts: RuleFacts): Extract<RuleState, 'REPLICATING' | 'OK' | 'STUCK'> {
  if (facts.locksStuck > 0 || facts.problems > 0 || facts.error !== null) return 'STUCK'
  return facts.expanded && facts.locksReplicating === 0 ? 'OK' : 'REPLICATING'
}

/** A lock follows its replica's transfer. `join`: a further rule asks for a replica that is there, or on its way. */
export const LOCK_MACHINE: StateMachine<LockState, 'succeed' | 'fail' | 'repair' | 'lose'> = {
  REPLICATING: { succeed: 'OK', fail: 'STUCK' },
  STUCK: { succeed: 'OK', repair: 'REPLICATING' },
  OK: { lose: 'REPLICATING' },
}

export const REPLICA_MACHINE: StateMachine<
  ReplicaState,
  'succeed' | 'fail' | 'repair' | 'lose' | 'delete' | 'withdraw' | 'return'
> = {
  COPYING: { succeed: 'AVAILABLE', fail: 'UNAVAILABLE', delete: 'BEING_DELETED' },
  UNAVAILABLE: { succeed: 'AVAILABLE', repair: 'COPYING', delete: 'BEING_DELETED' },
  AVAILABLE: { lose: 'BAD', delete: 'BEING_DELETED', withdraw: 'TEMPORARY_UNAVAILABLE' },
  TEMPORARY_UNAVAILABLE: { return: 'AVAILABLE', lose: 'BAD' },
  BAD: { repair: 'COPYING', delete: 'BEING_DELETED' },
  BEING_DELETED: {},
}
