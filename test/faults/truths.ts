import type { Database } from '../../server/database/database.ts'
import type { House } from '../house/house.ts'
import { brokenInvariants } from '../store/invariants.ts'
import { World } from '../store/world.ts'
import type { Disks, Spot } from './disks.ts'
import type { MadeTime } from './made-time.ts'

interface ReplicaRow {
  readonly id: number
  readonly rse: string
  readonly name: string
  /** How often it was verified. */
  readonly times: number
}

interface RuleRow {
  readonly id: number
  readonly state: string
  readonly stage: string
  readonly dataset: string
}

interface TransferRow {
  readonly id: number
  readonly state: string
  readonly reason: string | null
}

const OPEN = "state NOT IN ('DONE', 'FAILED', 'CANCELLED')"

/** What must be true whatever happens: in the database, and on the disks of the storages. */
export class Truths {
  readonly #house: House
  readonly #world: World
  readonly #db: Database
  readonly #disks: Disks
  readonly #time: MadeTime
  /** Of files that were verified: the version that lies there. */
  readonly #verified = new Map<string, string>()
  /** DELETEs that came where a verified file lies. */
  readonly #late: string[] = []
  readonly #looking = new Set<Promise<void>>()

  private constructor(house: House, world: World, db: Database, disks: Disks, time: MadeTime) {
    this.#time = time
    this.#house = house
    this.#world = world
    this.#db = db
    this.#disks = disks
  }

  static async begin(house: House, disks: Disks, time: MadeTime): Promise<Truths> {
    const db = house.database.open()
    return new Truths(house, await World.of(db), db, disks, time)
  }

  async end(): Promise<void> {
    await Promise.all(this.#looking)
    await this.#db.close()
  }

  /** Told every request to a storage. */
  watch(rse: string, verb: string, target: string, ended: Promise<unknown>): void {
    if (verb !== 'DELETE') return
    const look = this.#lookAtDelete(rse, target, ended)
    this.#looking.add(look)
    void look.finally(() => this.#looking.delete(look))
  }

  /** What is not true now. */
  async broken(): Promise<string[]> {
    return [
      ...(await brokenInvariants(this.#world)),
      ...(await this.#disks.wronged()),
      ...(await this.#wrongReplicas()),
      ...this.#late,
    ]
  }

  /** Why it is not over yet; empty: everything has come to rest. */
  async unrest(): Promise<string[]> {
    const open = await this.#rows<TransferRow>(`SELECT id, state, reason FROM transfers WHERE ${OPEN}`)
    const rules = await this.#rows<RuleRow>(
      'SELECT rules.id, rules.state, rules.stage, dids.name AS dataset FROM rules JOIN dids ON dids.id = rules.did_id',
    )
    const tasks = await this.#rows<{ id: number; error: string | null }>('SELECT id, error FROM tasks')
    return [
      ...open.map(({ id, state, reason }) => `transfer ${id} is ${state} ${reason ?? ''}`),
      ...(await Promise.all(rules.map(rule => this.#unrestOf(rule)))).flat(),
      ...tasks.map(({ id, error }) => `task ${id} is there ${error ?? ''}`),
    ]
  }

  /** What nobody could read afterwards: ends without a reason. Only at rest. */
  async unexplained(): Promise<string[]> {
    const reason = 'EXISTS (SELECT 1 FROM attempts WHERE transfer_id = transfers.id'
    const failed = await this.#rows<{ id: number; state: string }>(
      `SELECT id, state FROM transfers WHERE (state = 'FAILED' AND reason IS NULL AND NOT ${reason} AND code IS NOT NULL AND message <> ''))
          OR (state = 'DONE' AND NOT ${reason} AND outcome = 'done'))`,
    )
    return failed.map(({ id, state }) => `transfer ${id} is ${state} without its reason`)
  }

  async #unrestOf({ id, state, stage, dataset }: RuleRow): Promise<string[]> {
    if (stage === 'EXPANDED' && state === 'OK') return []
    const known = () => this.#house.client.getRule({ params: { id } })
    const { problems = [] } = stage === 'EXPANDED' ? await this.#time.whileHeld(known) : {}
    const codes = problems.map(({ code }) => code)
    // A part that nobody owns up to stays in the way, and is named: docs/decisions/0008.
    const lasts = this.#disks.isHopeless(dataset) || codes.every(code => code === 'DESTINATION_EXISTS')
    if (state === 'STUCK' && codes.length > 0 && lasts) return []
    return [`rule ${id} is ${stage} and ${state} ${codes.join(', ')}`]
  }

  async #wrongReplicas(): Promise<string[]> {
    const wrong: string[] = []
    for (const row of await this.#available()) {
      const spot = spotOf(row)
      const content = this.#disks.contentOf(row.name)
      if (content === undefined || this.#disks.isSpoilt(spot)) continue
      const found = await this.#disks.find(spot)
      const key = `${row.id} ${row.times}`
      const before = this.#verified.get(key)
      const right = found?.content.equals(content) === true
      if (right && (before === undefined || before === found.version)) this.#verified.set(key, found.version)
      // What is deleted because nobody wants it was AVAILABLE a moment ago.
      else if ((await this.#available(row.id)).some(({ times }) => times === row.times)) {
        const what = found === undefined ? 'is not there' : right ? 'is another than was verified' : 'has other bytes'
        wrong.push(`${row.name} is AVAILABLE at ${row.rse}, but ${what}`)
      }
    }
    return wrong
  }

  #available(id?: number): Promise<ReplicaRow[]> {
    return this.#rows<ReplicaRow>(
      `SELECT replicas.id, rses.name AS rse, dids.name AS name,
              (SELECT count(*) FROM transfers JOIN attempts ON attempts.transfer_id = transfers.id AND outcome = 'done'
                WHERE transfers.replica_id = replicas.id) AS times
         FROM replicas JOIN rses ON rses.id = replicas.rse_id JOIN dids ON dids.id = replicas.file_id
        WHERE replicas.state = 'AVAILABLE'${id === undefined ? '' : ` AND replicas.id = ${id}`}`,
    )
  }

  /** When it comes, and when it has been done. */
  async #lookAtDelete(rse: string, target: string, ended: Promise<unknown>): Promise<void> {
    for (const when of ['came', 'was done']) {
      if (when === 'was done') await ended.catch(() => undefined)
      const rows = await this.#available()
      const at = rows.find(row => row.rse === rse && decodeURIComponent(target).endsWith(`/exp/${row.name}`))
      if (at !== undefined) this.#late.push(`a DELETE ${when} at ${rse} where ${at.name} is AVAILABLE`)
    }
  }

  #rows<Row>(sql: string): Promise<Row[]> {
    return this.#world.rows<Row>(sql)
  }
}

function datasetOf(didName: string): string {
  return didName.slice(0, didName.lastIndexOf('/'))
}

function spotOf({ rse, name }: ReplicaRow): Spot {
  return { rse, dataset: datasetOf(name), name: name.slice(name.lastIndexOf('/') + 1) }
}
