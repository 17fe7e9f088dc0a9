import { registerFiles } from '../../server/catalogue/register.ts'
import { declareReplicas } from '../../server/faults/declare.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import type { Encounter } from './encounters.ts'
import type { World } from './world.ts'

type Deed = (world: World) => Promise<unknown>

const HOUR_MS = 3_600_000
const FILES = [0, 1, 2].map(i => ({ did: `s:d.f${i}`, bytes: 100 + i }))

/** Who may is asked elsewhere. */
const demand = async (): Promise<void> => undefined

const arriveAt =
  (at: string): Deed =>
  async world => {
    const { accountId } = world
    const common = { rse: await world.rse(at), accountId, dataset: undefined, files: FILES } as const
    const registration = { ...common, state: 'AVAILABLE' as const, now: world.clock.now() }
    return world.db.write(executor => registerFiles(executor, registration))
  }

const loseAt =
  (at: string): Deed =>
  async world => {
    const common = { rse: await world.rse(at), accountId: world.accountId, demand, reason: '', last: false, first: 0 }
    const files = FILES.map(({ did }) => ({ did }))
    return world.db.write(e => declareReplicas(e, { ...common, as: 'LOST', files }, world.clock.now()))
  }

/** Three files that a rule has at B, and nobody else has. */
async function only(world: World): Promise<void> {
  await world.dataset('d', 3, 'B')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
}

/** Three files that nobody has, and a rule waits for at A and B. */
async function stuck(world: World): Promise<void> {
  await only(world)
  await world.addRule('d', 'A', 1)
  await world.evaluate()
  await world.change("UPDATE transfers SET state = 'FAILED'")
  await world.change("UPDATE replicas SET state = 'UNAVAILABLE'")
  await world.change("UPDATE locks SET state = 'STUCK'")
  await world.change(
    "UPDATE rules SET state = 'STUCK', locks_ok = 0, locks_replicating = 0, locks_stuck = 3, repair_at = 0",
  )
}

/** Three files that nobody has had for an hour, for which a transfer waits. */
async function waiting(world: World): Promise<void> {
  await world.dataset('d', 3, 'A')
  await world.addRule('d', 'B', 1)
  await world.evaluate()
  await world.change("UPDATE replicas SET state = 'UNAVAILABLE' WHERE state = 'AVAILABLE'")
  await world.change(
    "UPDATE transfers SET state = 'WAITING', reason = 'NO_SOURCE', not_before = 0, updated_at = :long",
    {
      long: world.clock.now() - 2 * HOUR_MS,
    },
  )
}

/** What is stuck though somebody has it waits for a repair that may be hours away. */
async function leftStuck(world: World): Promise<string | undefined> {
  const left = await world.number(
    `SELECT count(*) AS n FROM locks JOIN replicas ON replicas.id = replica_id AND replicas.state = 'UNAVAILABLE'
      WHERE locks.state = 'STUCK' AND EXISTS
        (SELECT 1 FROM replicas AS other WHERE other.file_id = replicas.file_id AND other.state = 'AVAILABLE')`,
  )
  return left === 0 ? undefined : `${left} locks are stuck though a storage has their file`
}

const both = (name: string, other: string, begin: Deed, one: Deed, two: Deed): [string, Encounter][] => [
  [name, { begin, stopped: one, other: two, broken: leftStuck }],
  [other, { begin, stopped: two, other: one, broken: leftStuck }],
]

/** Files come to a storage while what is left of them elsewhere is lost, given up or repaired. */
export const ARRIVAL_ENCOUNTERS: Readonly<Record<string, Encounter>> = Object.fromEntries([
  ...both(
    'files arrive whose last copies are just declared lost',
    'the last copies of files are declared lost that just arrive elsewhere',
    only,
    loseAt('B'),
    arriveAt('C'),
  ),
  ...both(
    'files arrive that are just given up',
    'files are given up that just arrive',
    waiting,
    world => world.run(transferReleaser),
    arriveAt('C'),
  ),
  ...both(
    'files arrive whose rules are just repaired',
    'rules are repaired whose files just arrive',
    stuck,
    world => world.run(ruleRepairer),
    arriveAt('C'),
  ),
  ...both(
    'files arrive at two storages that were stuck at both',
    'files arrive at two storages that were stuck at both, the other way round',
    stuck,
    arriveAt('A'),
    arriveAt('B'),
  ),
])
