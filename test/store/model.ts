import type { LockState, ReplicaState } from '../../shared/domain/rule-state.ts'
import type { Seen, SeenChoice, SeenLock, SeenReplica, SeenRule, Uses } from './seen.ts'

export interface ModelRule {
  readonly did: string
  readonly account: string
  /** That its expression names. */
  readonly rses: readonly string[]
  readonly copies: number
  readonly grouping: 'ALL' | 'DATASET' | 'NONE'
  suspended: boolean
  locked: boolean
  expiresAt: number | null
  /** It is being taken away. */
  going: boolean
  ignoresQuota: boolean
  replaces: number | null
}

interface Limit {
  /** Undefined: every account, where none of its own limits names the storage. */
  readonly account: string | undefined
  readonly rses: readonly string[]
  readonly bytes: number
}

const NOTHING: Uses = { files: 0, bytes: 0, reserved: 0 }
const EMPTY: Seen = {
  now: 0,
  rules: new Map(),
  replicas: new Map(),
  locks: new Map(),
  choices: [],
  usage: new Map(),
  totals: new Map(),
}

/**
 * What rules are to do, told without the server: what follows from what was done is worked out here; where the server may choose (which
 * storage, when it tries again) what was seen is taken over if it was allowed. Each `look` compares with the one before, one transaction
 * earlier, and answers the differences.
 */
export class Model {
  /** Of files. */
  readonly bytes = new Map<string, number>()
  /** Of collections. */
  readonly contents = new Map<string, Set<string>>()
  readonly containers = new Set<string>()
  readonly rules = new Map<number, ModelRule>()
  readonly limits = new Map<string, Limit>()
  /** Storages that are not written to. */
  readonly closed = new Set<string>()
  /** As it must be now, but for what background work does. */
  last: Seen = EMPTY
  #differences: string[] = []

  datasetsBelow(did: string): string[] {
    if (!this.containers.has(did)) return [did]
    const below = [...(this.contents.get(did) ?? [])].flatMap(child => this.datasetsBelow(child))
    return [...new Set(below)]
  }

  /** Of a file itself. */
  filesBelow(did: string): string[] {
    const files = this.datasetsBelow(did).flatMap(unit =>
      this.bytes.has(unit) ? [unit] : [...(this.contents.get(unit) ?? [])],
    )
    return [...new Set(files)]
  }

  bytesOf(files: readonly string[]): number {
    return files.reduce((sum, file) => sum + (this.bytes.get(file) ?? 0), 0)
  }

  /** Whether a collection is, or is below, the other. */
  isBelow(did: string, top: string): boolean {
    return did === top || [...(this.contents.get(top) ?? [])].some(child => this.isBelow(did, child))
  }

  /** The file is there now: it was brought, or registered. `copied`: and is copied at once where it is stuck. */
  arrived(file: string, rse: string, copied: boolean): void {
    this.#happened(file, rse, 'AVAILABLE', () => 'OK')
    if (!copied) return
    for (const other of this.last.replicas.values()) {
      const stuck = [...this.last.locks.values()].some(
        lock => lock.file === file && lock.rse === other.rse && lock.state === 'STUCK',
      )
      const may = other.state === 'UNAVAILABLE' && !this.closed.has(other.rse) && this.#wanted(other, this.last)
      if (other.file === file && stuck && may) this.#happened(file, other.rse, 'COPYING', () => 'REPLICATING')
    }
  }

  /** No attempt is left, or nobody wants it any more. */
  failed(file: string, rse: string): void {
    this.#happened(file, rse, 'UNAVAILABLE', () => 'STUCK')
  }

  condemned(file: string, rse: string): void {
    this.#happened(file, rse, 'BAD', () => 'STUCK')
  }

