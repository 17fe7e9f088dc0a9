import { EVERYTHING } from '../../server/accounts/sight.ts'
import { ensureVo, insertAccount } from '../../server/accounts/store.ts'
import {
  deleteContents,
  holdChildren,
  holdContents,
  holdForRule,
  insertContents,
} from '../../server/catalogue/contents-store.ts'
import { ensureScopes, findDidsNamed, insertDids, type NamedDid } from '../../server/catalogue/did-store.ts'
import type { Registered } from '../../server/catalogue/register.ts'
import { registerFiles } from '../../server/catalogue/register.ts'
import type { Context } from '../../server/context.ts'
import type { Database } from '../../server/database/database.ts'
import { type Binding, query, queryOne } from '../../server/database/sql.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { reevaluateRules, shrinkRules } from '../../server/rules/reevaluate.ts'
import { insertRule } from '../../server/rules/store.ts'
import { type Rse, StorageDirectory } from '../../server/storages/directory.ts'
import { resolveExpression } from '../../server/storages/expression.ts'
import { insertRse, putLink } from '../../server/storages/store.ts'
import { ensureGrant, refreshReady, setBundleGrants } from '../../server/tokens/grant-store.ts'
import { ensureIssuer } from '../../server/tokens/issuers.ts'
import { claimOnLink, linksToServe } from '../../server/transfers/claim.ts'
import type { ClaimedRow } from '../../server/transfers/claim-places.ts'
import { insertSession } from '../../server/transfers/session-store.ts'
import { ensureSourceSet } from '../../server/transfers/source-set-store.ts'
import { Wake } from '../../server/wake.ts'
import { parseDid } from '../../shared/domain/names.ts'
import { silentLogger } from '../../shared/runtime/logger.ts'
import type { Random } from '../../shared/runtime/random.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { ManualClock } from '../unit/http-manual-clock.ts'

/** Fences of the first epoch. */
export const FENCE_BASE = 2 ** 32

/** An attempt that failed at its destination and may be tried again. */
export const FAILURE = {
  scope: 'DESTINATION',
  phase: 'TRANSFER',
  code: 'STORAGE_ERROR',
  message: '500',
  retryable: true,
} as const
const YEAR_MS = 31_536_000_000
export const WORKER = { issuer: 'https://issuer.example.org', client: 'pool' }
/** Backoff is random: half of the most it may be. */
const MIDDLE: Random = {
  uuid: () => '00000000-0000-4000-8000-000000000000',
  bytes: count => Buffer.alloc(count),
  fraction: () => 0.5,
}

/** Of storages that bear anything. */
const PLAIN = {
  maxStaging: 1000,
  maxDeletions: 1000,
  checksumPolicy: 'destination',
  watchdogs: {},
  tape: false,
  multihop: false,
  capacityBytes: null,
  minFreeBytes: null,
  keepRegistered: true,
  tombstoneDelaySeconds: null,
} as const

interface Plan {
  readonly rses: readonly string[]
  /** Active transfers that each storage takes, in and out, and each link. */
  readonly storageLimit?: number
  readonly linkLimit?: number
  /** Whether links' limits are learnt; default: they are as given. */
  readonly optimize?: boolean
}

/** One VO with storages, all linked with each other, and what a test does to them. Time stands until the test moves it. */
export class World {
  readonly context: Context
  readonly clock = new ManualClock()
  /** Whether rules from now on want their copies on tape. */
  archive = false
  /** Whether what rules from now on brought goes at once when they end. */
  purgeReplicas = false
  /** How rules from now on choose. */
  grouping: 'ALL' | 'DATASET' | 'NONE' = 'DATASET'
  weight: string | null = null
  /** Where their files may come from. */
  sources: string | null = null
  readonly db: Database
  readonly voId: number
  readonly accountId: number
  readonly issuerId: number
  /** What background work logged as errors. */
  readonly #errors: object[] = []

