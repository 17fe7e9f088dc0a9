import { expect } from 'chai'
import { systemClock } from '../../shared/runtime/clock.ts'
import { type House, startHouse } from '../house/house.ts'
import { until } from '../house/until.ts'
import { uploadFiles } from '../house/upload.ts'

const FILES = 12

describe('a link at its limit', () => {
  let house: House

  before(async () => {
    house = await startHouse()
    await house.addStorages()
    const link = { source: 'SITE-A', destination: 'SITE-B' }
    await house.client.setDistance({ params: link, body: { maxActive: 1, optimize: false } })
    await house.startWorker()
  })
  after(() => house.stop())

  it('gives a slot to the next transfer as soon as it is free', async () => {
    const files = Array.from({ length: FILES }, (_, i) => ({ did: `exp:f${i}`, content: Buffer.from(`file ${i}`) }))
    await uploadFiles(house, 'SITE-A', 'exp:run1', files)
    const startedAt = systemClock.monotonic()
    const { items } = await house.client.addRules({ body: { dids: ['exp:run1'], copies: 1, expression: 'SITE-B' } })
    const id = items[0]?.id ?? 0
    await until(
      () => house.client.getRule({ params: { id } }),
      found => found.state === 'OK',
    )
    // A claim that finds no slot looks again every second: one file in a second would be the limit.
    expect(systemClock.monotonic() - startedAt).to.be.below((FILES / 2) * 1000)
  })
})
