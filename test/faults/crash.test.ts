import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { askCopy, placeDataset, someFiles, transfersOf, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { Apart } from './apart.ts'

const FILES = 120

/** Every COPY that SITE-B gets, by its target; whoever waits for so many different ones is told. */
class Copies {
  targets: string[] = []
  #awaited: { count: number; go: () => void } | undefined

  readonly onRequest = (verb: string, target: string): void => {
    if (verb !== 'COPY') return
    this.targets.push(target)
    this.#look()
  }

  begin(): void {
    this.targets = []
  }

  /** Since the beginning. */
  different(count: number): Promise<void> {
    return new Promise(go => {
      this.#awaited = { count, go }
      this.#look()
    })
  }

  #look(): void {
    if (this.#awaited !== undefined && new Set(this.targets).size >= this.#awaited.count) this.#awaited.go()
  }
}

describe('server and worker as processes that are killed', function () {
  this.timeout(120_000)
  const apart = new Apart()
  const copies = new Copies()
  let house: House

  before(async () => {
    house = await startHouse({
      launch: apart,
      storages: { 'SITE-B': { onRequest: copies.onRequest } },
      server: {
        sessionLeaseSeconds: 2,
        retry: { maxAttempts: 20, soonSeconds: 0.1, laterSeconds: 0.1, maxDelaySeconds: 0.5 },
      },
      worker: { concurrency: 16, settleSeconds: 0.5 },
    })
    await house.addStorages()
    await house.startWorker()
  })
  after(() => house.stop())

  const files = someFiles(FILES, 2_000)

  /** The addresses of the files that are verified now. */
  async function verified(dataset: string): Promise<Set<string>> {
    const query = { did: `exp:${dataset}`, rse: 'SITE-B', state: 'AVAILABLE', limit: 1000 } as const
    const { items } = await house.client.listReplicas({ query })
    return new Set(items.map(({ url }) => new URL(url).pathname))
  }

  /** Every file is there and right, was verified once, and is copied by one transfer. */
  async function endsWell(dataset: string, rule: number): Promise<void> {
    await untilRule(house, rule, 'OK', 60_000)
    expect(await wrongFiles(house, 'SITE-B', dataset, files)).to.deep.equal([])
    const transfers = await transfersOf(house, rule)
    expect(transfers).to.have.length(FILES)
    for (const { state, attemptList } of transfers) {
      expect(state).to.equal('DONE')
      expect(attemptList.filter(({ outcome }) => outcome === 'done')).to.have.length(1)
    }
  }

  const start = { worker: () => house.startWorker(), server: () => house.restartServer() }
  type Name = keyof typeof start

  async function begin(dataset: string): Promise<number> {
    await placeDataset(house, 'SITE-A', dataset, files)
    copies.begin()
    return askCopy(house, dataset, 'SITE-B')
  }

  const kills: [string, [Name, number][]][] = [
    [
      'the worker early, the server in the middle, the worker late',
      [
        ['worker', 3],
        ['server', FILES / 2],
        ['worker', FILES - 3],
      ],
    ],
    [
      'the server early, the worker in the middle, the server late',
      [
        ['server', 3],
        ['worker', FILES / 2],
        ['server', FILES - 3],
      ],
    ],
  ]
  for (const [i, [what, times]] of kills.entries()) {
    it(what, async () => {
      const dataset = `killed${i}`
      const rule = await begin(dataset)
      for (const [name, count] of times) {
        await copies.different(count)
        const done = await verified(dataset)
        const before = copies.targets.length
        await apart.kill(name)
        await start[name]()
        await copies.different(Math.min(FILES, count + 10))
        expect(copies.targets.slice(before).filter(target => done.has(target))).to.deep.equal([])
      }
      await endsWell(dataset, rule)
    })
  }

  it('both at once', async () => {
    const rule = await begin('both')
    await copies.different(FILES / 2)
    await Promise.all([apart.kill('server'), apart.kill('worker')])
    await house.restartServer()
    const done = await verified('both')
    const before = copies.targets.length
    await house.startWorker()
    await endsWell('both', rule)
    expect(copies.targets.slice(before).filter(target => done.has(target))).to.deep.equal([])
  })

  it('the destination, which comes back after a second', async () => {
    const rule = await begin('storage')
    await copies.different(FILES / 2)
    await house.restartStorage('SITE-B', () => systemClock.sleep(1_000))
    await endsWell('storage', rule)
  })

  it('an orderly stop of both, which lose nothing', async () => {
    const rule = await begin('orderly')
    await copies.different(FILES / 2)
    await house.restartServer()
    await endsWell('orderly', rule)
  })
})