  private constructor(db: Database, keys: { voId: number; accountId: number; issuerId: number }) {
    this.db = db
    this.voId = keys.voId
    this.accountId = keys.accountId
    this.issuerId = keys.issuerId
    this.context = {
      db,
      clock: this.clock,
      random: MIDDLE,
      log: { ...silentLogger, error: fields => void this.#errors.push(fields) },
      storages: new StorageDirectory(db.read, this.clock),
      wake: new Wake(),
    }
  }

  static async make(
    db: Database,
    { rses, storageLimit = 1000, linkLimit = 1000, optimize = false }: Plan,
  ): Promise<World> {
    const keys = await db.write(async executor => {
      const voId = await ensureVo(executor, 'vo')
      await insertAccount(executor, voId, 'someone', 0)
      const account = await queryOne<{ id: number }>(executor, 'SELECT id FROM accounts')
      const ids = []
      for (const name of rses) {
        const common = { name, voId, prefix: '/data', basePath: '/', audience: `https://${name}.example.org`, now: 0 }
        const limits = { ...PLAIN, maxInbound: storageLimit, maxOutbound: storageLimit }
        ids.push(await insertRse(executor, { ...common, ...limits, layout: 'dataset', checksum: 'adler32' }))
      }
      for (const sourceId of ids) {
        for (const destinationId of ids) {
          if (sourceId === undefined || destinationId === undefined || sourceId === destinationId) continue
          await putLink(executor, { sourceId, destinationId, distance: 1, maxActive: linkLimit, optimize })
        }
      }
      return { voId, accountId: account?.id ?? 0, issuerId: await ensureIssuer(executor, WORKER.issuer) }
    })
    return new World(db, keys)
  }

  /** What `make` made, in another process's or a copied database. */
  static async of(db: Database): Promise<World> {
    const key = async (table: string): Promise<number> =>
      (await queryOne<{ id: number }>(db.read, `SELECT min(id) AS id FROM ${table}`))?.id ?? 0
    return new World(db, { voId: await key('vos'), accountId: await key('accounts'), issuerId: await key('issuers') })
  }

  /** The same, at another connection to its database. */
  on(db: Database): World {
    return new World(db, this)
  }

  async rse(name: string): Promise<Rse> {
    return this.context.storages.byName(EVERYTHING, name)
  }

  /** A dataset of files that are AVAILABLE at a storage. */
  async dataset(name: string, count: number, at: string): Promise<Registered> {
    const rse = await this.rse(at)
    const files = Array.from({ length: count }, (_, i) => ({ did: `s:${name}.f${i}`, bytes: 100 + i }))
    const registration = { rse, accountId: this.accountId, dataset: `s:${name}`, files, state: 'AVAILABLE' as const }
    return this.db.write(executor => registerFiles(executor, { ...registration, now: this.clock.now() }))
  }

  /** One more file of a dataset, AVAILABLE at a storage. */
  async attach(dataset: string, file: string, at: string): Promise<void> {
    const rse = await this.rse(at)
    const files = [{ did: `s:${file}`, bytes: 7 }]
    const registration = { rse, accountId: this.accountId, dataset: `s:${dataset}`, files, state: 'AVAILABLE' as const }
    await this.db.write(executor => registerFiles(executor, { ...registration, now: this.clock.now() }))
  }

  /** A container of datasets that are there. */
  async container(name: string, datasets: readonly string[]): Promise<void> {
    await this.db.write(async executor => {
      const scopes = await ensureScopes(executor, this.voId, ['s'])
      const row = { scope_id: scopes.get('s') ?? 0, name, type: 'CONTAINER' as const, bytes: 0, files: 0 }
      await insertDids(executor, [{ ...row, adler32: null, md5: null }], this.accountId, this.clock.now())
      const found = await findDidsNamed(
        executor,
        [`s:${name}`, ...datasets].map(did => parseDid(did)),
      )
      const [parent = 0, ...children] = found.sort((a, b) => a.position - b.position).map(({ id }) => id)
      await insertContents(executor, parent, children)
    })
  }

  /** What is there is attached to a collection that is there, as a manager does it. */
  async put(parent: string, ...children: string[]): Promise<void> {
    const [collection, ids] = await this.#named(parent, children)
    await this.db.write(async executor => {
      await holdContents(executor, collection)
      await holdChildren(executor, collection, ids)
      const attached = await insertContents(executor, collection.id, ids)
      if (attached.length > 0) await reevaluateRules(executor, collection, attached)
    })
  }

  /** Likewise detached. */
  async detach(parent: string, ...children: string[]): Promise<void> {
    const [collection, ids] = await this.#named(parent, children)
    await this.db.write(async executor => {
      await holdContents(executor, collection)
      const detached = await deleteContents(executor, collection.id, ids)
      if (detached.length > 0) await shrinkRules(executor, collection.id, detached)
    })
  }

  async #named(parent: string, children: readonly string[]): Promise<[NamedDid, number[]]> {
    const dids = [parent, ...children].map(name => parseDid(`s:${name}`))
    const found = (await findDidsNamed(this.db.read, dids)).sort((a, b) => a.position - b.position)
    const [collection, ...rest] = found
    if (collection === undefined || rest.length < children.length) throw new Error(`no ${parent}, ${children}`)
    return [collection, rest.map(({ id }) => id)]
  }

  async didId(name: string): Promise<number> {
    return this.number('SELECT id AS n FROM dids WHERE name = :name', { name })
  }

