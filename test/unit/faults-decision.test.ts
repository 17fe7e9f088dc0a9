import { expect } from 'chai'
import { declarationOf, type Verdict } from '../../server/faults/decision.ts'
import { REPLICA_MACHINE, REPLICA_STATES, type ReplicaState } from '../../shared/domain/rule-state.ts'
import { targetsOf } from '../../shared/domain/state-machine.ts'

const STATES = Object.keys(REPLICA_STATES) as ReplicaState[]

describe('what is declared of a replica', () => {
  const outcomes: Readonly<Record<Verdict, Readonly<Record<ReplicaState, string>>>> = {
    BAD: {
      AVAILABLE: 'condemn',
      TEMPORARY_UNAVAILABLE: 'condemn',
      BAD: 'ALREADY',
      UNAVAILABLE: 'REFUSED',
      COPYING: 'REFUSED',
      BEING_DELETED: 'REFUSED',
    },
    LOST: {
      AVAILABLE: 'lose',
      TEMPORARY_UNAVAILABLE: 'lose',
      BAD: 'lose',
      UNAVAILABLE: 'ALREADY',
      COPYING: 'REFUSED',
      BEING_DELETED: 'REFUSED',
    },
    GOOD: {
      AVAILABLE: 'TO_BE_LOOKED_AT',
      TEMPORARY_UNAVAILABLE: 'REFUSED',
      BAD: 'TO_BE_LOOKED_AT',
      UNAVAILABLE: 'TO_BE_LOOKED_AT',
      COPYING: 'REFUSED',
      BEING_DELETED: 'REFUSED',
    },
  }
  it('BAD, of what was lost where something else lies by now, is condemn', () => {
    expect(declarationOf('BAD', 'UNAVAILABLE', true)).to.deep.equal({ outcome: 'DECLARED', event: 'condemn' })
  })
  for (const verdict of ['BAD', 'LOST', 'GOOD'] as const) {
    for (const state of STATES) {
      it(`${verdict}, of what is ${state}, is ${outcomes[verdict][state]}`, () => {
        const declared = declarationOf(verdict, state, false)
        expect(declared.outcome === 'DECLARED' ? declared.event : declared.outcome).to.equal(outcomes[verdict][state])
        if (declared.outcome === 'DECLARED') {
          expect(targetsOf(REPLICA_MACHINE, state, declared.event)).to.have.length(1)
        }
      })
    }
  }
})
