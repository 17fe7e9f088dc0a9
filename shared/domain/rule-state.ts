import type { StateMachine } from './state-machine.ts'

/** facts/rules.md, "A rule". */
export type RuleState = 'REPLICATING' | 'OK' | 'STUCK' | 'SUSPENDED' | 'WAITING_APPROVAL' | 'INJECT'
export const LOCK_STATES = {
  REPLICATING: 'its replica is not there yet, or not on tape where that is wanted',
  OK: 'its replica is there',
  STUCK: 'its replica could not be brought, or was lost: the repair of its rule takes it up',
} as const
export type LockState = keyof typeof LOCK_STATES
export const REPLICA_STATES = {
  AVAILABLE: 'there, as uploaded, registered or verified',
  UNAVAILABLE: 'not there (it was lost, or could not be brought), and nobody is bringing it now',
  COPYING: 'a transfer brings it',
  BEING_DELETED: 'a worker is to delete it',
  BAD: 'what lies there is not the file: it is deleted before another copy comes, if there is one',
  TEMPORARY_UNAVAILABLE: 'there, but not to be had for a while',
} as const
export type ReplicaState = keyof typeof REPLICA_STATES

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

export type LockEvent = 'succeed' | 'fail' | 'repair' | 'lose'

/** A lock follows its replica: the transfer that brings it, and its loss. */
export const LOCK_MACHINE: StateMachine<LockState, LockEvent> = {
  REPLICATING: { succeed: 'OK', fail: 'STUCK' },
  STUCK: { succeed: 'OK', repair: 'REPLICATING' },
  OK: { lose: 'STUCK' },
}

/**
 * condemn: what lies there is not the file; of what was lost too, where something is found in its place. lose: nothing lies there. restore: what lies there was looked at, and is the file.
 * reap: it is to be deleted. spare: no worker was told so yet, and it is wanted: as it was. vanish: it is deleted, and wanted again.
 */
export type ReplicaEvent = 'succeed' | 'fail' | 'want' | 'condemn' | 'lose' | 'restore' | 'reap' | 'spare' | 'vanish'

/** The state without a way in is set by what is still to come (issue 5). A replica that vanished and is not wanted is no row any more. */
export const REPLICA_MACHINE: StateMachine<ReplicaState, ReplicaEvent> = {
  COPYING: { succeed: 'AVAILABLE', fail: 'UNAVAILABLE', restore: 'AVAILABLE' },
  UNAVAILABLE: { succeed: 'AVAILABLE', restore: 'AVAILABLE', want: 'COPYING', condemn: 'BAD', reap: 'BEING_DELETED' },
  AVAILABLE: { condemn: 'BAD', lose: 'UNAVAILABLE', reap: 'BEING_DELETED' },
  TEMPORARY_UNAVAILABLE: { condemn: 'BAD', lose: 'UNAVAILABLE' },
  BAD: { restore: 'AVAILABLE', lose: 'UNAVAILABLE', reap: 'BEING_DELETED' },
  BEING_DELETED: { spare: ['AVAILABLE', 'BAD'], vanish: 'UNAVAILABLE' },
}