  /** Its key; the rule is not evaluated yet. */
  async addRule(did: string, expression: string, copies: number, priority = 3, activity = 'test'): Promise<number> {
    const common = {
      voId: this.voId,
      accountId: this.accountId,
      activity,
      comment: null,
      archive: this.archive,
      purgeReplicas: this.purgeReplicas,
      grouping: this.grouping,
      weight: this.weight,
      sourceExpression: this.sources,
      state: 'REPLICATING' as const,
      ignoreQuota: false,
      replaces: null,
      expiresAt: null,
    }
    const didId = await this.didId(did)
    const rule = { ...common, didId, expression, copies, priority, now: this.clock.now() }
    const rses = await this.context.storages.ofVo(this.voId)
    const named = this.sources === null ? [] : resolveExpression(this.sources, rses)
    const ids = rses.filter(rse => named.includes(rse.name)).map(rse => rse.id)
    const id = await this.db.write(async executor => {
      if (this.sources !== null) await ensureSourceSet(executor, this.voId, this.sources, ids)
      await holdForRule(executor, didId)
      return insertRule(executor, rule)
    })
    if (id === undefined) throw new Error('there is such a rule already')
    return id
  }

  /** Lets the evaluator work until it has nothing more to do. */
  async evaluate(): Promise<void> {
    await this.run(ruleEvaluator)
  }

  /** Lets a background service work until it sleeps. Throws what it would log as errors. */
  async run(service: (context: Context) => Service): Promise<void> {
    const running = service(this.context)
    await running.start()
    await this.clock.untilSleeping()
    await running.stop()
    if (this.#errors.length > 0) throw new AggregateError(this.#errors.splice(0).map(causeOf), `${running.name} failed`)
  }

  /** Gives every bundle grants that can be used, as the token room would. */
  async grantAll(): Promise<void> {
    await this.db.write(async executor => {
      const bundles = await query<{ id: number; source: number; destination: number }>(
        executor,
        `SELECT bundles.id, source.rse_id AS source, destination.rse_id AS destination FROM bundles
           JOIN directories AS source ON source.id = source_directory_id
           JOIN directories AS destination ON destination.id = destination_directory_id WHERE source_grant_id IS NULL`,
      )
      const grant = (rseId: number, purpose: 'read' | 'write'): Promise<number> => {
        const key = { issuerId: this.issuerId, client: 'server', voId: this.voId, rseId, audience: 'a', purpose }
        return ensureGrant(executor, { ...key, scopes: ['storage.read:/'] }, this.clock.now())
      }
      const rows = []
      for (const { id, source, destination } of bundles) {
        rows.push({ bundle: id, source: await grant(source, 'read'), destination: await grant(destination, 'write') })
      }
      await setBundleGrants(executor, rows)
      const expiresAt = this.clock.now() + YEAR_MS
      await query(
        executor,
        "UPDATE grants SET state = 'LIVE', generation = 1, expires_at = :expiresAt WHERE state = 'WANTED'",
        { expiresAt },
      )
      await refreshReady(
        executor,
        rows.flatMap(row => [row.source, row.destination]),
      )
    })
  }

  async openSession(leaseMs = 20_000): Promise<number> {
    const now = this.clock.now()
    const session = { worker: 'w', publicJwk: '{}', expiresAt: now + leaseMs }
    return this.db.write(executor => insertSession(executor, WORKER, session, now))
  }

  /** Claims on the links in their order, as a worker's request does. */
  async claim(sessionId: number, limit: number, fenceBase = FENCE_BASE): Promise<ClaimedRow[]> {
    const claimed: ClaimedRow[] = []
    for (const link of await linksToServe(this.db.read, {}, this.clock.now())) {
      const claimant = { sessionId, fenceBase }
      const left = limit - claimed.length
      if (left > 0) {
        claimed.push(
          ...(await this.db.write(executor => claimOnLink(executor, link, claimant, left, this.clock.now()))),
        )
      }
    }
    return claimed
  }

  async rows<Row>(sql: string, bindings: Readonly<Record<string, Binding>> = {}): Promise<Row[]> {
    return query<Row>(this.db.read, sql, bindings)
  }

  /** The column `n` of the only row. */
  async number(sql: string, bindings: Readonly<Record<string, Binding>> = {}): Promise<number> {
    const [row] = await this.rows<{ n: number }>(sql, bindings)
    if (row === undefined) throw new Error(`no row: ${sql}`)
    return row.n
  }

  async change(sql: string, bindings: Readonly<Record<string, Binding>> = {}): Promise<void> {
    await this.db.write(executor => query(executor, sql, bindings))
  }
}

function causeOf(logged: object): unknown {
  return 'err' in logged ? logged.err : logged
}
