import { deleteLimit, putLimit } from '../../server/accounts/limit-store.ts'
import { insertAccount } from '../../server/accounts/store.ts'
import { holdFilesOf } from '../../server/catalogue/hold-files.ts'
import { registerFiles } from '../../server/catalogue/register.ts'
import type { Context } from '../../server/context.ts'
import type { Database } from '../../server/database/database.ts'
import { condemnReplicas, FOUND, isAnyAtFault, loseReplicas } from '../../server/faults/store.ts'
import { ruleAligner } from '../../server/rules/align.ts'
import { ruleEvaluator } from '../../server/rules/evaluate.ts'
import { ruleNoter, ruleReplacer } from '../../server/rules/history.ts'
import { removeRule, replaceRule, updateRule } from '../../server/rules/life.ts'
import { repairAt, repairNow, repairQuota } from '../../server/rules/step-store.ts'
import { addToRules } from '../../server/rules/store.ts'
import { submitRules } from '../../server/rules/submit.ts'
import { ruleExpirer, ruleRepairer } from '../../server/rules/upkeep.ts'
import { updateRse } from '../../server/storages/store.ts'
import { applyOutcomes } from '../../server/transfers/outcomes.ts'
import { transferReleaser } from '../../server/transfers/plan.ts'
import { WaybillError } from '../../shared/domain/errors.ts'
import type { ReplicaState } from '../../shared/domain/rule-state.ts'
import type { Service } from '../../shared/runtime/services.ts'
import { brokenInvariants } from './invariants.ts'
import { Model, type ModelRule } from './model.ts'
import { type Action, type Deed, STORAGES } from './model-deeds.ts'
import { see } from './seen.ts'
import { FAILURE, World } from './world.ts'

const HOUR_MS = 3_600_000
const YEAR_MS = 365 * 24 * HOUR_MS
/** Longer than anything waits before it is tried again. */
const LONG_MS = 7 * HOUR_MS
const RETRY = { maxAttempts: 2, soon: 5_000, later: 60_000, maxDelay: 60_000 }
/** More than one server's work takes to come to rest. */
const MOST_ROUNDS = 30

/** In the order in which they find most to do. */
const SERVICES = [ruleExpirer, ruleReplacer, ruleEvaluator, ruleAligner, ruleRepairer, transferReleaser, ruleNoter]

/** The work was cut off, as by a crash. */
class CutOff extends Error {}

/** A store and a model that the same is done to. */
export class Story {
  readonly #world: World
  readonly #model = new Model()
  readonly #accounts = new Map<string, number>()
  readonly #attempts = new Map<number, number>()
  #session = 0
  #made = 0
  /** What was done since the last comparison, for the words of a difference. */
  #doing = ''

  private constructor(world: World) {
    this.#world = world
  }

