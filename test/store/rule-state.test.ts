import { expect } from 'chai'
import fc from 'fast-check'
import { addToRules } from '../../server/rules/store.ts'
import { ruleState } from '../../shared/domain/rule-state.ts'
import { databases } from './databases.ts'
import { World } from './world.ts'

const counters = fc.record({
  ok: fc.nat(3),
  replicating: fc.nat(3),
  stuck: fc.nat(3),
  problems: fc.nat(2),
})
type Counters = { ok: number; replicating: number; stuck: number; problems: number }
const rule = fc.record({
  has: counters,
  gets: counters,
  expanded: fc.boolean(),
  error: fc.option(fc.constant('too few')),
})

for (const { name, open } of databases) {
  describe(`rules on ${name}`, () => {
    it('have the state that their counters say', async () => {
      const { db, drop } = await open()
      try {
        const world = await World.make(db, { rses: ['A'] })
        await fc.assert(
          fc.asyncProperty(fc.array(rule, { minLength: 1, maxLength: 20 }), async rules => {
            const ids = await rulesWith(world, rules)
            const deltas = rules.map(({ has, gets }, i) => ({ rule_id: ids[i] ?? 0, ...minus(gets, has) }))
            await db.write(executor => addToRules(executor, deltas, 0))
            const found = await world.rows<{ state: string }>('SELECT state FROM rules ORDER BY id')
            const expected = rules.map(({ gets, expanded, error }) =>
              ruleState({
                expanded,
                locksReplicating: gets.replicating,
                locksStuck: gets.stuck,
                problems: gets.problems,
                error,
              }),
            )
            expect(found.map(row => row.state)).to.deep.equal(expected)
          }),
          { numRuns: 40 },
        )
      } finally {
        await drop()
      }
    })

    it('that wait for a person keep their state, whatever their locks do', async () => {
      const { db, drop } = await open()
      try {
        const world = await World.make(db, { rses: ['A'] })
        const states = ['SUSPENDED', 'WAITING_APPROVAL', 'INJECT']
        const none = { ok: 0, replicating: 0, stuck: 0, problems: 0 }
        const ids = await rulesWith(
          world,
          states.map(() => ({ has: none, expanded: true, error: null })),
        )
        for (const [i, state] of states.entries()) {
          await world.change('UPDATE rules SET state = :state WHERE id = :id', { state, id: ids[i] ?? 0 })
        }
        await db.write(executor =>
          addToRules(
            executor,
            ids.map(id => ({ rule_id: id, ...none, stuck: 1 })),
            0,
          ),
        )
        const found = await world.rows<{ state: string; locks_stuck: number }>('SELECT * FROM rules ORDER BY id')
        expect(found.map(row => row.state)).to.deep.equal(states)
        expect(found.map(row => row.locks_stuck)).to.deep.equal([1, 1, 1])
      } finally {
        await drop()
      }
    })
  })
}

async function rulesWith(
  world: World,
  rules: readonly { has: Counters; expanded: boolean; error: string | null }[],
): Promise<number[]> {
  for (const table of ['rule_parts', 'rules']) await world.change(`DELETE FROM ${table}`)
  await world.change('DELETE FROM contents')
  const ids: number[] = []
  for (const [i, { has, expanded, error }] of rules.entries()) {
    const did = `d${i}`
    if ((await world.rows('SELECT id FROM dids WHERE name = :did', { did })).length === 0)
      await world.dataset(did, 1, 'A')
    const id = await world.addRule(did, 'A', 1)
    ids.push(id)
    await world.change(
      `UPDATE rules SET stage = :stage, locks_ok = :ok, locks_replicating = :replicating, locks_stuck = :stuck, problems = :problems,
              error = :error
        WHERE id = :id`,
      { ...has, error, stage: expanded ? 'EXPANDED' : 'EXPANDING', id },
    )
  }
  return ids
}

function minus(a: Counters, b: Counters): Counters {
  return {
    ok: a.ok - b.ok,
    replicating: a.replicating - b.replicating,
    stuck: a.stuck - b.stuck,
    problems: a.problems - b.problems,
  }
}
