import { expect } from 'chai'
import { askCopy, didOf, placeDataset, someFiles, transfersOf, untilRule, wrongFiles } from '../house/dataset.ts'
import { type House, startHouse } from '../house/house.ts'
import { LeapingClock } from '../house/leaping-clock.ts'
import { until } from '../house/until.ts'

const FILES = 60
/** As many as must be copied before all is well again, and a few more. */
const ONLY = 25
const files = someFiles(FILES)
const FIRST = didOf('run1', 'f0')

describe('a storage that dies with work queued on it', () => {
  const clock = new LeapingClock()
  let house: House
  const near = { source: 'SITE-A', destination: 'SITE-B' }
  const failing = async () => {
    const { items } = await house.client.listDistances()
    return items.find(item => item.source === near.source && item.destination === near.destination)?.failing
  }

  before(async () => {
    // Leaps are no reason to lose a session.
    house = await startHouse({ clock, server: { sessionLeaseSeconds: 600 } })
    await house.addStorages()
    await placeDataset(house, 'SITE-A', 'run1', files)
    await placeDataset(house, 'SITE-C', 'run1', files)
    await placeDataset(house, 'SITE-A', 'only', someFiles(ONLY))
    const far = { source: 'SITE-C', destination: 'SITE-B' }
    await house.client.setDistance({ params: far, body: { distance: 9, optimize: false } })
    await house.client.setDistance({ params: near, body: { distance: 1, maxActive: 4, optimize: false } })
    await house.startWorker()
    // A worker that has used the same tokens there before does not look at the source again: the destination tells of it.
    await house.client.addDids({ body: { dids: [{ did: 'exp:before', type: 'DATASET' }] } })
    await house.client.attach({ params: { scope: 'exp', name: 'before' }, body: { dids: [FIRST] } })
    await untilRule(house, await askCopy(house, 'before', 'SITE-B'), 'OK')
  })
  after(() => house.stop())

  const reasons = async () => {
    const { items } = await house.client.listTransfers({ query: { state: 'QUEUED', limit: 1_000 } })
    return items.map(({ reason }) => reason ?? '')
  }

  it('is held back; all is copied from the other, and what was moved says why', async () => {
    await house.restartStorage('SITE-A', async () => {
      const rule = await askCopy(house, 'run1', 'SITE-B')
      await until(reasons, found => found.some(reason => /^ENDPOINT_HELD \(CONNECT_FAILED: ./.test(reason)))
      const held = await failing()
      expect(held).to.include({ code: 'CONNECT_FAILED' })
      expect(held?.heldUntil).to.be.above(clock.now())
      // It has failed for long enough now: work leaves it.
      clock.leap(61_000)
      await untilRule(house, rule, 'OK')
      const transfers = (await transfersOf(house, rule)).filter(({ did }) => did !== FIRST)
      expect(transfers).to.have.length(FILES - 1)
      for (const { replanned, source, attemptList } of transfers) {
        expect(source).to.equal('SITE-C')
        if (attemptList.some(attempt => attempt.source === 'SITE-A')) continue
        expect(replanned).to.include({ from: 'SITE-A', code: 'SOURCE_HELD' })
        expect(replanned?.message).to.match(/^it has failed for \d+ s, the last time: CONNECT_FAILED: ./)
      }
      expect(transfers.filter(({ replanned }) => replanned !== undefined)).to.have.length.above(FILES / 2)
    })
    expect(await wrongFiles(house, 'SITE-B', 'run1', files.slice(1))).to.deep.equal([])
  })

  it('gives what no other has when it is back, and is free then', async () => {
    const rule = await askCopy(house, 'only', 'SITE-B')
    await until(reasons, found => found.length === ONLY && found.every(reason => reason.startsWith('ENDPOINT_HELD')))
    clock.leap(60_000)
    await untilRule(house, rule, 'OK')
    expect(await failing()).to.equal(undefined)
  })
})
