import { holdFilesOf } from '../../server/catalogue/hold-files.ts'
import { registerFiles } from '../../server/catalogue/register.ts'
import type { Context } from '../../server/context.ts'
import type { Database } from '../../server/database/database.ts'
import { reaper } from '../../server/deletion/reaper.ts'
import { setKept } from '../../server/faults/declare-store.ts'
import { recoverer } from '../../server/faults/recover.ts'
import { condemnReplicas, FOUND, loseReplicas } from '../../server/faults/store.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { startRemoval } from '../../server/rules/step-store.ts'
import { addToRules } from '../../server/rules/store.ts'
import { ruleRepairer } from '../../server/rules/upkeep.ts'
import { putProtocol } from '../../server/storages/store.ts'
import { takeReport, takeTasks } from '../../server/tasks/tasks.ts'
import type { Issuers } from '../../server/tokens/issuers.ts'
import type { TokenContext } from '../../server/tokens/tokens.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import type { StorageTask } from '../../shared/contract/routes/worker.ts'
import { DEFAULT_RETRY_POLICY } from '../../shared/domain/retry-policy.ts'
import type { DiskDeed } from './disk-deeds.ts'
import { brokenInvariants } from './invariants.ts'
import { FAILURE, FENCE_BASE, World } from './world.ts'

const YEAR_MS = 365 * 24 * 3_600_000
const GRACE_MS = 60_000
const SERVICES: readonly Parameters<World['run']>[0][] = [
  ruleEvaluator,
  ruleRepairer,
  transferReleaser,
  recoverer,
  (context: Context) => reaper(context, GRACE_MS),
]
const CORRUPT = { code: 'SOURCE_CORRUPT', message: 'another checksum' } as const

interface Place {
  readonly id: number
  readonly file: string
  readonly rse: string
}

/** A store, and what really lies at its storages: good files, by `file@rse`. A worker deletes at once what it is told to, and tells so later. */
export class Disks {
  readonly #world: World
  readonly #good = new Set<string>()
  readonly #held: StorageTask[] = []
  #session = 0
  #made = 0

  private constructor(world: World) {
    this.#world = world
  }

  static async begin(db: Database, storages: readonly string[]): Promise<Disks> {
    const disks = new Disks(await World.make(db, { rses: storages }))
    for (const { id, name } of await disks.#world.context.storages.all())
      await db.write(executor => putProtocol(executor, id, { url: `davs://${name}.example.org/` }))
    disks.#world.context.storages.forget()
    disks.#session = await disks.#world.openSession(YEAR_MS)
    await disks.play({ do: 'register', at: 'A', which: null })
    await disks.play({ do: 'register', at: 'B', which: null })
    return disks
  }

  get #now(): number {
    return this.#world.clock.now()
  }

  /** Throws when the last good copy of what somebody wants was deleted. */
  async play(deed: DiskDeed): Promise<void> {
    await this.#do(deed)
    for (const service of SERVICES) await this.#world.run(service)
    const broken = await brokenInvariants(this.#world)
    if (broken.length > 0) throw new Error(`after ${JSON.stringify(deed)}: ${broken.join('; ')}`)
  }

  async #do(deed: DiskDeed): Promise<void> {
    switch (deed.do) {
      case 'register':
        return this.#register(deed.at, deed.which)
      case 'rule':
        await this.#world.addRule(`d${deed.which % this.#made}`, deed.expression, deed.copies).catch(() => undefined)
        return
      case 'remove': {
        const rules = await this.#world.rows<{ id: number }>(
          "SELECT id FROM rules WHERE stage <> 'REMOVING' ORDER BY id",
        )
        const rule = rules[deed.which % Math.max(1, rules.length)]
        if (rule !== undefined) await this.#world.db.write(e => startRemoval(e, rule.id, this.#now))
        return
      }
      case 'release': {
        const place = await this.#pick('kept', deed.which)
        if (place === undefined) return
        const { id } = await this.#world.rse(place.rse)
        const file = await this.#world.didId(place.file)
        await this.#world.db.write(e => setKept(e, id, [file], false, this.#now))
        return
      }
      case 'find':
        return this.#fault(deed.which, condemnReplicas, deed.truly, null)
      case 'declare':
        return this.#fault(deed.which, condemnReplicas, true, this.#world.accountId)
      case 'lose':
        return this.#fault(deed.which, loseReplicas, true, null)
      case 'copy':
        return this.#copy(deed.works)
      case 'claim':
        return this.#claim()
      case 'tell':
        for (const task of this.#held.splice(0)) await this.#tell(task)
        return
      case 'wait':
        await this.#world.clock.advance(deed.seconds * 1000)
    }
  }

