import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { environment } from '../../shared/runtime/environment.ts'
import { systemRandom } from '../../shared/runtime/random.ts'
import { inPostgres } from '../house/database.ts'
import { placeDataset, someFiles, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { type Postgres, startPostgres } from '../house/postgres.ts'
import { until } from '../house/until.ts'
import { requireComponents } from '../interop/components.ts'
import { brokenInvariants } from '../store/invariants.ts'
import { World } from '../store/world.ts'
import { Apart } from './apart.ts'
import { type Balancer, startBalancer } from './balancer.ts'

/** For so long something is killed every second or so; `FLEET_SECONDS=300` is the full length. */
const SECONDS = Number(environment.FLEET_SECONDS ?? 20)
const SERVERS = 3
const WORKERS = 5
const LIMITS = { maxInbound: 5, maxOutbound: 7 }
const FILES_PER_DATASET = 40
/** Rules that are open at a time, at most: there is always work, and no more than is over soon. */
const RULES_OPEN = 12
/** A look at an attempt whose end nobody saw may be five minutes away, after many that were in vain. */
const PATIENCE_MS = 400_000
const TARGETS = ['SITE-B', 'SITE-C'] as const

/** How many transfers a storage has under way, in and out, as it sees them itself. */
class Activity {
  readonly most = { COPY: 0, GET: 0 }
  readonly #now = { COPY: 0, GET: 0 }

  readonly onRequest = (verb: string, _target: string, ended: Promise<unknown>): void => {
    if (verb !== 'COPY' && verb !== 'GET') return
    this.#now[verb] += 1
    this.most[verb] = Math.max(this.most[verb], this.#now[verb])
    void ended.then(() => {
      this.#now[verb] -= 1
    })
  }
}

describe(`${SERVERS} servers and ${WORKERS} workers on PostgreSQL, killed at random for ${SECONDS} s`, function () {
  this.timeout(SECONDS * 1_000 + PATIENCE_MS + 120_000)
  const activity = { 'SITE-A': new Activity(), 'SITE-B': new Activity(), 'SITE-C': new Activity() }
  const servers = Array.from({ length: SERVERS }, () => ({ apart: new Apart(), port: 0 }))
  const workers = Array.from({ length: WORKERS }, () => new Apart())
  let postgres: Postgres | undefined
  let house: House
  let balancer: Balancer

  const url = (): string => `https://localhost:${balancer.port}`
  const startServer = async (i: number): Promise<void> => {
    const server = servers[i]
    if (server === undefined) throw new Error(`no server ${i}`)
    server.port = (await server.apart.server(house.serverFile(server.port), house.onLog)).port
  }
  const startWorker = async (i: number): Promise<void> => {
    await workers[i]?.worker(house.workerFile(`worker-${i}`, url()), house.onLog)
  }

  before(async function () {
    requireComponents(this, ['postgresql'])
    const running = startPostgres()
    house = await startHouse({
      database: () => inPostgres(running),
      mayLogErrors: true,
      storages: Object.fromEntries(
        Object.entries(activity).map(([name, { onRequest }]) => [
          name,
          { onRequest, behaviour: { bytesPerSecond: 60_000 } },
        ]),
      ),
      server: {
        metrics: undefined,
        sessionLeaseSeconds: 3,
        retry: { maxAttempts: 50, soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.5 },
      },
      worker: { metrics: undefined, concurrency: 8, settleSeconds: 0.5 },
    })
    postgres = await running
    await house.addStorages()
    for (const rse of Object.keys(activity)) await house.client.updateRse({ params: { rse }, body: LIMITS })
    // From here on it is the fleet's.
    await house.server.stop()
    for (let i = 0; i < SERVERS; i += 1) await startServer(i)
    balancer = await startBalancer(servers.map(({ port }) => port))
    for (let i = 0; i < WORKERS; i += 1) await startWorker(i)
  })
  after(async () => {
    await balancer?.stop()
    for (const worker of workers) await worker.kill('worker')
    for (const { apart } of servers) await apart.kill('server')
    await house?.stop()
    await postgres?.kill()
  })

  it('every file is verified once, all that is written down is true, and no storage sees more than its limits', async () => {
    const datasets: { name: string; files: ReturnType<typeof someFiles> }[] = []
    const rules: number[] = []
    const client = house.clientAt(url())
    /** Whatever is killed meanwhile: each call may be repeated. */
    const insist = <T>(call: () => Promise<T>): Promise<T> =>
      until(
        () => call().catch(() => undefined),
        answer => answer !== undefined,
        60_000,
      ) as Promise<T>
    const ends = systemClock.monotonic() + SECONDS * 1_000
    const kills: Record<string, number> = { server: 0, worker: 0, database: 0 }

    /** With what it still waits for. */
    const look = async (id: number) => {
      const { state } = await client.getRule({ params: { id } })
      if (state === 'OK') return { id, state }
      const { items } = await client.listRuleTransfers({ params: { id }, query: { limit: 1_000 } })
      return { id, state, waits: items.filter(item => item.state !== 'DONE') }
    }
    async function submit(): Promise<void> {
      while (systemClock.monotonic() < ends) {
        const name = `fleet${datasets.length}`
        const files = someFiles(FILES_PER_DATASET, 8_000)
        await insist(() => placeDataset({ sandbox: house.sandbox, client }, 'SITE-A', name, files).then(() => true))
        datasets.push({ name, files })
        const body = { dids: [`exp:${name}`], copies: 2, expression: TARGETS.join('|') }
        const { items } = await insist(() => client.addRules({ body, idempotencyKey: name }))
        rules.push(...items.map(({ id }) => id))
        await systemClock.sleep(1_000)
        const oldest = rules.at(-RULES_OPEN)
        while (
          oldest !== undefined &&
          systemClock.monotonic() < ends &&
          (await insist(() => look(oldest))).state !== 'OK'
        )
          await systemClock.sleep(1_000)
      }
    }
    const killed = (): number => Object.values(kills).reduce((sum, count) => sum + count)
    async function kill(): Promise<void> {
      // Each takes as long as what was killed needs to be back: on a busy machine seconds, and then there are no fewer.
      while (systemClock.monotonic() < ends || killed() <= SECONDS / 10) {
        await systemClock.sleep(500 + systemRandom.fraction() * 1_500)
        const dice = systemRandom.fraction()
        if (dice < 0.1) {
          kills.database = (kills.database ?? 0) + 1
          await postgres?.kill()
          await postgres?.start()
        } else if (dice < 0.5) {
          kills.server = (kills.server ?? 0) + 1
          const i = Math.floor(systemRandom.fraction() * SERVERS)
          await servers[i]?.apart.kill('server')
          await startServer(i)
        } else {
          kills.worker = (kills.worker ?? 0) + 1
          const i = Math.floor(systemRandom.fraction() * WORKERS)
          await workers[i]?.kill('worker')
          await startWorker(i)
        }
      }
    }
    await Promise.all([submit(), kill()])

    for (const id of rules) {
      await until(
        () => look(id).catch(() => undefined),
        rule => rule?.state === 'OK',
        PATIENCE_MS,
      )
    }
    for (const { name, files } of datasets) {
      for (const rse of TARGETS)
        expect(await wrongFiles(house, rse, name, files), `${name} at ${rse}`).to.deep.equal([])
    }
    const db = house.database.open()
    const world = await World.of(db)
    expect(await brokenInvariants(world)).to.deep.equal([])
    const verified = await world.rows<{ times: number; files: number }>(
      `SELECT times, count(*) AS files FROM (SELECT count(*) AS times FROM attempts
         JOIN transfers ON transfers.id = attempts.transfer_id
        WHERE outcome = 'done' GROUP BY transfers.replica_id) AS counted GROUP BY times`,
    )
    await db.close()
    expect(verified).to.deep.equal([{ times: 1, files: datasets.length * FILES_PER_DATASET * TARGETS.length }])
    for (const [rse, { most }] of Object.entries(activity)) {
      expect(most.COPY, `copies into ${rse}`).to.be.at.most(LIMITS.maxInbound)
      expect(most.GET, `copies out of ${rse}`).to.be.at.most(LIMITS.maxOutbound)
    }
    expect(killed()).to.be.above(SECONDS / 10)
  })
})
