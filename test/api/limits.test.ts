import { expect } from 'chai'
import { placeDataset, someFiles, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'

const WORKERS = 3
const LIMITS = { maxInbound: 5, maxOutbound: 7 }
/** What goes where: SITE-A gives to two, and each of those takes from two. */
const COPIES = [
  ['SITE-A', 'SITE-B'],
  ['SITE-A', 'SITE-C'],
  ['SITE-B', 'SITE-C'],
  ['SITE-C', 'SITE-B'],
] as const
const BULK = 60
const SMALL = 6

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

describe(`storages that take ${LIMITS.maxInbound} in and give ${LIMITS.maxOutbound} out, and ${WORKERS} workers`, () => {
  const activity = { 'SITE-A': new Activity(), 'SITE-B': new Activity(), 'SITE-C': new Activity() }
  let house: House

  before(async () => {
    house = await startHouse({
      storages: Object.fromEntries(
        Object.entries(activity).map(([name, { onRequest }]) => [
          name,
          { onRequest, behaviour: { bytesPerSecond: 20_000 } },
        ]),
      ),
    })
    await house.addStorages()
    for (const rse of Object.keys(activity)) await house.client.updateRse({ params: { rse }, body: LIMITS })
    await house.client.setActivity({ params: { activity: 'Small' }, body: { weight: 2 } })
  })
  after(() => house.stop())

  it('see as many as they take and never more, and a small activity is not kept waiting by large ones', async () => {
    const datasets: { name: string; destination: string; files: ReturnType<typeof someFiles>; rule: number }[] = []
    const add = async (name: string, [source, destination]: readonly [string, string], count: number, of: string) => {
      const files = someFiles(count, 8_000)
      await placeDataset(house, source, name, files)
      const { items } = await house.client.addRules({
        body: { dids: [`exp:${name}`], copies: 1, expression: destination, activity: of },
      })
      datasets.push({ name, destination, files, rule: items[0]?.id ?? 0 })
    }
    for (const [i, ends] of COPIES.entries()) await add(`bulk${i}`, ends, BULK, 'Bulk')
    for (let i = 0; i < WORKERS; i += 1) await house.startWorker(`worker-${i}`)
    await until(
      () => house.client.listTransfers({ query: { state: 'DONE', limit: 10 } }),
      ({ items }) => items.length > 3,
    )
    await add('small', COPIES[0], SMALL, 'Small')
    const rule = (id: number) => house.client.getRule({ params: { id } })
    const small = datasets.at(-1)?.rule ?? 0
    await until(
      () => rule(small),
      ({ state }) => state === 'OK',
      60_000,
    )
    const [first] = datasets
    expect((await rule(first?.rule ?? 0)).locks.replicating, 'bulk that is still on its way').to.be.above(BULK / 4)
    for (const { name, destination, files, rule: id } of datasets) {
      await until(
        () => rule(id),
        ({ state }) => state === 'OK',
        120_000,
      )
      expect(await wrongFiles(house, destination, name, files)).to.deep.equal([])
    }
    const seen = Object.entries(activity).map(([name, { most }]) => [name, most.COPY, most.GET])
    expect(seen.map(([name, copies]) => [name, copies])).to.deep.equal([
      ['SITE-A', 0],
      ['SITE-B', LIMITS.maxInbound],
      ['SITE-C', LIMITS.maxInbound],
    ])
    expect(activity['SITE-A'].most.GET).to.equal(LIMITS.maxOutbound)
    for (const { most } of Object.values(activity)) expect(most.GET).to.be.at.most(LIMITS.maxOutbound)
  }).timeout(300_000)
})