  /** A dataset of one file, or the file of one that is there already at another storage. */
  async #register(at: string, which: number | null): Promise<void> {
    const n = which === null ? this.#made : which % this.#made
    if (which === null) this.#made += 1
    const registration = { rse: await this.#world.rse(at), accountId: this.#world.accountId, dataset: `s:d${n}` }
    const files = [{ did: `s:f${n}`, bytes: 10 }]
    const given = { ...registration, files, state: 'AVAILABLE' as const, now: this.#now }
    // What is being brought there, is BAD or is being deleted is refused.
    const taken = await this.#world.db
      .write(e => registerFiles(e, given))
      .then(
        () => true,
        () => false,
      )
    if (taken) this.#good.add(`f${n}@${at}`)
  }

  async #pick(condition: string, which: number): Promise<Place | undefined> {
    const places = await this.#world.rows<Place>(
      `SELECT replicas.id, dids.name AS file, rses.name AS rse FROM replicas JOIN dids ON dids.id = file_id JOIN rses ON rses.id = rse_id
        WHERE ${condition} ORDER BY replicas.id`,
    )
    return places[which % Math.max(1, places.length)]
  }

  /** What is not good any more is that from now on; a storage that errs says so of what is. */
  async #fault(which: number, work: typeof condemnReplicas, truly: boolean, account: number | null): Promise<void> {
    const place = await this.#pick("replicas.state = 'AVAILABLE'", which)
    if (place === undefined) return
    if (truly) this.#good.delete(`${place.file}@${place.rse}`)
    const fault = { ...FOUND, ...CORRUPT, replica_id: place.id, transfer_id: null, account_id: account }
    await this.#world.db.write(async executor => {
      await holdFilesOf(executor, [place.id])
      await addToRules(executor, await work(executor, [fault], this.#now), this.#now)
    })
  }

  /** A worker copies what it can get. */
  async #copy(works: boolean): Promise<void> {
    await this.#world.grantAll()
    const claimed = await this.#world.claim(this.#session, 100)
    const places = await this.#world.rows<{ id: number; file: string; source: string; destination: string }>(
      `SELECT transfers.id, dids.name AS file, source.name AS source, destination.name AS destination FROM transfers
         JOIN replicas ON replicas.id = transfers.replica_id JOIN dids ON dids.id = replicas.file_id
         JOIN rses AS destination ON destination.id = replicas.rse_id JOIN rses AS source ON source.id = transfers.source_rse_id
        WHERE transfers.state NOT IN ('DONE', 'FAILED', 'CANCELLED')`,
    )
    const told = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 10 } as const
    const outcomes = claimed.map(({ id: transfer, fence }) => {
      const place = places.find(({ id }) => id === transfer)
      const isGood = this.#good.has(`${place?.file}@${place?.source}`)
      if (works && isGood) {
        this.#good.add(`${place?.file}@${place?.destination}`)
        return { transfer, fence, ...told, result: 'done' as const, cleaned: false, left: 'own' as const }
      }
      const error = isGood
        ? { ...FAILURE, retryable: false }
        : { ...FAILURE, ...CORRUPT, scope: 'SOURCE' as const, retryable: false }
      return { transfer, fence, ...told, result: 'failed' as const, error, cleaned: true, left: 'nothing' as const }
    })
    await applyOutcomes(this.#world.context, DEFAULT_RETRY_POLICY, this.#session, outcomes)
  }

  get #tokens(): TokenContext {
    const { context, issuerId } = this.#world
    // Of an issuer nothing is asked but its grants.
    const issuers = { forVo: () => ({ id: issuerId, clientId: 'server' }) } as unknown as Issuers
    return { ...context, issuers } as TokenContext
  }

  async #claim(): Promise<void> {
    const claimant = { sessionId: this.#session, fenceBase: FENCE_BASE }
    for (const task of await takeTasks(this.#tokens, claimant, 20)) {
      if (task.kind !== 'delete') continue
      this.#held.push(task)
      for (const { file } of task.files) await this.#unlink(file)
    }
  }

  async #tell({ task, fence, files }: StorageTask): Promise<void> {
    const results = files.map(({ file }) => ({ file, result: 'done' as const }))
    const report = { session: this.#session, fence, forgotten: false, results }
    await takeReport(this.#tokens, DEFAULT_RETRY_POLICY, task, report)
  }

  async #unlink(replica: number): Promise<void> {
    const place = await this.#pick(`replicas.id = ${replica}`, 0)
    if (place === undefined) return
    const wasGood = this.#good.delete(`${place.file}@${place.rse}`)
    if (!wasGood || [...this.#good].some(other => other.startsWith(`${place.file}@`))) return
    const [wanted] = await this.#world.rows(
      `SELECT 1 AS one FROM replicas WHERE id = ${replica} AND kept
       UNION ALL SELECT 1 FROM rules JOIN contents ON contents.parent_id = rules.did_id JOIN dids ON dids.id = contents.child_id
        WHERE dids.name = '${place.file}' AND rules.stage <> 'REMOVING'`,
    )
    if (wanted !== undefined) throw new Error(`the last good copy of ${place.file}, at ${place.rse}, was deleted`)
  }
}
