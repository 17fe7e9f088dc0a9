import { expect } from 'chai'
import { moveReplicas } from '../../server/catalogue/replica-store.ts'
import { moveLocks, repairLocks, stuckLocks } from '../../server/rules/lock-store.ts'
import {
  LOCK_MACHINE,
  type LockState,
  REPLICA_MACHINE,
  type ReplicaEvent,
  type ReplicaState,
} from '../../shared/domain/rule-state.ts'
import { targetsOf } from '../../shared/domain/state-machine.ts'
import { databases, type TestDatabase } from './databases.ts'
import { World } from './world.ts'

const LOCK_STATES = Object.keys(LOCK_MACHINE) as LockState[]
const REPLICA_STATES = Object.keys(REPLICA_MACHINE) as ReplicaState[]

/** All events that the table knows. */
function stepsIn(machine: typeof REPLICA_MACHINE): ReplicaEvent[] {
  return [...new Set(Object.values(machine).flatMap(events => Object.keys(events) as ReplicaEvent[]))]
}

for (const { name, open } of databases) {
  describe(`locks and replicas on ${name} move as their tables say`, () => {
    let test: TestDatabase
    let world: World
    let replicas: number[]

    beforeEach(async () => {
      test = await open()
      world = await World.make(test.db, { rses: ['A', 'B'] })
      await world.dataset('d', Math.max(LOCK_STATES.length, REPLICA_STATES.length), 'A')
      await world.addRule('d', 'B', 1)
      await world.evaluate()
      replicas = (await world.rows<{ id: number }>('SELECT replica_id AS id FROM locks ORDER BY replica_id')).map(
        r => r.id,
      )
    })
    afterEach(() => test.drop())

    /** One row in each state. */
    async function spread(table: 'locks' | 'replicas', key: string, states: readonly string[]): Promise<void> {
      for (const [i, state] of states.entries()) {
        await world.change(`UPDATE ${table} SET state = :state WHERE ${key} = :id`, { state, id: replicas[i] ?? 0 })
      }
    }

    for (const event of ['succeed', 'fail', 'repair'] as const) {
      it(`locks: ${event}, with the changes for their rule's counters`, async () => {
        await spread('locks', 'replica_id', LOCK_STATES)
        const some = replicas.slice(0, LOCK_STATES.length)
        const [rule] = await world.rows<{ id: number }>('SELECT id FROM rules')
        const deltas = await test.db.write(async e =>
          event === 'repair'
            ? (
                await repairLocks(
                  e,
                  { id: rule?.id ?? 0, source_set_id: null },
                  await stuckLocks(e, rule?.id ?? 0, 0, 100),
                  world.clock.now(),
                )
              ).deltas
            : moveLocks(e, some, event),
        )
        const found = await world.rows<{ state: LockState }>('SELECT state FROM locks ORDER BY replica_id')
        const expected = LOCK_STATES.map(state => targetsOf(LOCK_MACHINE, state, event)[0] ?? state)
        expect(found.slice(0, LOCK_STATES.length).map(row => row.state)).to.deep.equal(expected)
        const change = (state: LockState): number =>
          expected.filter(to => to === state).length - LOCK_STATES.filter(from => from === state).length
        expect(deltas).to.deep.equal([
          {
            rule_id: rule?.id,
            ok: change('OK'),
            replicating: change('REPLICATING'),
            stuck: change('STUCK'),
            problems: 0,
          },
        ])
      })
    }

    for (const event of stepsIn(REPLICA_MACHINE)) {
      it(`replicas: ${event}`, async () => {
        await spread('replicas', 'id', REPLICA_STATES)
        await test.db.write(e => moveReplicas(e, replicas, event, world.clock.now()))
        const found = await world.rows<{ state: ReplicaState }>(
          `SELECT state FROM replicas WHERE rse_id = (SELECT id FROM rses WHERE name = 'B') ORDER BY id`,
        )
        expect(found.slice(0, REPLICA_STATES.length).map(row => row.state)).to.deep.equal(
          REPLICA_STATES.map(state => targetsOf(REPLICA_MACHINE, state, event)[0] ?? state),
        )
      })
    }
  })
}
