import { PLAYED, type RunningStorage, WELL_BEHAVED } from '../../sandbox/main.ts'
import { systemClock } from '../../shared/runtime/clock.ts'
import { placeDataset } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { type Action, faultOf } from './anything.ts'
import { Disks } from './disks.ts'
import { MadeTime } from './made-time.ts'
import { startTroubledWorker, type TroubledWorker } from './troubled-worker.ts'
import { Truths } from './truths.ts'

const DATASETS = ['d0', 'd1', 'd2', 'd3', 'd4'] as const
const FILES = ['f0', 'f1', 'f2'] as const
const BYTES = 2_000
const STORAGES = ['SITE-A', 'SITE-B', 'SITE-C'] as const
/** Slow enough for things to happen while copies are under way. */
const PACE = { bytesPerSecond: 500 }
const LIMITS = { maxInbound: 3, maxOutbound: 4 }
const MOST_WORKERS = 3
/** Of made time: a file that nobody has is waited for for an hour, and what is stuck is tried again. A busy machine makes it slower. */
const REST_MS = 3 * 3_600_000
const REST_MOST_MS = 240_000
const LOOK_MS = 100

const SERVER = {
  metrics: undefined,
  sessionLeaseSeconds: 10,
  retry: { maxAttempts: 3, soonSeconds: 1, laterSeconds: 5, maxDelaySeconds: 20 },
  deletion: { graceSeconds: 0 },
}

/** One life of a whole Waybill, with time of its own: what happens in it, and what must be true all the while. */
export class Story {
  readonly #time: MadeTime
  readonly #house: House
  readonly #disks: Disks
  readonly #truths: Truths
  #workers: TroubledWorker[] = []
  readonly #gone: Promise<void>[] = []
  #started = 0
  /** Datasets and storages that a rule has ever named: what comes to lie there later cannot be told from a part of ours. */
  readonly #claimed = new Set<string>()

  private constructor(time: MadeTime, house: House, disks: Disks, truths: Truths) {
    this.#time = time
    this.#house = house
    this.#disks = disks
    this.#truths = truths
  }

  static async begin(): Promise<Story> {
    const time = new MadeTime()
    const watching: { truths?: Truths } = {}
    const storages = Object.fromEntries(
      STORAGES.map(name => [
        name,
        {
          behaviour: PACE,
          onRequest: (verb: string, target: string, ended: Promise<unknown>) =>
            watching.truths?.watch(name, verb, target, ended),
        },
      ]),
    )
    const house = await time.whileHeld(() => startHouse({ everyClock: time, storages, server: SERVER }))
    const disks = new Disks(house)
    await time.whileHeld(() => furnish(house, disks))
    watching.truths = await Truths.begin(house, disks, time)
    const story = new Story(time, house, disks, watching.truths)
    await story.play({ do: 'start' })
    await story.play({ do: 'rule', dataset: 0, at: 'SITE-B', priority: 3 })
    return story
  }