  /**
   * It does not lie there: it is brought again at once, if somebody wants it and anybody has it. What was only on its way somewhere may
   * have been on its way from here: then as it is `seen`.
   */
  lost(file: string, rse: string, seen: ReplicaState): void {
    this.#happened(file, rse, 'UNAVAILABLE', () => 'STUCK')
    const isThere = [...this.last.replicas.values()].some(other => other.file === file && other.state === 'AVAILABLE')
    const again = isThere || (this.#hope(file, rse) && seen === 'COPYING')
    if (again && this.#wanted({ file, rse }, this.last)) this.#happened(file, rse, 'COPYING', () => 'REPLICATING')
    else this.#letGoOf(file, rse)
  }

  #letGoOf(file: string, rse: string): void {
    const replica = this.last.replicas.get(`${file}@${rse}`)
    if (replica === undefined || replica.locks > 0) return
    const replicas = new Map(this.last.replicas).set(`${file}@${rse}`, { ...replica, tombstone: true })
    this.last = { ...this.last, replicas }
  }

  #happened(file: string, rse: string, state: ReplicaState, lockState: () => LockState): void {
    const place = `${file}@${rse}`
    const before = this.last.replicas.get(place) ?? { file, rse, locks: 0, tombstone: false, kept: false }
    const replica: SeenReplica = { ...before, state, open: 0, coming: false, held: false, cancelled: false }
    const locks = [...this.last.locks].map(([key, lock]): [string, SeenLock] =>
      lock.file === file && lock.rse === rse ? [key, { ...lock, state: lockState() }] : [key, lock],
    )
    this.last = { ...this.last, replicas: new Map(this.last.replicas).set(place, replica), locks: new Map(locks) }
  }

  /** A rule goes; what it was to replace is left to the one that replaces it. */
  remove(id: number): void {
    const rule = this.rules.get(id)
    if (rule === undefined) return
    rule.going = true
    for (const other of this.rules.values()) {
      if (other.replaces === id && !other.going && rule.replaces !== null) other.replaces = rule.replaces
    }
  }

  /** `worked`: background work has done a transaction. Else all is as what was done has left it. */
  look(seen: Seen, worked: boolean): string[] {
    this.#differences = []
    this.#lookAtRules(seen)
    this.#lookAtReplicas(seen, worked)
    this.#lookAtLocks(seen, worked)
    this.#lookAtChoices(seen, worked)
    this.#lookAtUsage(seen)
    this.#lookAtTotals(seen)
    this.last = seen
    return this.#differences
  }

