import { expect } from 'chai'
import type { Database } from '../../server/database/database.ts'
import { openPostgres } from '../../server/database/postgres.ts'
import type { Executor } from '../../server/database/sql.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { type Postgres, sharedPostgres } from '../house/postgres.ts'
import { requireComponents } from '../interop/components.ts'
import { ACCOUNT_ENCOUNTERS } from './account-encounters.ts'
import { ARRIVAL_ENCOUNTERS } from './arrival-encounters.ts'
import { CONTENTS_ENCOUNTERS } from './contents-encounters.ts'
import { migratedTemplate } from './databases.ts'
import { ENCOUNTERS, type Encounter } from './encounters.ts'
import { FAULT_ENCOUNTERS } from './fault-encounters.ts'
import { IMPORT_ENCOUNTERS } from './import-encounters.ts'
import { brokenInvariants } from './invariants.ts'
import { TASK_ENCOUNTERS } from './task-encounters.ts'
import { World } from './world.ts'

/** How long one may wait for the other's locks before the other is let go on. Milliseconds. */
const PATIENCE_MS = 40
/** Encounters in as many databases: most of their time is waiting. */
const AT_ONCE = 8
/** More statements than any transaction has. */
const MOST_STATEMENTS = 80

describe('two transactions at once on PostgreSQL', () => {
  let server: Postgres
  let migrated: string
  before(async function () {
    requireComponents(this, ['postgresql'])
    server = await sharedPostgres()
    migrated = await migratedTemplate(server)
  })

  async function withCopy<T>(template: string, use: (world: World) => Promise<T>, made = true): Promise<[T, string]> {
    const url = await server.createDatabase(template)
    const db = openPostgres({ kind: 'postgresql', url, connections: 6 })
    try {
      return [await use(made ? await World.of(db) : await World.make(db, { rses: ['A', 'B', 'C'] })), url]
    } finally {
      await db.close()
    }
  }

  const encounters = {
    ...ENCOUNTERS,
    ...CONTENTS_ENCOUNTERS,
    ...TASK_ENCOUNTERS,
    ...ACCOUNT_ENCOUNTERS,
    ...IMPORT_ENCOUNTERS,
    ...FAULT_ENCOUNTERS,
    ...ARRIVAL_ENCOUNTERS,
  }
  for (const [name, encounter] of Object.entries(encounters)) {
    it(`keep what is promised when ${name}`, async function () {
      this.timeout(120_000)
      const [, begun] = await withCopy(migrated, encounter.begin, false)
      const met = async (statement: number): Promise<boolean> => {
        const [reached, url] = await withCopy(begun, world => meet(encounter, world, statement))
        await server.dropDatabase(url)
        return reached
      }
      for (let first = 1; ; first += AT_ONCE) {
        expect(first).to.be.below(MOST_STATEMENTS)
        const reached = await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => met(first + i)))
        if (reached.includes(false)) break
      }
      await server.dropDatabase(begun)
    })
  }
})

/** False when the first had fewer statements, so that nothing was stopped. */
async function meet(encounter: Encounter, world: World, statement: number): Promise<boolean> {
  const pause = pausedBefore(world.db, statement)
  const stopped = encounter.stopped(world.on(pause.db))
  await Promise.race([pause.reached, stopped])
  const other = encounter.other(world)
  await Promise.race([other, systemClock.sleep(encounter.patience ?? PATIENCE_MS)])
  pause.goOn()
  await Promise.all([stopped, other])
  await encounter.afterwards?.(world)
  const found = [...(await brokenInvariants(world)), (await encounter.broken?.(world)) ?? []].flat()
  expect(found, `stopped before statement ${statement}`).to.deep.equal([])
  return pause.wasReached()
}

/** A database whose writers stop once, before their n-th statement or commit in all, until they may go on. */
function pausedBefore(db: Database, n: number) {
  let count = 0
  let reached = (): void => undefined
  let goOn = (): void => undefined
  const isReached = new Promise<void>(resolve => {
    reached = resolve
  })
  const mayGoOn = new Promise<void>(resolve => {
    goOn = resolve
  })
  const step = async (): Promise<void> => {
    count += 1
    if (count !== n) return
    reached()
    await mayGoOn
  }
  const watched = (executor: Executor): Executor =>
    new Proxy(executor, {
      get(target, property) {
        if (property !== 'raw') return Reflect.get(target, property)
        return async (...args: Parameters<Executor['raw']>) => {
          await step()
          return target.raw(...args)
        }
      },
    })
  return {
    db: {
      ...db,
      write: <T>(work: (executor: Executor) => Promise<T>) =>
        db.write(async executor => {
          const result = await work(watched(executor))
          await step()
          return result
        }),
    },
    reached: isReached,
    goOn,
    wasReached: () => count >= n,
  }
}