  static async begin(db: Database): Promise<Story> {
    const story = new Story(await World.make(db, { rses: STORAGES }))
    const { voId } = story.#world
    await db.write(executor => insertAccount(executor, voId, 'other', 0))
    for (const row of await story.#world.rows<{ id: number; name: string }>('SELECT id, name FROM accounts')) {
      story.#accounts.set(row.name, row.id)
    }
    story.#session = await story.#world.openSession(YEAR_MS)
    await story.#make('A', 3)
    await story.#make('A', 2)
    await story.#make('B', 2)
    for (const [name, ...children] of [
      ['inner', 'd1'],
      ['outer', 'inner', 'd2'],
    ] as const) {
      await story.#world.container(
        name,
        children.map(child => `s:${child}`),
      )
      story.#model.containers.add(name)
      story.#model.contents.set(name, new Set(children))
    }
    return story
  }

  /** Throws what differs. */
  async play({ deed, then }: Action): Promise<void> {
    this.#doing = JSON.stringify(deed)
    try {
      await this.#do(deed)
    } catch (error) {
      if (!(error instanceof WaybillError)) throw error
    }
    await this.#look(false)
    if (then === 'all') await this.#rest(false)
    else if (then !== 'nothing') await this.#work(then)
    this.#demand(await brokenInvariants(this.#world))
  }

  /** All that can be brought is; what is stuck is tried until that changes nothing. */
  async end(): Promise<void> {
    this.#doing = 'in the end'
    for (let round = 0; round < 3; round += 1) {
      await this.#wait(LONG_MS)
      await this.#rest(false)
      await this.#claim(1000)
      await this.#report('done', 1)
      await this.#look(false)
      await this.#rest(false)
    }
    await this.#rest(true)
    this.#demand(await brokenInvariants(this.#world))
  }

  #demand(differences: readonly string[]): void {
    if (differences.length > 0) throw new Error(`${this.#doing}:\n${differences.join('\n')}`)
  }

  async #look(worked: boolean): Promise<void> {
    this.#demand(this.#model.look(await see(this.#world), worked))
  }

  /** Background work until there is none left. */
  async #rest(tried: boolean): Promise<void> {
    await this.#work(Infinity)
    this.#demand(this.#model.atRest(tried))
  }

  /** So many transactions, each of which is looked at; then it is cut off. */
  async #work(most: number): Promise<void> {
    let left = most
    const { db } = this.#world
    const write: Database['write'] = async work => {
      if (left <= 0) throw new CutOff()
      left -= 1
      const answer = await db.write(work)
      await this.#look(true)
      return answer
    }
    for (let round = 0; round < MOST_ROUNDS && left > 0; round += 1) {
      const before = JSON.stringify(this.#traces())
      for (const service of SERVICES) await this.#run(context => service({ ...context, db: { ...db, write } }))
      if (JSON.stringify(this.#traces()) === before) return
    }
    if (left > 0) throw new Error(`${this.#doing}: background work comes to no rest`)
  }

  #traces(): unknown {
    const { rules, locks, choices, replicas } = this.#model.last
    return [[...rules], [...locks], choices, [...replicas]]
  }

  async #run(service: (context: Context) => Service): Promise<void> {
    try {
      await this.#world.run(service)
    } catch (error) {
      const causes: unknown[] = error instanceof AggregateError ? error.errors : [error]
      const own = causes.find(cause => !(cause instanceof CutOff))
      if (own !== undefined) throw own
    }
  }

  async #do(deed: Deed): Promise<void> {
    switch (deed.do) {
      case 'make': {
        const name = await this.#make(deed.at, deed.files)
        const containers = [...this.#model.containers]
        if (deed.parent !== null) await this.#attach(pick(containers, deed.parent), name)
        return
      }
      case 'attach': {
        const parent = pick([...this.#model.contents.keys()], deed.parent)
        const container = this.#model.containers.has(parent ?? '')
        return this.#attach(
          parent,
          pick([...(container ? this.#model.contents : this.#model.bytes).keys()], deed.child),
        )
      }
      case 'detach': {
        const pairs = [...this.#model.contents].flatMap(([parent, children]) =>
          [...children].map(child => [parent, child] as const),
        )
        const [parent = '', child = ''] = pick(pairs, deed.which) ?? []
        if (parent === '') return
        await this.#world.detach(parent, child)
        this.#model.contents.get(parent)?.delete(child)
        return
      }
      case 'register':
        return this.#register(pick([...this.#model.bytes.keys()], deed.file) ?? '', deed.at)
      case 'rule':
        return this.#add(deed)
      case 'limit':
        return this.#limit(deed)
      case 'write': {
        const { id } = await this.#world.rse(deed.at)
        await this.#world.db.write(async executor => {
          await updateRse(executor, id, { availabilityWrite: deed.open })
          if (deed.open) await repairAt(executor, id, this.#now)
        })
        this.#world.context.storages.forget()
        if (deed.open) this.#model.closed.delete(deed.at)
        else this.#model.closed.add(deed.at)
        return
      }
      case 'claim':
        return this.#claim(deed.limit)
      case 'report':
        await this.#claim(3)
        return this.#report(deed.result, deed.share)
      case 'condemn':
        return this.#fault(deed.which, condemnReplicas, (file, rse) => this.#model.condemned(file, rse))
      case 'lose':
        return this.#fault(deed.which, loseReplicas, (file, rse, state) => this.#model.lost(file, rse, state))
      case 'wait':
        return this.#wait(deed.seconds * 1000)
      default: {
        const rule = pick(
          [...this.#model.rules].filter(([, { going }]) => !going),
          deed.which,
        )
        if (rule !== undefined) await this.#change(...rule, deed)
      }
    }
  }

  async #wait(ms: number): Promise<void> {
    // What nothing has tried since it got stuck has no date yet.
    await this.#run(ruleRepairer)
    await this.#look(true)
    await this.#world.clock.advance(ms)
  }

  async #make(at: string, files: number): Promise<string> {
    const name = `d${this.#made}`
    const given = Array.from({ length: files }, (_, i) => ({ did: `s:f${this.#made}.${i}`, bytes: 10 * 2 ** i }))
    const rse = await this.#world.rse(at)
    const { accountId } = this.#world
    this.#made += 1
    const registration = { rse, accountId, dataset: `s:${name}`, files: given, state: 'AVAILABLE' as const }
    await this.#world.db.write(executor => registerFiles(executor, { ...registration, now: this.#now }))
    const names = given.map(({ did, bytes }) => ({ file: did.slice(2), bytes }))
    this.#model.contents.set(name, new Set(names.map(({ file }) => file)))
    for (const { file, bytes } of names) {
      this.#model.bytes.set(file, bytes)
      this.#model.arrived(file, at, false)
    }
    return name
  }

  get #now(): number {
    return this.#world.clock.now()
  }

  async #attach(parent: string | undefined, child: string | undefined): Promise<void> {
    if (parent === undefined || child === undefined || this.#model.isBelow(parent, child)) return
    await this.#world.put(parent, child)
    this.#model.contents.get(parent)?.add(child)
  }

  async #register(file: string, at: string): Promise<void> {
    const rse = await this.#world.rse(at)
    const { accountId } = this.#world
    const files = [{ did: `s:${file}`, bytes: this.#model.bytes.get(file) ?? 0 }]
    const registration = { rse, accountId, dataset: undefined, files, state: 'AVAILABLE' as const, now: this.#now }
    await this.#world.db.write(executor => registerFiles(executor, registration))
    const before = this.#model.last.replicas.get(`${file}@${at}`)
    if (before?.state !== 'BAD' && before?.held !== true) this.#model.arrived(file, at, true)
  }

  #caller(name: string) {
    return { id: this.#accounts.get(name) ?? 0, name, voId: this.#world.voId, vo: 'vo' }
  }

  async #add({
    did: at,
    account,
    expression,
    copies,
    grouping,
    lifetime,
  }: Extract<Deed, { do: 'rule' }>): Promise<void> {
    // Of a file now and then.
    const did =
      pick([...this.#model.contents.keys(), ...this.#model.contents.keys(), ...this.#model.bytes.keys()], at) ?? ''
    const seconds = lifetime === null ? {} : { lifetime }
    const request = {
      dids: [`s:${did}`],
      copies,
      expression,
      grouping,
      activity: 'test',
      priority: 3,
      archive: false,
      askApproval: false,
      purgeReplicas: false,
      ...seconds,
    }
    const rses = await this.#world.context.storages.all()
    const [id = 0] = await this.#world.db.write(executor =>
      submitRules(executor, rses, this.#caller(account), request, this.#now),
    )
    this.#model.rules.set(id, {
      ...{ did, account, copies, grouping, rses: expression.split('|') },
      ...{ suspended: false, locked: false, going: false, ignoresQuota: false, replaces: null },
      expiresAt: lifetime === null ? null : this.#now + lifetime * 1000,
    })
  }

  async #change(id: number, rule: ModelRule, deed: Deed): Promise<void> {
    const { db } = this.#world
    const update = (change: Parameters<typeof updateRule>[2]): Promise<void> =>
      db.write(executor => updateRule(executor, id, change, 'somebody', this.#now))
    switch (deed.do) {
      case 'remove':
        await db.write(executor => removeRule(executor, id, 'somebody', this.#now))
        this.#model.remove(id)
        return
      case 'reduce':
        return this.#replace(id, rule, { copies: rule.copies - 1 })
      case 'move':
        return this.#replace(id, rule, { expression: deed.expression })
      case 'lifetime':
        await update({ expiresAt: deed.seconds === null ? null : this.#now + deed.seconds * 1000 })
        rule.expiresAt = deed.seconds === null ? null : this.#now + deed.seconds * 1000
        return
      case 'suspend':
        await update({ suspended: deed.suspended })
        rule.suspended = deed.suspended
        return
      case 'lock':
        await update({ locked: deed.locked })
        rule.locked = deed.locked
        return
      case 'repair':
        await db.write(executor => repairNow(executor, id, this.#now))
        return
    }
  }

  async #replace(id: number, old: ModelRule, request: { expression?: string; copies?: number }): Promise<void> {
    const { copies = old.copies, expression } = request
    if (copies === 0) return
    const rses = await this.#world.context.storages.all()
    const shown = { id, did: `s:${old.did}`, account: old.account, vo: 'vo' }
    const replacing = await this.#world.db.write(executor =>
      replaceRule(executor, rses, shown, request, 'somebody', this.#now),
    )
    const named = expression === undefined ? old.rses : expression.split('|')
    const was = this.#model.last.rules.get(id)
    const fewer = expression === undefined && was?.stage === 'EXPANDED' && was.error === null
    const within = copies <= old.copies && named.every(rse => old.rses.includes(rse))
    this.#model.rules.set(replacing, {
      ...{ ...old, copies, rses: named, suspended: false, locked: false, replaces: id },
      ignoresQuota: fewer || (old.ignoresQuota && within),
    })
  }

  async #limit({ account, expression, bytes }: Extract<Deed, { do: 'limit' }>): Promise<void> {
    const { voId, db } = this.#world
    const accountId = account === null ? undefined : this.#accounts.get(account)
    const limit = { voId, accountId, expression }
    await db.write(async executor => {
      if (bytes === 'none') await deleteLimit(executor, limit)
      else await putLimit(executor, { ...limit, bytes: bytes === 'without' ? null : Number(bytes) }, this.#now)
      await repairQuota(executor, { voId, accountId }, this.#now)
    })
    const key = `${account} ${expression}`
    if (bytes === 'none') this.#model.limits.delete(key)
    else {
      const most = bytes === 'without' ? Infinity : Number(bytes)
      this.#model.limits.set(key, { account: account ?? undefined, rses: expression.split('|'), bytes: most })
    }
  }

  async #claim(limit: number): Promise<void> {
    await this.#world.grantAll()
    await this.#world.claim(this.#session, limit)
    await this.#look(false)
  }

  async #report(result: 'done' | 'failed' | 'again', share: number): Promise<void> {
    const held = await this.#world.rows<{
      id: number
      fence: number
      attempts: number
      cancelled: number | boolean
      file: string
      rse: string
    }>(
      `SELECT transfers.id, fence, attempts, cancel_requested AS cancelled, dids.name AS file, rses.name AS rse FROM transfers
         JOIN replicas ON replicas.id = replica_id JOIN dids ON dids.id = file_id JOIN rses ON rses.id = rse_id
        WHERE session_id = :session ORDER BY transfers.id`,
      { session: this.#session },
    )
    const some = held.filter((_, i) => i % share === 0)
    const numbers = { mode: 'pull', durationMs: 1, endedMsAgo: 0, bytes: 1, cleaned: false, left: 'nothing' } as const
    const outcomes = some.map(({ id: transfer, fence }) => ({
      ...{ transfer, fence, ...numbers },
      ...(result === 'done'
        ? { result }
        : { result: 'failed' as const, error: { ...FAILURE, retryable: result === 'again' } }),
    }))
    const copied = await isAnyAtFault(this.#world.db.read)
    await applyOutcomes(this.#world.context, RETRY, this.#session, outcomes)
    for (const { id, cancelled, file, rse } of some) {
      const attempts = (this.#attempts.get(id) ?? 0) + 1
      this.#attempts.set(id, attempts)
      if (result === 'done') this.#model.arrived(file, rse, copied)
      else if (result === 'failed' || cancelled || attempts >= RETRY.maxAttempts) this.#model.failed(file, rse)
    }
  }

  /** Something is found, or said, of a good replica. */
  async #fault(
    which: number,
    work: typeof condemnReplicas,
    then: (file: string, rse: string, state: ReplicaState) => void,
  ): Promise<void> {
    const rows = await this.#world.rows<{ id: number; file: string; rse: string }>(
      `SELECT replicas.id, dids.name AS file, rses.name AS rse FROM replicas JOIN dids ON dids.id = file_id JOIN rses ON rses.id = rse_id
        WHERE replicas.state = 'AVAILABLE' ORDER BY replicas.id`,
    )
    const replica = pick(rows, which)
    if (replica === undefined) return
    const fault = { ...FOUND, replica_id: replica.id, transfer_id: null, code: 'SOURCE_CORRUPT', message: 'not that' }
    await this.#world.db.write(async executor => {
      await holdFilesOf(executor, [replica.id])
      await addToRules(executor, await work(executor, [fault], this.#now), this.#now)
    })
    const [now] = await this.#world.rows<{ state: ReplicaState }>(`SELECT state FROM replicas WHERE id = ${replica.id}`)
    then(replica.file, replica.rse, now?.state ?? 'UNAVAILABLE')
  }
}

function pick<T>(all: readonly T[], which: number): T | undefined {
  return all[which % Math.max(1, all.length)]
}