  #say(what: string, isSeen: unknown, mustBe: unknown): void {
    if (isSeen !== mustBe) this.#differences.push(`${what}: is ${isSeen}, must be ${mustBe}`)
  }

  #lookAtRules(seen: Seen): void {
    for (const [id, rule] of this.rules) {
      const now = seen.rules.get(id)
      if (rule.replaces !== null && now !== undefined && now.replaces !== rule.replaces)
        this.#replaced(id, rule, rule.replaces)
      this.#say(`what rule ${id} replaces`, now?.replaces ?? null, now === undefined ? null : rule.replaces)
    }
    for (const [id, rule] of this.rules) {
      if (this.#isDue(id, rule, seen.now) && seen.rules.get(id)?.stage === 'REMOVING') this.remove(id)
    }
    for (const [id, rule] of this.rules) {
      const now = seen.rules.get(id)
      if (now === undefined || now.stage === 'REMOVING') {
        if (!rule.going) this.#say(`rule ${id}`, 'going', 'kept')
        if (now === undefined) this.rules.delete(id)
        continue
      }
      if (rule.going) this.#say(`stage of rule ${id}`, now.stage, 'REMOVING')
      const locks = [...seen.locks.values()].filter(lock => lock.rule === id)
      for (const [counter, state] of [
        ['ok', 'OK'],
        ['replicating', 'REPLICATING'],
        ['stuck', 'STUCK'],
      ] as const) {
        this.#say(`locks ${state} of rule ${id}`, now[counter], locks.filter(lock => lock.state === state).length)
      }
      this.#say(`state of rule ${id}`, now.state, rule.suspended ? 'SUSPENDED' : stateOf(now))
    }
    for (const id of seen.rules.keys()) if (!this.rules.has(id)) this.#say(`rule ${id}`, 'there', 'gone')
  }

  /** A rule has taken the place of another, if that was there and may go. */
  #replaced(id: number, rule: ModelRule, replaced: number): void {
    this.#say(`state of rule ${id} that replaces ${replaced}`, this.last.rules.get(id)?.state, 'OK')
    const old = this.rules.get(replaced)
    if (old?.locked) this.#say(`rule ${replaced}, locked,`, 'replaced', 'kept')
    if (old !== undefined) old.going = true
    rule.replaces = old?.replaces ?? null
    rule.ignoresQuota = rule.ignoresQuota && (old?.ignoresQuota ?? false)
  }

  /** Its lifetime is over, and nothing keeps it. */
  #isDue(id: number, { expiresAt, locked }: ModelRule, now: number): boolean {
    const replaced = [...this.rules.values()].some(other => other.replaces === id && !other.going)
    return expiresAt !== null && expiresAt <= now && !locked && !replaced
  }

  #lookAtReplicas(seen: Seen, worked: boolean): void {
    const locked = new Map<string, number>()
    for (const { file, rse } of seen.locks.values())
      locked.set(`${file}@${rse}`, (locked.get(`${file}@${rse}`) ?? 0) + 1)
    for (const place of new Set([...this.last.replicas.keys(), ...seen.replicas.keys()])) {
      const before = this.last.replicas.get(place)
      const now = seen.replicas.get(place)
      if (now === undefined) {
        this.#say(`replica ${place}`, 'gone', before?.state)
        continue
      }
      const locks = locked.get(place) ?? 0
      if (!(worked && this.#mayBecome(before, now))) this.#say(`replica ${place}`, now.state, before?.state)
      this.#say(`locks on ${place}`, now.locks, locks)
      this.#say(
        `tombstone of ${place}`,
        now.tombstone,
        locks === 0 && !(now.kept && now.state === 'AVAILABLE') && this.#letGo(before, now),
      )
      this.#say(`open transfers to ${place}`, now.open, now.state === 'COPYING' ? 1 : 0)
      if (now.state === 'COPYING' && locks === 0 && !now.held)
        this.#say(`transfer to ${place}, which nobody wants,`, 'open', 'cancelled')
      if (now.cancelled && this.#wanted(now, seen))
        this.#say(`transfer to ${place}, which is wanted,`, 'to be cancelled', 'going on')
    }
  }

  /** Nobody has it any more, or it is no good to anybody. */
  #letGo(before: SeenReplica | undefined, now: SeenReplica): boolean {
    return (before?.locks ?? 0) > 0 || before?.tombstone === true || now.state === 'BAD'
  }

  /** By background work, in one transaction: it is wanted, or given up. */
  #mayBecome(before: SeenReplica | undefined, now: SeenReplica): boolean {
    if (before?.state === now.state) return true
    if (now.state === 'COPYING') return before?.state !== 'AVAILABLE' && before?.state !== 'BAD' && now.locks > 0
    if (now.state !== 'UNAVAILABLE' || before?.state !== 'COPYING') return false
    return !before.held && (!this.#wanted(now, this.last) || now.locks === 0 || this.#isHopeless(now))
  }

  /** Some rule that is not suspended has a lock on it. */
  #wanted({ file, rse }: { file: string; rse: string }, seen: Seen): boolean {
    return [...seen.locks.values()].some(
      lock => lock.file === file && lock.rse === rse && this.rules.get(lock.rule)?.suspended === false,
    )
  }

  /** A good replica is somewhere, or a transfer may bring one to another storage. */
  #hope(file: string, rse: string): boolean {
    return [...this.last.replicas.values()].some(
      other => other.file === file && (other.state === 'AVAILABLE' || (other.coming && other.rse !== rse)),
    )
  }

  /** Nobody has it, or nothing may be written where it is to come. */
  #isHopeless({ file, rse }: { file: string; rse: string }): boolean {
    return this.closed.has(rse) || !this.#hope(file, rse)
  }

  #lookAtLocks(seen: Seen, worked: boolean): void {
    for (const [key, lock] of seen.locks) {
      const before = this.last.locks.get(key)
      const replica = seen.replicas.get(`${lock.file}@${lock.rse}`)
      this.#say(
        `lock ${key} on a replica that is ${replica?.state}: OK`,
        lock.state === 'OK',
        replica?.state === 'AVAILABLE',
      )
      if (lock.state === 'REPLICATING') this.#say(`replica under lock ${key}`, replica?.state, 'COPYING')
      if (before === undefined) this.#newLock(key, lock, seen, worked)
      else if (before.state !== lock.state && !(worked && this.#mayMove(before, lock)))
        this.#say(`lock ${key}`, lock.state, before.state)
    }
    for (const [key, lock] of this.last.locks) {
      if (seen.locks.has(key)) continue
      const rule = this.rules.get(lock.rule)
      // The repair of what each file has by itself may have it elsewhere.
      const moved = rule?.grouping === 'NONE' && lock.state === 'STUCK'
      const kept = rule?.going === false && this.#chosen(lock, seen) && !moved
      if (kept || !worked) this.#say(`lock ${key}`, 'gone', lock.state)
    }
  }

  #newLock(key: string, lock: SeenLock, seen: Seen, worked: boolean): void {
    const rule = this.rules.get(lock.rule)
    const may = worked && rule !== undefined && !rule.suspended && !rule.going && this.#chosen(lock, seen)
    if (!may) this.#say(`lock ${key}`, lock.state, 'absent')
    else if (lock.state === 'STUCK')
      this.#say(`replica under new lock ${key}`, seen.replicas.get(`${lock.file}@${lock.rse}`)?.state, 'BAD')
  }

  /** By background work: its repair, or that it was given up. */
  #mayMove(before: SeenLock, now: SeenLock): boolean {
    const { file, rse, rule } = now
    if (now.state === 'STUCK')
      return before.state === 'REPLICATING' && (!this.#wanted(now, this.last) || this.#isHopeless(now))
    const repaired =
      before.state === 'STUCK' && now.state === 'REPLICATING' && this.rules.get(rule)?.suspended === false
    return repaired && this.#hope(file, rse) && !this.closed.has(rse)
  }

  /** The rule has chosen this storage for something at or below its DID that holds the file. */
  #chosen({ rule, file, rse }: SeenLock, seen: Seen): boolean {
    return seen.choices.some(
      choice => choice.rule === rule && (choice.rse ?? rse) === rse && this.filesBelow(choice.unit).includes(file),
    )
  }

  #lookAtChoices(seen: Seen, worked: boolean): void {
    const key = ({ rule, unit, rse }: SeenChoice): string => `${rule} ${unit} ${rse}`
    const before = new Set(this.last.choices.map(key))
    const now = new Set(seen.choices.map(key))
    for (const choice of this.last.choices) {
      const rule = this.rules.get(choice.rule)
      const kept = rule?.going === false && this.isBelow(choice.unit, rule.did)
      if (!now.has(key(choice)) && (kept || !worked)) this.#say(`choice ${key(choice)}`, 'gone', 'kept')
    }
    const added = seen.choices.filter(choice => !before.has(key(choice)))
    for (const choice of added) this.#newChoice(choice, seen, worked)
    for (const [id, rule] of this.rules) {
      if (rule.grouping === 'NONE') this.#lookAtFiles(id, rule, seen)
      else
        this.#lookAtUnits(
          id,
          rule,
          seen,
          added.filter(choice => choice.rule === id),
        )
    }
  }

  #newChoice(choice: SeenChoice, seen: Seen, worked: boolean): void {
    const rule = this.rules.get(choice.rule)
    const what = `choice of ${choice.rse} for ${choice.unit} by rule ${choice.rule}`
    const may = worked && rule !== undefined && !rule.suspended && !rule.going && this.isBelow(choice.unit, rule.did)
    if (!may) this.#say(what, 'there', 'absent')
    else if (rule.grouping === 'NONE') this.#say(what, choice.rse, null)
    if (
      seen.choices.filter(other => other.rule === choice.rule && other.unit === choice.unit && other.rse === choice.rse)
        .length > 1
    ) {
      this.#say(what, 'there twice', 'there')
    }
  }

  #lookAtUnits(id: number, rule: ModelRule, seen: Seen, added: readonly SeenChoice[]): void {
    const at = (choices: readonly SeenChoice[], unit?: string): Set<string> =>
      new Set(
        choices.flatMap(choice =>
          choice.rule === id && (unit ?? choice.unit) === choice.unit ? [choice.rse ?? 'anywhere'] : [],
        ),
      )
    const all = rule.grouping === 'ALL'
    // All of a rule that keeps it together is one.
    for (const unit of all ? [undefined] : new Set(added.map(choice => choice.unit))) {
      const before = at(this.last.choices, unit)
      const chosen = at(seen.choices, unit)
      if (chosen.size > rule.copies) this.#say(`storages of rule ${id} for ${unit ?? 'all'}`, chosen.size, rule.copies)
      const fresh = [...chosen].filter(rse => !before.has(rse))
      if (fresh.length > 0) this.#choseWell(id, rule, unit, chosen, fresh, seen)
    }
  }

  #lookAtFiles(id: number, rule: ModelRule, seen: Seen): void {
    const at = (from: Seen): Map<string, Set<string>> => {
      const places = new Map<string, Set<string>>()
      for (const lock of from.locks.values()) {
        if (lock.rule === id) places.set(lock.file, (places.get(lock.file) ?? new Set()).add(lock.rse))
      }
      return places
    }
    const before = at(this.last)
    for (const [file, chosen] of at(seen)) {
      if (chosen.size > rule.copies) this.#say(`storages of rule ${id} for ${file}`, chosen.size, rule.copies)
      const fresh = [...chosen].filter(rse => before.get(file)?.has(rse) !== true)
      // From where it was stuck it goes to any that has not failed it, and which have is not known here.
      const moved = [...(before.get(file) ?? [])].some(rse => !chosen.has(rse))
      const settled = moved ? new Set(rule.rses) : chosen
      if (fresh.length > 0) this.#choseWell(id, rule, file, settled, fresh, seen)
    }
  }

  /** These were chosen in the last transaction, by what was there before it: they are named, can take it, and hold most of it. */
  #choseWell(
    id: number,
    rule: ModelRule,
    unit: string | undefined,
    chosen: ReadonlySet<string>,
    fresh: readonly string[],
    seen: Seen,
  ): void {
    const files = this.filesBelow(unit ?? rule.did)
    for (const rse of fresh) {
      const what = `rule ${id} chose ${rse} for ${files}`
      if (!rule.rses.includes(rse)) this.#say(what, 'done', `for ${rule.rses} only`)
      if (this.closed.has(rse) && !this.#whole(files, rse)) this.#say(what, 'closed', 'open, or it holds all')
      for (const other of rule.rses.filter(
        candidate => !chosen.has(candidate) && this.#canTake(rule, unit, candidate, seen),
      )) {
        if (this.#there(files, other) > this.#there(files, rse))
          this.#say(what, 'holding less', `${other}, which holds more`)
      }
    }
  }

  #whole(files: readonly string[], rse: string): boolean {
    return files.length > 0 && files.every(file => this.last.replicas.get(`${file}@${rse}`)?.state === 'AVAILABLE')
  }

  /** Bytes of these that are there, or on their way. */
  #there(files: readonly string[], rse: string): number {
    const states = ['AVAILABLE', 'COPYING']
    return this.bytesOf(files.filter(file => states.includes(this.last.replicas.get(`${file}@${rse}`)?.state ?? '')))
  }

  /** With what is used after it: whatever else was chosen in the same transaction. */
  #canTake(rule: ModelRule, unit: string | undefined, rse: string, seen: Seen): boolean {
    const files = this.filesBelow(unit ?? rule.did)
    if (this.closed.has(rse) && !this.#whole(files, rse)) return false
    return this.#isFree(rule, unit, rse) || this.bytesOf(files) <= this.#left(rule.account, rse, seen)
  }

  /** With fewer copies than the rule that it replaces it may have what that one has there. */
  #isFree({ ignoresQuota, replaces, grouping }: ModelRule, unit: string | undefined, rse: string): boolean {
    if (!ignoresQuota || replaces === null) return false
    if (grouping === 'NONE') return this.last.locks.has(`${replaces} ${unit}@${rse}`)
    return this.last.choices.some(
      choice => choice.rule === replaces && choice.rse === rse && (unit ?? choice.unit) === choice.unit,
    )
  }

  #left(account: string, rse: string, seen: Seen): number {
    return Math.min(
      Infinity,
      ...this.#limitsAt(account, rse).map(limit => limit.bytes - this.#used(account, limit, seen)),
    )
  }

  #limitsAt(account: string, rse: string): { bytes: number; rses: readonly string[] }[] {
    const all = [...this.limits.values()]
    const own = all.filter(limit => limit.account === account)
    const covered = new Set(own.flatMap(limit => limit.rses))
    const common = all
      .filter(limit => limit.account === undefined)
      .map(limit => ({ ...limit, rses: limit.rses.filter(name => !covered.has(name)) }))
    return [...own, ...common].filter(limit => limit.rses.includes(rse))
  }

  #used(account: string, { rses }: { readonly rses: readonly string[] }, seen: Seen): number {
    return rses.reduce((sum, rse) => {
      const { bytes, reserved } = seen.usage.get(`${account}@${rse}`) ?? NOTHING
      return sum + bytes + reserved
    }, 0)
  }

  #lookAtUsage(seen: Seen): void {
    const sums = new Map<string, Uses>()
    const add = (key: string, more: Uses): void => {
      const { files, bytes, reserved } = sums.get(key) ?? NOTHING
      sums.set(key, { files: files + more.files, bytes: bytes + more.bytes, reserved: reserved + more.reserved })
    }
    const shares = [this.#shares(this.last), this.#shares(seen)] as const
    for (const [key, uses] of shares[1]) {
      const [id, rse] = key.split('@')
      const rule = this.rules.get(Number(id))
      if (rule === undefined || rse === undefined) continue
      add(`${rule.account}@${rse}`, uses)
      const before = shares[0].get(key) ?? NOTHING
      if (rule.ignoresQuota || uses.bytes + uses.reserved <= before.bytes + before.reserved) continue
      const left = this.#left(rule.account, rse, seen)
      if (left < 0) this.#say(`quota of ${rule.account} left at ${rse} after rule ${id} took more`, left, 'at least 0')
    }
    for (const key of new Set([...seen.usage.keys(), ...sums.keys()])) {
      this.#say(`usage of ${key}`, wordsOf(seen.usage.get(key)), wordsOf(sums.get(key)))
    }
  }

  /** What each rule locks and reserves, by `rule@rse`. */
  #shares(seen: Seen): Map<string, Uses> {
    const shares = new Map<string, Uses>()
    const add = (key: string, files: number, bytes: number, reserved: number): void => {
      const before = shares.get(key) ?? NOTHING
      shares.set(key, {
        files: before.files + files,
        bytes: before.bytes + bytes,
        reserved: before.reserved + reserved,
      })
    }
    for (const { rule, file, rse } of seen.locks.values()) add(`${rule}@${rse}`, 1, this.bytes.get(file) ?? 0, 0)
    for (const { rule, rse, reserved } of seen.choices) if (rse !== null) add(`${rule}@${rse}`, 0, 0, reserved)
    return shares
  }

  #lookAtTotals(seen: Seen): void {
    for (const [name, children] of this.contents) {
      if (this.containers.has(name)) continue
      const totals = seen.totals.get(name)
      this.#say(
        `totals of ${name}`,
        `${totals?.files} ${totals?.bytes}`,
        `${children.size} ${this.bytesOf([...children])}`,
      )
    }
  }

  /**
   * Of what was looked at last, when background work has nothing more to do. `tried`: time has passed, so that all that is stuck has been
   * tried again, and again.
   */
  atRest(tried: boolean): string[] {
    this.#differences = []
    for (const [id, rule] of this.rules) {
      const now = this.last.rules.get(id)
      if (now === undefined || rule.going) {
        this.#say(`rule ${id} that is going`, 'there', 'gone')
        continue
      }
      this.#mayStay(id, rule, now)
      if (!rule.suspended) this.#say(`stage of rule ${id}`, now.stage, 'EXPANDED')
      this.#holdsWhatItWants(id, rule, now)
      if (tried && !rule.suspended) this.#saysWhy(id, rule, now)
    }
    for (const [place, replica] of this.last.replicas) {
      if (replica.open > 0 && !replica.held && !this.#wanted(replica, this.last))
        this.#say(`transfer to ${place}`, 'open', 'cancelled')
    }
    return this.#differences
  }

  #mayStay(id: number, rule: ModelRule, now: SeenRule): void {
    if (this.#isDue(id, rule, this.last.now)) this.#say(`rule ${id}, expired,`, 'there', 'gone')
    const old = rule.replaces === null ? undefined : this.rules.get(rule.replaces)
    if (rule.replaces !== null && now.state === 'OK' && !old?.locked)
      this.#say(`rule ${rule.replaces}, replaced by ${id},`, 'there', 'gone')
  }

  #holdsWhatItWants(id: number, rule: ModelRule, now: SeenRule): void {
    const places = [...this.last.locks.values()].flatMap(lock => (lock.rule === id ? [`${lock.file}@${lock.rse}`] : []))
    const choices = this.last.choices.filter(choice => choice.rule === id)
    const short = rule.suspended || now.error !== null
    const wanted = new Set(choices.flatMap(({ unit, rse }) => this.filesBelow(unit).map(file => `${file}@${rse}`)))
    const files = new Set(this.filesBelow(rule.did))
    const none = rule.grouping === 'NONE'
    for (const place of places) {
      const [file = ''] = place.split('@')
      if (!(none ? files.has(file) : wanted.has(place))) this.#say(`lock of rule ${id} on ${place}`, 'there', 'gone')
    }
    for (const place of none || rule.suspended || now.error?.startsWith('QUOTA_EXCEEDED') ? [] : wanted) {
      if (!places.includes(place)) this.#say(`lock of rule ${id} on ${place}`, 'absent', 'there')
    }
    for (const unit of none ? files : this.datasetsBelow(rule.did)) {
      const count = none
        ? places.filter(place => place.startsWith(`${unit}@`)).length
        : choices.filter(choice => choice.unit === unit).length
      if (!short) this.#say(`storages of rule ${id} for ${unit}`, count, rule.copies)
    }
    for (const { unit, reserved } of rule.suspended ? [] : choices)
      this.#say(`reserved by rule ${id} for ${unit}`, reserved, 0)
  }

  /** Whatever a rule lacks, no storage could take; whatever is stuck, nobody can bring. */
  #saysWhy(id: number, rule: ModelRule, now: SeenRule): void {
    for (const [key, { rule: of, file, rse, state }] of this.last.locks) {
      const isBad = this.last.replicas.get(`${file}@${rse}`)?.state === 'BAD'
      if (of === id && state === 'STUCK' && !isBad && !this.closed.has(rse) && this.#hope(file, rse))
        this.#say(`lock ${key}`, state, 'tried again')
    }
    const none = rule.grouping === 'NONE'
    const choices = this.last.choices.filter(choice => choice.rule === id)
    const locks = [...this.last.locks.values()].filter(lock => lock.rule === id)
    let lacks = false
    for (const unit of none ? this.filesBelow(rule.did) : this.datasetsBelow(rule.did)) {
      const at = new Set(
        none
          ? locks.filter(lock => lock.file === unit).map(({ rse }) => rse)
          : choices.flatMap(choice => (choice.unit === unit ? (choice.rse ?? []) : [])),
      )
      const files = this.filesBelow(unit)
      const missing = none
        ? []
        : [...at].flatMap(rse => files.filter(file => !locks.some(lock => lock.file === file && lock.rse === rse)))
      if (missing.length > 0) lacks = true
      if (at.size >= rule.copies) continue
      lacks = true
      for (const rse of rule.rses) {
        if (!at.has(rse) && this.#canTake(rule, rule.grouping === 'ALL' ? undefined : unit, rse, this.last))
          this.#say(`rule ${id} for ${unit}`, `without ${rse} (${now.error})`, `there`)
      }
    }
    if (!lacks) this.#say(`error of rule ${id}`, now.error, null)
  }
}

function stateOf({ stuck, problems, error, stage, replicating }: SeenRule): string {
  if (stuck > 0 || problems > 0 || error !== null) return 'STUCK'
  return stage === 'EXPANDED' && replicating === 0 ? 'OK' : 'REPLICATING'
}

function wordsOf({ files, bytes, reserved }: Uses = NOTHING): string {
  return `${files} files, ${bytes} bytes, ${reserved} reserved`
}
