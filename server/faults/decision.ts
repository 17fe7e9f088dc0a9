import { REPLICA_MACHINE, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { targetsOf } from '../../shared/domain/state-machine.ts'

/** What a person says of a replica. BAD: what lies there is not the file. LOST: nothing lies there. GOOD: it is the file, after all. */
export type Verdict = 'BAD' | 'LOST' | 'GOOD'

/** What a declaration comes to: something happens to the replica, a worker looks at it first, or nothing. */
export type Declared =
  | { readonly outcome: 'DECLARED'; readonly event: 'condemn' | 'lose' }
  | { readonly outcome: 'TO_BE_LOOKED_AT' | 'ALREADY' }
  | { readonly outcome: 'REFUSED'; readonly message: string }

const EVENTS = { BAD: 'condemn', LOST: 'lose' } as const

/** Of a replica in this state; `atFault`: it was found, or said, to be BAD or lost. Pure. */
export function declarationOf(verdict: Verdict, state: ReplicaState, atFault: boolean): Declared {
  if (state === 'COPYING') return refused('a transfer, or an upload, brings it: what lies there is looked at then')
  if (state === 'BEING_DELETED') return refused('it is being deleted')
  if (verdict === 'GOOD') {
    return state === 'TEMPORARY_UNAVAILABLE' ? refused('it is not to be had now') : { outcome: 'TO_BE_LOOKED_AT' }
  }
  // What lies where Waybill never had the file is somebody else's.
  if (verdict === 'BAD' && state === 'UNAVAILABLE' && !atFault) return refused('nothing of it has lain there')
  const event = EVENTS[verdict]
  return targetsOf(REPLICA_MACHINE, state, event).length > 0 ? { outcome: 'DECLARED', event } : { outcome: 'ALREADY' }
}

function refused(message: string): Declared {
  return { outcome: 'REFUSED', message }
}