  async end(): Promise<void> {
    try {
      for (const worker of this.#workers) worker.line.heal()
      await Promise.all([...this.#gone, ...this.#workers.map(worker => worker.stop())])
      await this.#truths.end()
    } finally {
      // It throws what it finds in the logs.
      await this.#house.stop().finally(() => this.#time.end())
    }
  }

  /** What is not true now. */
  broken(): Promise<string[]> {
    return this.#truths.broken()
  }

  async play(action: Action): Promise<void> {
    switch (action.do) {
      case 'rule':
        return this.#rule(DATASETS[action.dataset] ?? 'd0', action.at, action.priority)
      case 'remove':
        return this.#remove(action.which)
      case 'play':
        return this.#behave(action.storage, { ...WELL_BEHAVED, ...PACE, ...PLAYED[action.plays] })
      case 'fault':
        return this.#behave(action.storage, faultOf(action.fault))
      case 'refuse':
        return this.#storage(action.storage).refuse({
          ...action,
          ...(action.retryAfter === undefined ? {} : { retryAfterSeconds: action.retryAfter }),
        })
      case 'heal':
        return this.#behave(action.storage, { ...WELL_BEHAVED, ...PACE })
      case 'foreign': {
        const spot = { rse: action.at, dataset: DATASETS[action.dataset] ?? 'd0', name: FILES[action.file] ?? 'f0' }
        if (this.#claimed.has(`${spot.rse} ${spot.dataset}`)) return
        return this.#disks.putForeign(spot, Buffer.alloc(action.long ? BYTES : BYTES / 2, 'somebody else'))
      }
      case 'spoil': {
        const spot = {
          rse: action.storage,
          dataset: DATASETS[action.dataset] ?? 'd0',
          name: FILES[action.file] ?? 'f0',
        }
        return this.#disks.spoil(spot, content => spoilt(content, action.how))
      }
      case 'start':
        if (this.#workers.length === MOST_WORKERS) return
        this.#started += 1
        this.#workers.push(startTroubledWorker(this.#house, this.#time, `worker-${this.#started}`))
        return
      case 'kill':
      case 'stop':
        return this.#part(action.worker, action.do === 'kill')
      case 'part':
        return this.#worker(action.worker)?.line.partFromServer(action.seconds * 1000)
      case 'befall':
        return this.#worker(action.worker)?.line.befall(action.call, action.mishap, action.seconds * 1000)
      case 'hold deletes': {
        const worker = this.#worker(action.worker)
        if (worker !== undefined) worker.line.deleteWaitMs = action.seconds * 1000
        return
      }
      case 'delay deletes': {
        const worker = this.#worker(action.worker)
        if (worker !== undefined) worker.line.deleteWayMs = action.seconds * 1000
        return
      }
      case 'restart the server':
        return this.#house.restartServer()
      case 'wait':
        return this.#time.sleep(action.seconds * 1000)
    }
  }

  /** All that was told to go wrong goes well again, and there is a worker. */
  async heal(): Promise<void> {
    for (const name of STORAGES) this.#behave(name, WELL_BEHAVED)
    for (const { line } of this.#workers) line.heal()
    if (this.#workers.length === 0) await this.play({ do: 'start' })
  }

  /** Waits until nothing is left to be done; then what is still not true, or not explained. */
  async rest(): Promise<string[]> {
    const deadline = this.#time.monotonic() + REST_MS
    const atMost = systemClock.monotonic() + REST_MOST_MS
    for (;;) {
      const broken = await this.broken()
      if (broken.length > 0) return broken
      const unrest = await this.#truths.unrest()
      if (unrest.length === 0) return this.#truths.unexplained()
      if (this.#time.monotonic() > deadline || systemClock.monotonic() > atMost) {
        const hours = (this.#time.monotonic() - deadline + REST_MS) / 3_600_000
        return [`no rest within ${hours.toFixed(1)} h`, ...unrest]
      }
      await systemClock.sleep(LOOK_MS)
    }
  }

  async #rule(dataset: string, at: string, priority: number): Promise<void> {
    const [expression = at, copies] = at.startsWith('2 of ') ? [at.slice(5), 2] : [at, 1]
    for (const rse of expression.split('|')) this.#claimed.add(`${rse} ${dataset}`)
    const body = { dids: [`exp:${dataset}`], copies, expression, priority }
    // There may be such a rule already.
    await this.#time.whileHeld(() => this.#house.client.addRules({ body }).catch(() => undefined))
  }

  async #remove(which: number): Promise<void> {
    const { client } = this.#house
    await this.#time.whileHeld(async () => {
      const { items } = await client.listRules({ query: {} })
      const rule = items[which % Math.max(1, items.length)]
      // It may be on its way out already.
      if (rule !== undefined) await client.removeRule({ params: { id: rule.id } }).catch(() => undefined)
    })
  }

  /** It leaves its work as it is, or hands it back. */
  #part(which: number, unheard: boolean): void {
    const worker = this.#worker(which)
    if (worker === undefined) return
    this.#workers = this.#workers.filter(other => other !== worker)
    if (unheard) worker.line.cut()
    this.#gone.push(worker.stop())
  }

  #worker(which: number): TroubledWorker | undefined {
    return this.#workers[which % Math.max(1, this.#workers.length)]
  }

  #storage(name: string): RunningStorage {
    const storage = this.#house.storages.get(name)
    if (storage === undefined) throw new Error(`no storage ${name}`)
    return storage
  }

  #behave(name: string, behaviour: Partial<RunningStorage['behaviour']>): void {
    Object.assign(this.#storage(name).behaviour, behaviour)
  }
}

function spoilt(content: Buffer, how: 'lost' | 'other bytes' | 'cut short'): Buffer | undefined {
  if (how === 'lost') return undefined
  return how === 'cut short' ? content.subarray(0, content.length / 3) : Buffer.alloc(content.length, 'spoilt')
}

/** Storages with limits, and datasets of a few files at the first. */
async function furnish(house: House, disks: Disks): Promise<void> {
  await house.addStorages()
  for (const rse of STORAGES) await house.client.updateRse({ params: { rse }, body: LIMITS })
  for (const dataset of DATASETS) {
    const files = FILES.map(name => ({ name, content: Buffer.alloc(BYTES, `${dataset} ${name};`) }))
    for (const { name, content } of files) disks.expect(dataset, name, content)
    await placeDataset(house, 'SITE-A', dataset, files)
  }
}
